"""``tokenize``: the token ids of a text, made in C."""

from __future__ import annotations

import numpy as np

from shardstream.errors import TokenizerError
from shardstream.packing.batch import Batch
from shardstream.packing.config import Settings
from shardstream.packing.document import Document, Path
from shardstream.packing.refusals import without_refused
from shardstream.packing.steps import Column, Columns, need
from shardstream.packing.threads import num_threads
from shardstream.schema import Ragged, Text
from shardstream.tokenizers import Tokenizer, load


class TokenizeSettings(Settings):
    """The keys of ``tokenize``."""

    tokenizer: str
    pattern: str | None = None
    special_tokens: dict[str, int] | None = None
    field: str = "text"
    to: str = "ids"
    begin: str | None = None
    end: str | None = None
    dtype: str | None = None


class TokenizeStep:
    """Adds the column ``to``: a ragged row of ids a text, between those of ``begin`` and ``end`` where they are named.

    The dtype is uint16 if the vocabulary has at most 65,536 ids, else uint32; one that is named must have room for
    all ids. Special tokens in the texts are text like any other.
    """

    def __init__(self, settings: TokenizeSettings, document: Document, path: Path):
        self.settings, self.document, self.path = settings, document, path
        try:
            self.tokenizer: Tokenizer = load(
                settings.tokenizer, pattern=settings.pattern, special_tokens=settings.special_tokens
            )
        except TokenizerError as error:
            raise document.error((*path, "tokenizer"), error.message) from error
        except OSError as error:
            raise document.error(
                (*path, "tokenizer"), f"cannot read {settings.tokenizer}: {error.strerror}."
            ) from error
        self.identity = self.tokenizer.vocabulary.digest()
        self.dtype = self._dtype()
        self.around = {name: self._id_of(name) for name in ("begin", "end") if getattr(settings, name) is not None}

    def columns(self, before: Columns) -> Columns:
        need(self.document, (*self.path, "field"), before, self.settings.field, Text)
        return {**before, self.settings.to: Column(Ragged(self.dtype))}

    def run(self, batch: Batch) -> Batch:
        batch = batch.checked(self.settings.field, str, "text")
        batch, (ids, offsets) = without_refused(
            batch, lambda part: self.tokenizer.encode_batch(part.columns[self.settings.field], num_threads=num_threads()),
            self.settings.field,
        )  # fmt: skip
        ids, offsets = self._between(ids.astype(self.dtype), offsets)
        return Batch({**batch.columns, self.settings.to: (ids, offsets)}, batch.rejects, batch.num_tokens + len(ids))

    def _between(self, ids: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the ids with those of ``begin`` and ``end`` around each text's."""
        if "end" in self.around:
            ids, offsets = np.insert(ids, offsets[1:], self.around["end"]), offsets + np.arange(len(offsets))
        if "begin" in self.around:
            ids, offsets = np.insert(ids, offsets[:-1], self.around["begin"]), offsets + np.arange(len(offsets))
        return ids, offsets

    def _dtype(self) -> str:
        num_ids, dtype = self.tokenizer.vocab_size, self.settings.dtype
        if dtype is None:
            return "uint16" if num_ids <= 2**16 else "uint32"
        if dtype not in ("uint16", "int32", "uint32", "int64"):
            raise self.document.error((*self.path, "dtype"), f"ids are uint16, int32, uint32 or int64, not {dtype!r}.")
        if num_ids - 1 > np.iinfo(dtype).max:
            raise self.document.error(
                (*self.path, "dtype"), f"{dtype} has no room for the {num_ids} ids of {self.settings.tokenizer}."
            )
        return dtype

    def _id_of(self, name: str) -> int:
        token = getattr(self.settings, name)
        number = self.tokenizer.token_to_id(token)
        if number is None:
            special = ", ".join(self.tokenizer.special_tokens) or "none"
            message = f"{token!r} is not a token of {self.settings.tokenizer}; its special tokens: {special}."
            raise self.document.error((*self.path, name), message)
        return number

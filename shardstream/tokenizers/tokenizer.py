"""Text to token ids and back, on top of the C byte-pair encoder.

A batch of ragged sequences is two arrays, laid out like Arrow's LargeList:

=======  ======  =================  =====================================================
name     dtype   shape              meaning
=======  ======  =================  =====================================================
ids      uint32  ``(num_tokens,)``  every sequence, end to end
offsets  int64   ``(batch + 1,)``   sequence ``i`` is ``ids[offsets[i]:offsets[i + 1]]``
=======  ======  =================  =====================================================

State: a tokenizer is immutable and shared by threads. What encoding writes to (a cache of
pieces met before, working memory) belongs to a ``Scratch``, which a thread takes from the
tokenizer's pool for the length of one call. ``tests/twins/bpe.py`` is the readable twin.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Collection
from pathlib import Path
from types import MappingProxyType

import numpy as np

from shardstream._native import bpe as native
from shardstream.errors import TokenizerError
from shardstream.tokenizers.batch import (
    Segments,
    Specials,
    Text,
    Texts,
    as_batch,
    chunks_of,
    joined,
    plain,
    segmented,
    to_bytes,
    with_specials,
)
from shardstream.tokenizers.files import ranks_file
from shardstream.tokenizers.hf import tokenizer_json
from shardstream.tokenizers.normalize import nfc
from shardstream.tokenizers.patterns import splitter
from shardstream.tokenizers.vocab import Vocabulary, tables

MAX_THREADS = 256
PAIR_NAMES = ("vocab.json", "encoder.json")  # whose merges stand in a file beside them
CHUNK_NBYTES = 1 << 18  # of text a call into C: long against a call's cost, short against the cache of a core
THREADS_CHUNK_NBYTES = 1 << 17  # threads tell each other what they found after each


class Tokenizer:
    """Encodes with one :class:`Vocabulary`; built by :func:`shardstream.tokenizers.load` or ``train``."""

    def __init__(self, vocabulary: Vocabulary):
        self.vocabulary = vocabulary
        self._bpe = tables(vocabulary)
        self._pieces = splitter(vocabulary.pattern)
        self._pool: deque[native.Scratch] = deque()  # append and pop are atomic

    def __reduce__(self):
        return Tokenizer, (self.vocabulary,)

    def __repr__(self) -> str:
        return f"<Tokenizer of {self.vocab_size} ids>"

    @property
    def vocab_size(self) -> int:
        """One more than the highest id, special tokens counted: the height of an embedding table."""
        return self.vocabulary.num_ids

    @property
    def special_tokens(self) -> MappingProxyType[str, int]:
        """Text and id of each special token."""
        return MappingProxyType(self.vocabulary.special_tokens)

    def token_to_id(self, token: Text) -> int | None:
        """Return the id of the token with exactly this text, special tokens too, or ``None``."""
        if isinstance(token, str):
            if (number := self.vocabulary.special_tokens.get(token)) is not None:
                return number
            token = to_bytes(token)
        if not isinstance(token, bytes):
            raise TokenizerError(f"A token is str or bytes, not {token!r}.")
        number = self._bpe.token_id(token)
        return None if number == native.NO_ID else number

    def id_to_token(self, number: int) -> bytes | None:
        """Return the bytes that an id stands for, or ``None`` if no token has it."""
        if type(number) is bool or not isinstance(number, int | np.integer):
            raise TokenizerError(f"An id is a whole number, not {number!r}.")
        return self.vocabulary.token(number)

    def encode(self, text: Text, *, allowed_special: Collection[str] | str = (),
               disallowed_special: Collection[str] | str = "all") -> np.ndarray:  # fmt: skip
        """Encode one text into uint32 ids, shape ``(num_tokens,)``.

        Args:
            text: A string, where a lone surrogate becomes U+FFFD as in tiktoken, or bytes, where invalid UTF-8
                is kept: :meth:`decode_bytes` gives them back.
            allowed_special: Special tokens that become their own ids: their texts, or ``"all"``.
            disallowed_special: Special tokens that are an error in the text, but for the allowed ones. With ``()``,
                what is neither is encoded like any other text.

        Raises:
            TokenizerError: The text has a disallowed special token, or more than 1 GiB.
        """
        ids, _ = self.encode_batch([text], allowed_special=allowed_special, disallowed_special=disallowed_special)
        return ids

    def encode_batch(self, texts: Texts, *, num_threads: int = 1,
                     allowed_special: Collection[str] | str = (),
                     disallowed_special: Collection[str] | str = ()) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """Encode texts into one ragged batch ``(ids, offsets)``, as in the module's docstring.

        Unlike :meth:`encode`, special tokens in the texts are ordinary text unless asked otherwise: a corpus
        holds whatever it holds. The GIL is released while C runs.

        Args:
            texts: Strings or bytes, as in :meth:`encode`; or ``(values, offsets)``, uint8 and int64
                ``(batch + 1,)``, where text ``i`` is ``values[offsets[i]:offsets[i + 1]]``.
            num_threads: Threads that share the batch, from 1 to 256.

        Returns:
            New C-contiguous arrays owned by the caller. An empty text is an empty sequence.

        Raises:
            TokenizerError: A text has a disallowed special token or more than 1 GiB, or is none; ``e.index`` says which.
                Or an argument is out of its range.
        """
        if type(num_threads) is bool or not isinstance(num_threads, int | np.integer) or not 1 <= num_threads <= MAX_THREADS:
            raise TokenizerError(f"num_threads is a whole number from 1 to {MAX_THREADS}, not {num_threads!r}.")
        specials = Specials.choose(self.vocabulary.special_tokens, allowed_special, disallowed_special)
        batch = as_batch(texts)
        if num_threads == 1:
            return self._encode_chunks(batch, chunks_of(batch, CHUNK_NBYTES), specials)
        chunks = chunks_of(batch, THREADS_CHUNK_NBYTES, num_ends=num_threads)
        if len(chunks) < 2:
            return self._encode_chunks(batch, chunks, specials)
        return self._encode_by_threads(batch, chunks, specials, num_threads)

    def _encode_by_threads(self, batch: Texts, chunks: list[range], specials: Specials | None, num_threads: int):
        """Do what :meth:`_encode_chunks` does with threads of C, which begin while this one still prepares chunks."""
        scratches = [self._take_scratch() for _ in range(min(num_threads, len(chunks)))]
        parts, bounds = [], []
        with native.Job(scratches, len(chunks), _room(batch, chunks)) as job:
            for chunk in chunks:
                parts.append(self._segments(batch, chunk, specials))
                bounds.append(np.empty(len(parts[-1].offsets), np.int64))
                job.add(parts[-1].values, parts[-1].offsets, bounds[-1])
            ids = job.run([chunk.start for chunk in chunks])
        self._pool.extend(reversed(scratches))  # this thread's comes first next time: its core has it at hand
        offsets = np.concatenate([bounds[0], *(ends[1:] for ends in bounds[1:])])
        if parts[0].bounds is not None:
            return with_specials(joined(parts), ids, offsets)
        ids.base.resize(len(ids), refcheck=False)
        return ids.base, offsets

    def _encode_chunks(self, batch: Texts, chunks: list[range], specials: Specials | None):
        """Encode consecutive chunks of a batch into one ``(ids, offsets)``, with one scratch."""
        first = chunks[0].start if chunks else 0
        ids, used = _room(batch, chunks), 0
        offsets = np.zeros(chunks[-1].stop - first + 1 if chunks else 1, np.int64)
        scratch = self._take_scratch()
        for chunk in chunks:
            segments = self._segments(batch, chunk, specials)
            num_segments = len(segments.offsets) - 1
            num_bytes = int(segments.offsets[-1] - segments.offsets[0])
            needed = used + num_bytes + num_segments + native.IDS_SLACK  # a special token is an empty segment
            if len(ids) < needed:
                ids, shorter = np.empty(max(needed, len(ids) * 3 // 2), np.uint32), ids
                ids[:used] = shorter[:used]
            bounds = np.empty(num_segments + 1, np.int64)
            num_ids = scratch.encode(segments.values, segments.offsets, ids[used:], bounds, chunk.start)
            if segments.bounds is not None:
                new, bounds = with_specials(segments, ids[used : used + num_ids], bounds)
                num_ids = len(new)
                ids[used : used + num_ids] = new
            offsets[chunk.start - first : chunk.stop - first + 1] = bounds + used
            used += num_ids
        self._pool.append(scratch)
        ids.resize(used, refcheck=False)
        return ids, offsets

    def _take_scratch(self) -> native.Scratch:
        try:
            return self._pool.pop()
        except IndexError:
            return native.Scratch(self._bpe)

    def _segments(self, batch: Texts, chunk: range, specials: Specials | None) -> Segments:
        if specials is None and self._pieces is None and not self.vocabulary.nfc:
            return plain(batch, chunk)
        return segmented(batch, chunk, specials, nfc if self.vocabulary.nfc else str, self._pieces or _one_piece)

    def decode_bytes(self, ids) -> bytes:
        """Return the bytes that ids stand for, special tokens included.

        Raises:
            TokenizerError: An id is no token's.
        """
        try:
            given = np.asarray(ids) if len(ids) else np.empty(0, np.uint32)
            fits = given.ndim == 1 and given.dtype.kind in "iu" and (not len(given) or 0 <= given.min() <= given.max() < 2**32)
        except (OverflowError, TypeError, ValueError):
            fits = False
        if not fits:
            raise TokenizerError("ids are one row of whole numbers from 0 to 2**32 - 1.")
        return self._bpe.decode(np.ascontiguousarray(given, np.uint32))

    def decode(self, ids, errors: str = "replace") -> str:
        """Return the text that ids stand for; ``errors`` is for ids that end inside a character, as in
        ``bytes.decode``.
        """
        return self.decode_bytes(ids).decode("utf-8", errors)

    def save(self, path: str | Path) -> None:
        """Write the vocabulary: ``*.tiktoken`` for tiktoken, ``*.json`` for Hugging Face's tokenizers.

        A ``.tiktoken`` file holds neither pattern nor special tokens; pass them to ``load()`` again. The file has its name only when it
        is whole.

        Raises:
            TokenizerError: The name ends in neither, or that format cannot say what this vocabulary does.
        """
        path = Path(path)
        if path.suffix not in (".tiktoken", ".json") or path.name in PAIR_NAMES:
            raise TokenizerError(f"{path}: a vocabulary is saved as *.tiktoken or *.json, and not as "
                                 f"{' or '.join(PAIR_NAMES)}.")  # fmt: skip
        content = ranks_file(self.vocabulary, path) if path.suffix == ".tiktoken" else tokenizer_json(self.vocabulary)
        part = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            part.write_bytes(content)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)


def _one_piece(text: str) -> list[str]:
    return [text]


def _room(batch: Texts, chunks: list[range]) -> np.ndarray:
    """Return room for the ids that chunks of ordinary text have; np.empty() takes no memory before it is written to."""
    if not chunks:
        return np.empty(0, np.uint32)
    first, last = chunks[0].start, chunks[-1].stop
    num_chars = int(batch[1][last] - batch[1][first]) if isinstance(batch, tuple) else sum(map(len, batch[first:last]))
    return np.empty(num_chars // 2 + 2 * CHUNK_NBYTES, np.uint32)

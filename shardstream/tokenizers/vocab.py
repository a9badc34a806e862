"""A vocabulary: all that decides which ids a text gets, as plain data.

Everything else (tables, caches) is built from it, so a tokenizer is pickled as its vocabulary.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from shardstream._native import bpe as native
from shardstream.errors import TokenizerError
from shardstream.tokenizers import patterns


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Tokens, ranks and rules of one tokenizer.

    Attributes:
        values, offsets, kinds: uint8, int64 ``(num_ids + 1,)`` and uint8 ``(num_ids,)``: id ``i`` stands for the bytes
            ``values[offsets[i]:offsets[i + 1]]`` and is of kind ``UNUSED``, ``TOKEN`` or ``SPECIAL``.
        merges: uint32 ``(num_merges, 2)``, pairs of ids by rank, or ``None``: ids are ranks and any pair merges whose
            concatenation is a token.
        pattern: The split pattern, a regular expression.
        whole_piece: A piece that is a token gets its id without merging (tiktoken; HF's ``ignore_merges``).
        nfc: Texts are put in Unicode's normal form C first.
        special_tokens: Text and id of each special token.
    """

    values: np.ndarray
    offsets: np.ndarray
    kinds: np.ndarray
    merges: np.ndarray | None
    pattern: str
    whole_piece: bool
    nfc: bool = False
    special_tokens: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def from_tokens(cls, tokens: Mapping[bytes, int], special_tokens: Mapping[str, int], **rules) -> Vocabulary:
        """Build from the id of each token; a special token may have the id of the same bytes among ``tokens``.

        Raises:
            TokenizerError: An id is negative, too high, or has two tokens; or a special token is no text.
        """
        special_bytes = _special_bytes(special_tokens)
        numbers = (*tokens.values(), *special_tokens.values())
        highest = max(numbers, default=-1)
        if highest >= native.MAX_TOKENS or min(numbers, default=0) < 0:
            wrong = highest if highest >= native.MAX_TOKENS else min(numbers)
            raise TokenizerError(f"A token's id is from 0 to {native.MAX_TOKENS - 1}; one is {wrong}.")
        by_id, kinds = [b""] * (highest + 1), np.zeros(highest + 1, np.uint8)
        for token, number in tokens.items():
            if kinds[number] != native.UNUSED:
                raise TokenizerError(f"Tokens {by_id[number]!r} and {token!r} have the same id {number}.")
            by_id[number], kinds[number] = token, native.TOKEN
        for text, number in special_tokens.items():
            token = special_bytes[text]
            if not token or (kinds[number] != native.UNUSED and by_id[number] != token):
                raise TokenizerError(f"Special token {text!r} is empty, or its id {number} is that of "
                                     f"{by_id[number]!r}.")  # fmt: skip
            if kinds[number] == native.UNUSED:
                by_id[number], kinds[number] = token, native.SPECIAL
        offsets = np.zeros(highest + 2, np.int64)
        np.cumsum([len(token) for token in by_id], out=offsets[1:])
        values = np.frombuffer(b"".join(by_id), np.uint8)
        special = {text: int(number) for text, number in special_tokens.items()}
        return cls(values, offsets, kinds, special_tokens=special, **rules)

    @property
    def num_ids(self) -> int:
        """One more than the highest id."""
        return len(self.kinds)

    def token(self, number: int) -> bytes | None:
        """Return the bytes that an id stands for, or ``None`` if no token has it."""
        if not 0 <= number < self.num_ids or self.kinds[number] == native.UNUSED:
            return None
        return self.values[self.offsets[number] : self.offsets[number + 1]].tobytes()

    def digest(self) -> str:
        """Return a hash of all that decides which ids a text gets."""
        state = hashlib.blake2b(digest_size=16)
        rules = [self.pattern, self.whole_piece, self.nfc, sorted(self.special_tokens.items()), self.merges is None]
        state.update(json.dumps(rules).encode())
        for array in (self.values, self.offsets, self.kinds, self.merges):
            if array is not None:
                state.update(np.ascontiguousarray(array))
        return state.hexdigest()

    def tokens(self) -> dict[bytes, int]:
        """Return the id of each token that takes part in encoding, by ascending id."""
        data, offsets = self.values.tobytes(), self.offsets.tolist()
        numbers = np.flatnonzero(self.kinds == native.TOKEN).tolist()
        return {data[offsets[i] : offsets[i + 1]]: i for i in numbers}


def _special_bytes(special_tokens: Mapping[str, int]) -> dict[str, bytes]:
    """Return the UTF-8 of each special token, after a look at what a caller or a file gave for them."""
    if not isinstance(special_tokens, Mapping):
        raise TokenizerError(f"special_tokens is a mapping of text to id, not {type(special_tokens).__name__}.")
    for text, number in special_tokens.items():
        if not isinstance(text, str) or type(number) is bool or not isinstance(number, int | np.integer):
            raise TokenizerError(f"A special token is a text with a whole number; {text!r} has {number!r}.")
    try:
        return {text: text.encode() for text in special_tokens}
    except UnicodeEncodeError as error:
        raise TokenizerError(f"Special token {error.object!r} has a lone surrogate.") from None


def tables(vocab: Vocabulary) -> native.Bpe:
    """Return the C tables of a vocabulary; 0.1 to 0.5 s.

    Raises:
        TokenizerError: The vocabulary breaks a rule, such as that every single byte is a token.
    """
    return native.Bpe(vocab.kinds, vocab.values, vocab.offsets, merges=vocab.merges,
                      pattern=patterns.NATIVE.get(vocab.pattern, "whole"), whole_piece=vocab.whole_piece)  # fmt: skip

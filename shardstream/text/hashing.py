"""Texts to sparse index sets, on top of the C hasher, with scikit-learn's indices and values.

Imports ``_native``, ``errors`` and numpy only. A batch of sparse rows is three arrays, laid out
as scipy's CSR has them and as ``Sparse`` columns take them:

=======  ===============  ===================  ==============================================
name     dtype            shape                meaning
=======  ===============  ===================  ==============================================
indices  uint32           ``(num_indices,)``   row ``i``, ascending and distinct, is
                                               ``indices[indptr[i]:indptr[i + 1]]``
indptr   int64            ``(batch + 1,)``     where each row begins and ends
values   int32, float32   ``(num_indices,)``   what stands at each index
=======  ===============  ===================  ==============================================

**Unicode.** Lower-casing and the word rule are those of one Unicode version, ``UNICODE_VERSION``,
whichever Python runs: features are stored in datasets, and a model must get the same ones from every
machine. scikit-learn takes them from the interpreter, so it agrees exactly on a Python with the same
Unicode data (3.11), and elsewhere on all characters that were assigned in both versions and did
not change; newer characters are then no letters here.

``tests/twins/hashing.py`` is the readable twin. References: ``csrc/include/ss_hash.h``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from shardstream._native import hash as native
from shardstream.errors import ConfigError, TextError

UNICODE_VERSION = native.unicode_version()
MAX_PART = 32 << 20  # characters, or bytes of ragged text, whose rows share one reservation: bounds it
MIN_PART = 128 << 10  # below this a thread costs more than it brings
CHUNK = 128 << 10  # characters joined for one C call: what is copied stays in the second-level cache
MAX_THREADS = 256

Ragged = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class FeatureHasher:
    """Hashes the n-grams of texts to the indices of ``sklearn``'s ``HashingVectorizer(norm=None)``.

    Immutable, so threads may share it; picklable.

    Attributes:
        dim: Number of indices, from 1 to ``2**31 - 1``; any, though a power of two is faster.
        ngrams: Smallest and largest number of words (or characters) in an n-gram.
        lowercase: Lower-case first, as ``str.lower()`` does.
        signed: Add the sign of each n-gram's hash instead of 1. An index whose signs cancel keeps its
            place with the value 0, as in scikit-learn.
        analyzer: ``"word"``, ``"char"`` or ``"char_wb"``, as in scikit-learn: words are the matches of
            ``(?u)\\b\\w\\w+\\b``.
        binary: All values are 1, also where signs cancel.
    """

    dim: int
    ngrams: tuple[int, int] = (1, 2)
    lowercase: bool = True
    signed: bool = False
    analyzer: str = "word"
    binary: bool = False

    def __post_init__(self):
        if not is_int(self.dim) or not 1 <= self.dim <= native.MAX_DIM:
            raise ConfigError(f"dim={self.dim!r} must be an integer from 1 to {native.MAX_DIM}.")
        try:
            low, high = self.ngrams
        except (TypeError, ValueError):
            low = high = None
        if not (is_int(low) and is_int(high) and 1 <= low <= high <= native.MAX_N):
            raise ConfigError(f"ngrams={self.ngrams!r} must be two integers, 1 <= min <= max <= {native.MAX_N}.")
        if not isinstance(self.analyzer, str) or self.analyzer not in native.UNITS:
            raise ConfigError(f"analyzer={self.analyzer!r} is not one of {', '.join(native.UNITS)}.")
        check_flags(lowercase=self.lowercase, signed=self.signed, binary=self.binary)
        object.__setattr__(self, "dim", int(self.dim))
        object.__setattr__(self, "ngrams", (int(low), int(high)))

    def transform(self, texts: Sequence[str | bytes] | Ragged, *, num_threads: int = 1) -> tuple:
        """Hash ``batch`` texts into one batch of sparse rows, ``(indices, indptr, values)``.

        Args:
            texts: Strings; bytes, which must be UTF-8; or all texts as UTF-8 in one pair of arrays
                ``(values uint8, offsets int64)``, which makes no Python object per text. In a string a lone
                surrogate parts words; with characters as units it is an error, as in scikit-learn.
            num_threads: Threads that share the batch, from 1 to 256. Results do not depend on it.

        Returns:
            New arrays as in the module docstring. ``values`` are int32 counts, float32 sums of signs if
            ``signed`` (exact up to 2**24), or int32 ones if ``binary``.

        Raises:
            TextError: ``texts[e.index]`` is no text, not UTF-8, or longer than 1 GiB. Nothing is
                returned for the rest of the batch.
        """
        indices, indptr, values = self._rows(texts, None if self.binary else "sums" if self.signed else "counts",
                                             num_threads)  # fmt: skip
        return indices, indptr, np.ones(len(indices), np.int32) if values is None else values

    def sets(self, texts: Sequence[str | bytes] | Ragged, *, num_threads: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Hash texts as :meth:`transform` does, and return ``(indices, indptr)`` only, which takes less time."""
        return self._rows(texts, None, num_threads)[:2]

    def _rows(self, texts: Sequence[str | bytes] | Ragged, weights: str | None, num_threads: int) -> tuple:
        if not is_int(num_threads) or not 1 <= num_threads <= MAX_THREADS:
            raise ConfigError(f"num_threads={num_threads!r} must be from 1 to {MAX_THREADS}.")
        source = _Texts(texts, surrogates_part=self.analyzer == "word")
        hasher = _native_hasher(self.dim, self.ngrams, self.analyzer, bool(self.lowercase), weights)
        parts = source.cut(num_threads)

        def hash_part(part: tuple[int, int]):
            return source.hash(hasher, *part)

        if num_threads == 1 or len(parts) == 1:
            return _concatenate(list(map(hash_part, parts)))
        with ThreadPoolExecutor(num_threads, thread_name_prefix="shardstream-hash") as pool:
            return _concatenate(list(pool.map(hash_part, parts)))


_native_hasher = lru_cache(maxsize=64)(native.TextHasher)  # which is immutable


def is_int(number) -> bool:
    """Return whether this is an integer, and not a bool."""
    return isinstance(number, (int, np.integer)) and not isinstance(number, bool)


def check_flags(**flags) -> None:
    """Raise :class:`ConfigError` unless these are truth values: any text, "no" too, would be true."""
    for name, flag in flags.items():
        if not isinstance(flag, (bool, np.bool_)):
            raise ConfigError(f"{name}={flag!r} must be True or False.")


def check_batch(name: str, batch, *single: type) -> None:
    """Raise :class:`ConfigError` for what is no sequence, or is a single element of one."""
    if isinstance(batch, single) or not isinstance(batch, Iterable) or getattr(batch, "ndim", 1) == 0:
        raise ConfigError(f"{name} must be a sequence of {name}, not one {type(batch).__name__}.")


class _Texts:
    """A batch of texts in any of the forms of ``transform``, as what C takes."""

    def __init__(self, texts: Iterable[str | bytes] | Ragged, *, surrogates_part: bool):
        self.surrogates_part = surrogates_part
        self.texts: list[str | bytes] | None = None
        if isinstance(texts, tuple) and len(texts) == 2 and all(isinstance(part, np.ndarray) for part in texts):
            self.values, self.offsets = _checked_ragged(*texts)
            return
        check_batch("texts", texts, str, bytes)
        self.texts = texts if isinstance(texts, list) else list(texts)
        try:
            self.offsets = offsets_of(self.texts)  # in characters, or bytes
        except TypeError:
            index = next(i for i, text in enumerate(self.texts) if not hasattr(text, "__len__"))
            raise _no_text(self.texts[index], index) from None

    def cut(self, num_threads: int) -> list[tuple[int, int]]:
        """Return the rows ``(begin, end)`` of parts to hash one by one, or at a time on ``num_threads``."""
        size = int(self.offsets[-1] - self.offsets[0])
        most = MAX_PART if num_threads == 1 else min(max(size // (2 * num_threads) + 1, MIN_PART), MAX_PART)
        return _cut(self.offsets, most)

    def hash(self, hasher: native.TextHasher, begin: int, end: int) -> tuple:
        """Return ``(indices, indptr, values)`` of the rows from ``begin`` to ``end``."""
        offsets = self.offsets[begin : end + 1]
        if self.texts is None:
            rows = hasher.rows(offsets, np.uint8, begin)
            hasher.append(rows, self.values, offsets)
            return rows.finish()
        rows = hasher.rows(offsets, "<u2", begin)  # UTF-16 wants most room for a character
        for first, last in _cut(offsets, CHUNK):
            hasher.append(rows, *self._codes(begin + first, begin + last))
        return rows.finish()

    def _codes(self, begin: int, end: int) -> Ragged:
        """Return texts end to end as UTF-8 (uint8) or UTF-16 (uint16), with the offset of each."""
        texts = self.texts[begin:end]
        offsets = self.offsets[begin : end + 1] - self.offsets[begin]
        try:
            joined = "".join(texts)
            if joined.isascii():
                return np.frombuffer(joined.encode("ascii"), np.uint8), offsets
            # To UTF-16, since Python encodes to it, and C decodes it, several times as fast as UTF-8.
            values = np.frombuffer(joined.encode("utf-16-le"), "<u2")
        except (TypeError, UnicodeEncodeError):  # bytes among them, or a lone surrogate
            pieces = [_encode(text, begin + i, self.surrogates_part) for i, text in enumerate(texts)]
            return np.frombuffer(b"".join(pieces), np.uint8), offsets_of(pieces)
        if len(values) > len(joined):
            offsets += _num_pairs_before(values, offsets)
        return values, offsets


def offsets_of(pieces: list) -> np.ndarray:
    """Return where each piece begins when all stand end to end, and where the last one ends."""
    offsets = np.zeros(len(pieces) + 1, np.int64)
    np.add.accumulate(np.fromiter(map(len, pieces), np.int64, len(pieces)), out=offsets[1:])
    return offsets


def _cut(offsets: np.ndarray, most: int) -> list[tuple[int, int]]:
    """Return ranges of rows that cover all, each of about ``most`` codes (at least one row, and one range)."""
    num_rows, size = len(offsets) - 1, int(offsets[-1] - offsets[0])
    if size <= most or num_rows <= 1:
        return [(0, num_rows)]
    cuts = np.searchsorted(offsets[:-1], int(offsets[0]) + np.arange(most, size, most))
    bounds = [0, *cuts.tolist(), num_rows]  # not by np.unique, which imports numpy.ma
    return [(begin, end) for begin, end in zip(bounds, bounds[1:]) if begin < end]


def _num_pairs_before(codes: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return for each offset, in characters, how many of the characters before it are surrogate pairs."""
    at = np.flatnonzero(codes & 0xFC00 == 0xD800)
    return np.searchsorted(at - np.arange(len(at)), offsets)


def _no_text(text, index: int) -> TextError:
    return TextError(f"texts[{index}] must be a str or bytes, not {type(text).__name__}.", index=index)


def _encode(text: str | bytes, index: int, surrogates_part: bool) -> bytes:
    if isinstance(text, bytes):
        return text
    if not isinstance(text, str):
        raise _no_text(text, index)
    try:
        # "?" is, like a surrogate, neither word character nor blank, and without effect on letter case.
        return text.encode("utf-8", "replace" if surrogates_part else "strict")
    except UnicodeEncodeError as error:
        raise TextError(f"texts[{index}] has a lone surrogate at character {error.start}.", index=index) from error


def _checked_ragged(values: np.ndarray, offsets: np.ndarray) -> Ragged:
    if values.dtype != np.uint8 or values.ndim != 1:
        raise ConfigError(f"values must be uint8 of one dimension, not {values.dtype} of {values.ndim}.")
    if offsets.dtype.kind not in "iu" or offsets.ndim != 1 or len(offsets) < 1:
        raise ConfigError(f"offsets must be int64 of shape (batch + 1,), not {offsets.dtype} {offsets.shape}.")
    return np.ascontiguousarray(values), np.ascontiguousarray(offsets, np.int64)


def _concatenate(parts: list[tuple]) -> tuple:
    indices, indptrs, values = zip(*parts)
    if len(parts) > 1:
        ends = np.cumsum([indptr[-1] for indptr in indptrs])
        indptr = np.concatenate([indptrs[0], *(more[1:] + end for more, end in zip(indptrs[1:], ends))])
        indices, indptrs = [np.concatenate(indices)], [indptr]
        values = [None if values[0] is None else np.concatenate(values)]
    return indices[0], indptrs[0], values[0]

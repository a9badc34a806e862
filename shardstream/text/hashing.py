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

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from shardstream._native import hash as native
from shardstream.errors import ConfigError, TextError

UNICODE_VERSION = native.unicode_version()
MAX_CHUNK_NBYTES = 32 << 20  # of text for one C call: bounds its output, and lets Ctrl-C in
MIN_CHUNK_NBYTES = 256 << 10  # below this a thread costs more than it brings
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
        if not _is_int(self.dim) or not 1 <= self.dim <= native.MAX_DIM:
            raise ConfigError(f"dim={self.dim!r} must be an integer from 1 to {native.MAX_DIM}.")
        try:
            low, high = self.ngrams
        except (TypeError, ValueError):
            low = high = None
        if not (_is_int(low) and _is_int(high) and 1 <= low <= high <= native.MAX_N):
            raise ConfigError(f"ngrams={self.ngrams!r} must be two integers, 1 <= min <= max <= {native.MAX_N}.")
        if self.analyzer not in native.UNITS:
            raise ConfigError(f"analyzer={self.analyzer!r} is not one of {', '.join(native.UNITS)}.")
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
        if not _is_int(num_threads) or not 1 <= num_threads <= MAX_THREADS:
            raise ConfigError(f"num_threads={num_threads!r} must be from 1 to {MAX_THREADS}.")
        values, offsets = _as_ragged(texts, surrogates_part=self.analyzer == "word")
        bounds = _chunks(offsets, num_threads)
        if len(bounds) == 2:
            return self._transform_chunk(values, offsets, 0, len(offsets) - 1)

        def one(chunk):
            return self._transform_chunk(values, offsets, *chunk)

        chunks = list(zip(bounds, bounds[1:]))
        if num_threads == 1:
            return _concatenate(list(map(one, chunks)))
        with ThreadPoolExecutor(num_threads, thread_name_prefix="shardstream-hash") as pool:
            return _concatenate(list(pool.map(one, chunks)))

    def _transform_chunk(self, values: np.ndarray, offsets: np.ndarray, begin: int, end: int) -> tuple:
        weights = None if self.binary else "sums" if self.signed else "counts"
        indices, indptr, values = native.hash_texts(
            values, offsets[begin : end + 1], dim=self.dim, ngrams=self.ngrams, unit=self.analyzer,
            lowercase=bool(self.lowercase), weights=weights, first_row=begin,
        )  # fmt: skip
        return indices, indptr, np.ones(len(indices), np.int32) if values is None else values


def _is_int(number) -> bool:
    return isinstance(number, (int, np.integer)) and not isinstance(number, bool)


def _as_ragged(texts: Sequence[str | bytes] | Ragged, *, surrogates_part: bool) -> Ragged:
    """Return the texts as ``(values uint8, offsets int64)``, whatever they come as."""
    if isinstance(texts, tuple) and len(texts) == 2 and all(isinstance(part, np.ndarray) for part in texts):
        return _checked_ragged(*texts)
    if isinstance(texts, (str, bytes)):
        raise ConfigError("texts must be a sequence of texts, not one text.")
    try:
        pieces = list(map(str.encode, texts))
    except (TypeError, UnicodeEncodeError):
        pieces = [_encode(text, index, surrogates_part) for index, text in enumerate(texts)]
    offsets = np.zeros(len(pieces) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, pieces), np.int64, len(pieces)), out=offsets[1:])
    return np.frombuffer(b"".join(pieces), np.uint8), offsets


def _encode(text: str | bytes, index: int, surrogates_part: bool) -> bytes:
    if isinstance(text, bytes):
        return text
    if not isinstance(text, str):
        raise TextError(f"texts[{index}] must be a str or bytes, not {type(text).__name__}.", index=index)
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


def _chunks(offsets: np.ndarray, num_threads: int) -> list[int]:
    """Return row numbers that cut the batch into chunks, each of about one size and one row at least."""
    num_texts, nbytes = len(offsets) - 1, int(offsets[-1]) - int(offsets[0])
    chunk_nbytes = MAX_CHUNK_NBYTES
    if num_threads > 1:
        chunk_nbytes = min(max(nbytes // (4 * num_threads), MIN_CHUNK_NBYTES), MAX_CHUNK_NBYTES)
    if nbytes <= chunk_nbytes or num_texts <= 1:
        return [0, num_texts]
    starts = int(offsets[0]) + np.arange(chunk_nbytes, nbytes, chunk_nbytes)
    cuts = np.searchsorted(offsets[:-1], starts)
    return np.unique(np.concatenate([[0], cuts, [num_texts]])).tolist()


def _concatenate(parts: list[tuple]) -> tuple:
    indices, indptrs, values = zip(*parts)
    ends = np.cumsum([indptr[-1] for indptr in indptrs])
    indptr = np.concatenate([indptrs[0], *(more[1:] + end for more, end in zip(indptrs[1:], ends))])
    return np.concatenate(indices), indptr, np.concatenate(values)

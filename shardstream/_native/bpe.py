"""Byte-pair encoding (``csrc/include/ss_bpe.h``)."""

from __future__ import annotations

import numpy as np

from shardstream._native import ffi, lib
from shardstream._native.pretok import MAX_TEXT_NBYTES, PATTERNS
from shardstream.errors import TokenizerError

UNUSED, TOKEN, SPECIAL = lib.SS_BPE_UNUSED, lib.SS_BPE_TOKEN, lib.SS_BPE_SPECIAL
MAX_TOKENS = lib.SS_BPE_MAX_TOKENS
IDS_SLACK = lib.SS_BPE_IDS_SLACK
NO_ID = 0xFFFFFFFF


class Bpe:
    """Tables of one vocabulary, on the C side; immutable and shared by threads.

    Args:
        kinds: uint8 ``(num_ids,)``: ``UNUSED``, ``TOKEN`` or ``SPECIAL``.
        values, offsets: uint8 and int64 ``(num_ids + 1,)``; token ``i`` is ``values[offsets[i]:offsets[i + 1]]``.
        merges: uint32 ``(num_merges, 2)``, pairs of ids by rank, or ``None``: ids are ranks.
        pattern: A key of ``pretok.PATTERNS``.
        whole_piece: A piece that is a token is that token, without merging.

    Raises:
        TokenizerError: The vocabulary breaks a rule; the message says which and where.
    """

    def __init__(self, kinds, values, offsets, *, merges, pattern: str, whole_piece: bool):
        vocab = ffi.new("struct ss_bpe_vocab *")
        keep = [ffi.from_buffer("uint8_t[]", kinds), ffi.from_buffer("uint8_t[]", values),
                ffi.from_buffer("int64_t[]", offsets)]  # fmt: skip
        vocab.kinds, vocab.bytes, vocab.offsets = keep
        vocab.num_ids = len(kinds)
        if merges is not None:
            keep.append(ffi.from_buffer("uint32_t[]", merges))
            vocab.merges, vocab.num_merges = keep[-1], len(merges)
        vocab.pattern = PATTERNS[pattern]
        vocab.whole_piece = whole_piece
        handle, place = ffi.new("ss_bpe **"), ffi.new("uint64_t *")
        _check_vocab(lib.ss_bpe_new(vocab, handle, place), place[0], len(kinds))
        self._handle = ffi.gc(handle[0], lib.ss_bpe_free)
        self._num_ids = len(kinds)

    def token_id(self, token: bytes) -> int:
        """Return the id of the token with exactly these bytes, specials apart, or ``NO_ID``."""
        return lib.ss_bpe_token_id(self._handle, token, len(token))

    def halves(self) -> np.ndarray:
        """Return the ids of the two tokens that merging makes each id of, uint32 ``(num_ids, 2)``.

        ``NO_ID`` stands for single bytes, specials, unused ids, and tokens whose making takes more than the merges of
        lower rank, or that merging never makes.
        """
        halves = np.empty((self._num_ids, 2), np.uint32)
        lib.ss_bpe_halves(self._handle, ffi.from_buffer("uint32_t[]", halves))
        return halves

    def decode(self, ids) -> bytes:
        """Return the bytes that uint32 ``ids`` stand for.

        Raises:
            TokenizerError: An id is no token's.
        """
        ids_ptr, nbytes = ffi.from_buffer("uint32_t[]", ids), ffi.new("size_t *")
        if lib.ss_bpe_decoded_nbytes(self._handle, ids_ptr, len(ids), nbytes) != lib.SS_OK:
            raise TokenizerError(f"ids[{nbytes[0]}] is {ids[nbytes[0]]}, which is not a token's id.")
        out = bytearray(nbytes[0])
        lib.ss_bpe_decode(self._handle, ids_ptr, len(ids), ffi.from_buffer("uint8_t[]", out))
        return bytes(out)


class Scratch:
    """What one thread needs to encode with one :class:`Bpe`: working memory and a cache that only saves time."""

    def __init__(self, bpe: Bpe):
        handle = lib.ss_bpe_scratch_new(bpe._handle)
        if handle == ffi.NULL:
            raise MemoryError("No memory for a tokenizer's cache.")
        self._bpe = bpe  # must outlive the handle
        self._handle = ffi.gc(handle, lib.ss_bpe_scratch_free)

    @property
    def num_steps(self) -> int:
        """How many steps finding ids has taken so far, pieces answered by the cache apart."""
        return lib.ss_bpe_scratch_steps(self._handle)

    def encode(self, values, offsets, ids, id_offsets, first_text: int = 0) -> int:
        """Encode a batch of texts in one call without the GIL and return the number of ids.

        Args:
            values, offsets: uint8 and int64 ``(num_texts + 1,)``; text ``i`` is ``values[offsets[i]:offsets[i + 1]]``.
            ids: Receives the ids; uint32 with room for ``num_bytes + IDS_SLACK``.
            id_offsets: Receives where each text's ids begin and end; int64 ``(num_texts + 1,)``.
            first_text: Number of the first text in the caller's batch, for messages.

        Raises:
            TokenizerError: A text is too long or its offsets are wrong; ``e.index`` says which.
        """
        place = ffi.new("uint64_t *")
        status = lib.ss_bpe_encode(
            self._handle, ffi.from_buffer("uint8_t[]", values), len(values), ffi.from_buffer("int64_t[]", offsets),
            len(offsets) - 1, ffi.from_buffer("uint32_t[]", ids), len(ids), ffi.from_buffer("int64_t[]", id_offsets),
            place,
        )  # fmt: skip
        _check_texts(status, first_text + place[0])
        return int(id_offsets[-1])


class Job:
    """Threads that encode the chunks of one batch together, in one array of ids.

    Args:
        scratches: One a thread, the caller's first.
        max_chunks: How many chunks may be added.
        ids: Receives the ids; uint32. Where it is too small, :meth:`run` returns a larger array.
    """

    def __init__(self, scratches: list[Scratch], max_chunks: int, ids: np.ndarray):
        handles = ffi.new("ss_bpe_scratch *[]", [scratch._handle for scratch in scratches])
        self._handle = lib.ss_bpe_job_new(handles, len(scratches), max_chunks, ffi.from_buffer("uint32_t[]", ids), len(ids))
        if self._handle == ffi.NULL:
            raise MemoryError("No memory for threads that encode.")
        self._keep = [scratches, ids]
        self._ids = ids

    def __enter__(self):
        return self

    def __exit__(self, *_):
        lib.ss_bpe_job_free(self._handle)

    def add(self, values, offsets, id_offsets) -> None:
        """Add a chunk: ``values``, ``offsets`` and ``id_offsets`` as in :meth:`Scratch.encode`, but ids count from the first chunk's."""
        buffers = (ffi.from_buffer("uint8_t[]", values), ffi.from_buffer("int64_t[]", offsets),
                   ffi.from_buffer("int64_t[]", id_offsets))  # fmt: skip
        status = lib.ss_bpe_job_add(self._handle, buffers[0], len(values), buffers[1], len(offsets) - 1, buffers[2])
        assert status == lib.SS_OK, "the caller adds no more chunks than it said"
        self._keep.append(buffers)

    def run(self, first_texts: list[int]) -> np.ndarray:
        """Take part in the work until all is done and return the ids, a new array or the beginning of the one given.

        Args:
            first_texts: Number of the first text of each chunk in the caller's batch, for messages.

        Raises:
            TokenizerError: A text is too long or its offsets are wrong; ``e.index`` says which.
        """
        num, chunk, place = ffi.new("size_t *"), ffi.new("size_t *"), ffi.new("uint64_t *")
        status = lib.ss_bpe_job_run(self._handle, num, chunk, place)
        _check_texts(status, first_texts[chunk[0]] + place[0] if status != lib.SS_OK else 0)
        if num[0] > len(self._ids):
            self._ids = np.empty(num[0], np.uint32)
            lib.ss_bpe_job_move(self._handle, ffi.from_buffer("uint32_t[]", self._ids), len(self._ids))
        return self._ids[: num[0]]


def _check_texts(status: int, text: int) -> None:
    if status == lib.SS_ERR_RANGE:
        raise TokenizerError(f"texts[{text}] is longer than {MAX_TEXT_NBYTES} bytes, or its offsets descend or leave the buffer.",
                             index=text)  # fmt: skip
    if status == lib.SS_ERR_NOMEM:
        raise MemoryError("No memory to merge a long piece.")
    assert status == lib.SS_OK, "the caller gave ids too little room"


def _check_vocab(status: int, place: int, num_ids: int) -> None:
    if status == lib.SS_OK:
        return
    if status == lib.SS_ERR_NOMEM:
        raise MemoryError("No memory for a vocabulary.")
    raise TokenizerError({
        lib.SS_ERR_RANGE: f"A vocabulary has at most {MAX_TOKENS} ids and merges and 2**23 beginnings of tokens.",
        lib.SS_ERR_CORRUPT: f"Token {place} is empty." if place < num_ids else
                            f"Merge {place - num_ids} has an id without a token, or makes none.",
        lib.SS_ERR_DUPLICATE: f"Token {place} has the bytes of another token." if place < num_ids else
                              f"Merge {place - num_ids} came before.",
        lib.SS_ERR_TRUNCATED: f"The single byte {place} is not a token; byte-level vocabularies have all 256.",
    }[status])  # fmt: skip

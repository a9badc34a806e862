"""Training of byte-pair vocabularies (``csrc/include/ss_bpe_train.h``)."""

from __future__ import annotations

import numpy as np

from shardstream._native import ffi, lib
from shardstream._native.pretok import MAX_TEXT_NBYTES, PATTERNS
from shardstream.errors import TokenizerError


class Trainer:
    """Counts the pieces of texts, then merges the most frequent pairs; for one thread at a time.

    Args:
        pattern: A key of ``pretok.PATTERNS``.
        alphabet: The 256 bytes, each once; the byte at ``i`` has id ``i``.
    """

    def __init__(self, pattern: str, alphabet: bytes):
        assert sorted(alphabet) == list(range(256))
        handle = lib.ss_bpe_trainer_new(PATTERNS[pattern], alphabet)
        if handle == ffi.NULL:
            raise MemoryError("No memory for a trainer.")
        self._handle = ffi.gc(handle, lib.ss_bpe_trainer_free)
        self.num_merges, self.is_done = 0, False

    @property
    def num_pieces(self) -> int:
        """How many different pieces of two bytes or more were fed."""
        return lib.ss_bpe_trainer_num_pieces(self._handle)

    def feed(self, values, offsets: np.ndarray, first_text: int = 0) -> None:
        """Count the pieces of texts in one call without the GIL; text ``i`` is ``values[offsets[i]:offsets[i + 1]]``.

        Raises:
            TokenizerError: A text is too long, or its offsets are wrong (``e.index`` says which, from ``first_text``);
                or the different pieces have more than 4 GiB together.
        """
        place = ffi.new("uint64_t *")
        status = lib.ss_bpe_trainer_feed(self._handle, ffi.from_buffer("uint8_t[]", values), len(values),
                                         ffi.from_buffer("int64_t[]", offsets), len(offsets) - 1, place)  # fmt: skip
        if status == lib.SS_ERR_RANGE:
            raise TokenizerError(
                f"texts[{first_text + place[0]}] is longer than {MAX_TEXT_NBYTES} bytes, or its offsets descend or "
                "leave the buffer.", index=first_text + place[0])  # fmt: skip
        if status == lib.SS_ERR_SPACE:
            raise TokenizerError(
                "The different pieces of the texts have more than 4 GiB together; train on a part of them."
            )
        if status == lib.SS_ERR_NOMEM:
            raise MemoryError("No memory for the pieces of the texts.")
        assert status == lib.SS_OK, "feed() comes before merge()"

    def merge(self, max_tokens: int, max_merges: int) -> None:
        """Do up to ``max_merges`` more merges in one call without the GIL; sets ``num_merges`` and ``is_done``."""
        num, is_done = ffi.new("size_t *"), ffi.new("int *")
        if lib.ss_bpe_trainer_merge(self._handle, max_tokens, max_merges, num, is_done) != lib.SS_OK:
            raise MemoryError("No memory for the pairs of the texts.")
        self.num_merges, self.is_done = num[0], bool(is_done[0])

    def merges(self) -> np.ndarray:
        """Return the merges done, uint32 ``(num_merges, 2)``: the ids of which merge ``i`` makes id ``256 + i``."""
        merges = np.empty((self.num_merges, 2), np.uint32)
        lib.ss_bpe_trainer_merges(self._handle, ffi.cast("struct ss_bpe_merge *", ffi.from_buffer(merges)))
        return merges

"""Documents that share a sequence (``csrc/include/ss_sequences.h``)."""

from __future__ import annotations

import numpy as np

from shardstream._native import ffi, lib
from shardstream.errors import ConfigError

MAX_LENGTH = lib.SS_SEQUENCES_MAX_LENGTH


def best_fit(lengths: np.ndarray, max_length: int) -> tuple[np.ndarray, int]:
    """Return the sequence of each piece, uint32 ``(num_pieces,)``, and how many there are; one call without the GIL.

    Args:
        lengths: int64 ``(num_pieces,)``, from 1 to ``max_length`` each.

    Raises:
        ConfigError: ``max_length`` is not from 1 to ``MAX_LENGTH``, or a length not from 1 to it.
    """
    sequence, num = np.empty(len(lengths), np.uint32), ffi.new("size_t *")
    status = lib.ss_best_fit(ffi.from_buffer("int64_t[]", lengths), len(lengths), max_length,
                             ffi.from_buffer("uint32_t[]", sequence), num)  # fmt: skip
    if status == lib.SS_ERR_NOMEM:
        raise MemoryError("No memory to fit documents into sequences.")
    if status != lib.SS_OK:
        raise ConfigError(
            f"sequences have from 1 to {MAX_LENGTH} tokens, and no piece is empty or longer than they are."
        )
    return sequence, num[0]

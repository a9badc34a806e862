"""Split patterns of tokenizers (``csrc/include/ss_pretok.h``)."""

from __future__ import annotations

import numpy as np

from shardstream._native import ffi, lib
from shardstream.errors import TokenizerError

PATTERNS = {
    "whole": lib.SS_PRETOK_WHOLE,
    "gpt2": lib.SS_PRETOK_GPT2,
    "cl100k": lib.SS_PRETOK_CL100K,
    "llama3": lib.SS_PRETOK_LLAMA3,
    "qwen2": lib.SS_PRETOK_QWEN2,
    "o200k": lib.SS_PRETOK_O200K,
}
MAX_TEXT_NBYTES = lib.SS_PRETOK_MAX_TEXT_NBYTES


def split(pattern: str, text: bytes) -> np.ndarray:
    """Return where the pieces of ``text`` end, uint32 ``(num_pieces,)``, in one call without the GIL.

    Raises:
        TokenizerError: ``text`` is longer than ``MAX_TEXT_NBYTES``.
    """
    ends = np.empty(len(text), np.uint32)
    num_ends = ffi.new("size_t *")
    status = lib.ss_pretok_split(PATTERNS[pattern], ffi.from_buffer("uint8_t[]", text), len(text),
                                 ffi.from_buffer("uint32_t[]", ends), len(ends), num_ends)  # fmt: skip
    if status != lib.SS_OK:
        raise TokenizerError(f"A text has at most {MAX_TEXT_NBYTES} bytes; this one has {len(text)}.")
    ends.resize(num_ends[0], refcheck=False)
    return ends

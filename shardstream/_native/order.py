"""The order of samples (``csrc/include/ss_order.h``): keys, the index cipher, lanes, positions."""

import numpy as np

from shardstream._native import ffi, lib

MAX_SAMPLES = lib.SS_ORDER_MAX_SAMPLES
MAX_LANES = lib.SS_ORDER_MAX_LANES


def key(*words: int, head: int = 0) -> int:
    """Return the key of ``words`` (each in [0, 2^64)), continuing the key ``head`` of the words before."""
    return lib.ss_order_key(head, ffi.new("uint64_t[]", words), len(words))


def permute(cipher_key: int, num_elements: int, indices) -> np.ndarray:
    """Return the image (int64) of ``indices`` under the cipher of ``cipher_key`` on [0, num_elements)."""
    indices = np.ascontiguousarray(indices, np.int64)
    permuted = np.empty_like(indices)
    status = lib.ss_order_permute(cipher_key, num_elements, _int64(indices), indices.size, _int64(permuted))
    if status != lib.SS_OK:
        raise ValueError(f"num_elements={num_elements} must be in [1, 2^62) and each index in [0, num_elements).")
    return permuted


def intervals(cipher_key: int, num_lanes: int) -> np.ndarray:
    """Return int64[num_lanes]: which of the equal intervals of the epoch line each lane is."""
    interval = np.empty(num_lanes if 0 < num_lanes <= MAX_LANES else 0, np.int64)
    if lib.ss_order_intervals(cipher_key, num_lanes, _int64(interval)) != lib.SS_OK:
        raise ValueError(f"num_lanes={num_lanes} must be in [1, {MAX_LANES}].")
    return interval


def line(cipher_key: int, num_samples: int, run_length: int, lane_begin: np.ndarray,
         begin: int, end: int, step: int) -> np.ndarray:  # fmt: skip
    """Return int64: the epoch-line indices of positions ``begin, begin + step, ...`` below ``end``."""
    lane_begin = np.ascontiguousarray(lane_begin, np.int64)
    indices = np.empty(len(range(begin, end, step)) if step > 0 else 0, np.int64)
    epoch = ffi.new("struct ss_order_epoch *")
    epoch.key, epoch.num_samples, epoch.num_lanes = cipher_key, num_samples, lane_begin.size
    epoch.run_length, epoch.lane_begin = run_length, _int64(lane_begin)
    if lib.ss_order_line(epoch, begin, end, step, _int64(indices), indices.size) != lib.SS_OK:
        raise ValueError(f"positions [{begin}, {end}) by {step} must lie in [0, {num_samples}] and step must be positive.")
    return indices


def _int64(array: np.ndarray):
    return ffi.from_buffer("int64_t[]", array)

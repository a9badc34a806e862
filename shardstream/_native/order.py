"""The order of samples (``csrc/include/ss_order.h``): keys, the index cipher, lanes, positions."""

import numpy as np

from shardstream._native import ffi, lib

MAX_SAMPLES = lib.SS_ORDER_MAX_SAMPLES
MAX_LANES = lib.SS_ORDER_MAX_LANES
DRAWS = lib.SS_ORDER_DRAWS


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


class Epoch:
    """The numbers that C needs of an epoch's order; keeps alive what they point to."""

    def __init__(self, cipher_key: int, num_samples: int, run_length: int, lane_begin: np.ndarray):
        self._lane_begin = np.ascontiguousarray(lane_begin, np.int64)
        self._epoch = ffi.new("struct ss_order_epoch *")
        self._epoch.key, self._epoch.num_samples, self._epoch.num_lanes = cipher_key, num_samples, self._lane_begin.size
        self._epoch.run_length, self._epoch.lane_begin = run_length, _int64(self._lane_begin)

    def line(self, begin: int, end: int, step: int) -> np.ndarray:
        """Return int64: the epoch-line indices of positions ``begin, begin + step, ...`` below ``end``."""
        indices = np.empty(len(range(begin, end, step)) if step > 0 else 0, np.int64)
        if lib.ss_order_line(self._epoch, begin, end, step, _int64(indices), indices.size) != lib.SS_OK:
            limit = self._epoch.num_samples
            raise ValueError(
                f"positions [{begin}, {end}) by {step} must lie in [0, {limit}] and the step must be positive."
            )
        return indices

    def lines(self, positions: np.ndarray) -> np.ndarray:
        """Return int64: the epoch-line index of each of ``positions``, faster when they are sorted by lane."""
        positions = np.ascontiguousarray(positions, np.int64)
        indices = np.empty_like(positions)
        if lib.ss_order_lines(self._epoch, _int64(positions), positions.size, _int64(indices)) != lib.SS_OK:
            raise ValueError(f"positions must lie in [0, {self._epoch.num_samples}).")
        return indices


def draws(cipher_key: int, quotas: np.ndarray, available: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return ``(sources uint8, ranks uint16)`` of one block of draws, those with ranks past ``available`` left out.

    ``quotas`` and ``available`` are int64 and of equal length; the quotas add up to ``DRAWS``.
    """
    quotas, available = np.ascontiguousarray(quotas, np.int64), np.ascontiguousarray(available, np.int64)
    sources, ranks, num_draws = np.empty(DRAWS, np.uint8), np.empty(DRAWS, np.uint16), ffi.new("size_t *")
    num_sources = quotas.size if quotas.size == available.size else 0
    outputs = ffi.from_buffer("uint8_t[]", sources), ffi.from_buffer("uint16_t[]", ranks), num_draws
    status = lib.ss_order_draws(cipher_key, _int64(quotas), _int64(available), num_sources, *outputs)
    if status != lib.SS_OK:
        raise ValueError(
            f"quotas {quotas.tolist()} must be 1 to 256 counts that add up to {DRAWS}, each with its available."
        )
    return sources[: num_draws[0]], ranks[: num_draws[0]]


def _int64(array: np.ndarray):
    return ffi.from_buffer("int64_t[]", array)

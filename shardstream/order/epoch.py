"""The order of one epoch: position -> sample, as arithmetic in O(1) memory per sample.

The shards, permuted, lie end to end on the **epoch line** ``[0, num_samples)``. It is cut into
``lanes`` intervals whose lengths differ by at most 1, and each lane into **runs** of
``window / lanes`` samples, which a keyed cipher permutes. Position ``p`` is sample ``p div lanes``
of lane ``p mod lanes``; so positions ``[r * window, (r + 1) * window)`` are run ``r`` of every lane.

Which interval is lane ``l`` is a keyed digit reversal (``csrc/include/ss_order.h``): any batch is
spread over the whole line, however few lanes it touches, and the lanes of one of 2, 4, 8, ...
readers are neighbours. Twin: ``tests/twins/order.py``. The full statement with worked numbers is
docs/FORMAT.md section 7.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from shardstream._native import order as native
from shardstream._native.gather import NeededBlocks
from shardstream.errors import ConfigError
from shardstream.locks import lazy

# Third word of a key, so that permutations for different purposes never share one.
RUNS, SHARDS, LANES, MIX = 1, 2, 3, 4

MAX_SAMPLES = native.MAX_SAMPLES
MAX_LANES = native.MAX_LANES
MAX_EPOCH = 2**62 - 1
DEFAULT_LANES = 96
DEFAULT_WINDOW = 16_384
DEFAULT_WINDOW_NBYTES = 256 * 2**20


def normalize_seed(seed: int) -> int:
    """Return ``seed`` modulo 2^64, which is all that counts of it: -1 is 2^64 - 1."""
    if isinstance(seed, (bool, np.bool_)) or not isinstance(seed, (int, np.integer)):
        raise ConfigError(f"seed={seed!r} must be an integer.")
    return int(seed) % 2**64


def resolve_lanes(world_size: int, lanes: int | None = None) -> int:
    """Return ``lanes``, or by default 96 doubled until every rank has a lane."""
    if lanes is None:
        lanes = DEFAULT_LANES
        while lanes < world_size:
            lanes *= 2
    return _integer("lanes", lanes, 1, MAX_LANES)


def resolve_window(lanes: int, sample_nbytes: float, window: int | None = None) -> int:
    """Return how many samples are shuffled together: a multiple of ``lanes``.

    By default 16,384 samples, fewer if these would exceed 256 MiB; in any case one a lane.
    """
    if window is None:
        window = min(DEFAULT_WINDOW, int(DEFAULT_WINDOW_NBYTES // max(sample_nbytes, 1)))
        window = max(window, 1)
    window = _integer("window", window, 1, MAX_SAMPLES)
    return max(window // lanes, 1) * lanes


def _integer(name: str, value: int, low: int, high: int) -> int:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)) or not low <= value <= high:
        raise ConfigError(f"{name}={value!r} must be an integer in [{low}, {high}].")
    return int(value)


class Chunk(NamedTuple):
    """Consecutive positions of one reader and what stands there: what an order hands to ``window.WindowReader``.

    Attributes:
        epoch_begin, positions: Positions ``positions`` of the epoch that began at ``epoch_begin``: 0, or where padding
            goes through it again.
        shard, row: int64, of each position; ``shard`` is what the reader of these shards knows it by. None if ``shards`` is given.
        line: int64, of each position, on the epoch line; None in a mixture, which has no such line.
        spans: ``(shard, first row, end row)`` of all runs that have begun and may come again in a later chunk, so
            that their blocks stay held. None where chunks consist of whole runs.
        shards: int64 ``(2, n)``: what the reader knows the shards of all positions by, and where each begins on the line, ascending.
    """

    epoch_begin: int
    positions: range
    shard: np.ndarray | None
    row: np.ndarray | None
    line: np.ndarray | None = None
    spans: Sequence[tuple[int, int, int]] = ()
    shards: np.ndarray | None = None


class EpochOrder:
    """The order of one epoch over shards of the given sizes; pure, and picklable at the cost of the sizes.

    Args:
        shard_num_samples: int64[num_shards], samples of each shard in the log's order; 0 is allowed.
        seed: Any integer; counts modulo 2^64.
        epoch: From 0.
        lanes: Equal sub-sequences that are interleaved. 1 if not ``shuffle``.
        window: Samples shuffled together; rounded down to a multiple of ``lanes``, but at least
            ``lanes``. 1 if not ``shuffle``.
        shuffle: ``False`` is the log's order.
        phase: Name of the lane of position 0, when the order is a part of a longer one (``follow``, ``mix``)
            and lanes keep their readers across the parts. Here lanes are still counted from position 0.

    Raises:
        ConfigError: An argument is out of its range.
    """

    def __init__(self, shard_num_samples, *, seed: int, epoch: int, lanes: int, window: int, shuffle: bool,
                 phase: int = 0):  # fmt: skip
        self.shard_num_samples = np.ascontiguousarray(shard_num_samples, np.int64)
        self.seed, self.epoch, self.shuffle = (
            normalize_seed(seed),
            _integer("epoch", epoch, 0, MAX_EPOCH),
            bool(shuffle),
        )
        self.lanes = _integer("lanes", lanes, 1, MAX_LANES)
        if not shuffle and (lanes, window) != (1, 1):
            raise ConfigError(f"lanes={lanes}, window={window} must both be 1 without shuffle.")
        self.window, self.phase = resolve_window(self.lanes, 0, window), phase % self.lanes
        if self.shard_num_samples.ndim != 1 or (self.shard_num_samples < 0).any():
            raise ConfigError("shard_num_samples must be a 1-D array of counts.")
        # A sum in float64 first: int64 would wrap around silently.
        if self.shard_num_samples.sum(dtype=np.float64) >= 2.0**62:
            raise ConfigError("an epoch must have fewer than 2^62 samples.")
        self.num_samples = int(self.shard_num_samples.sum())
        self.run_length = self.window // self.lanes
        self.num_runs = -(-self.num_samples // self.window)

    def __reduce__(self):
        return _rebuild, (self.shard_num_samples, self.seed, self.epoch, self.lanes, self.window, self.shuffle,
                          self.phase)  # fmt: skip

    def __repr__(self) -> str:
        return (f"EpochOrder({self.num_samples} samples of {self.shard_num_samples.size} shards, seed={self.seed}, "
                f"epoch={self.epoch}, lanes={self.lanes}, window={self.window}, shuffle={self.shuffle})")  # fmt: skip

    def _key(self, purpose: int) -> int:
        return native.key(self.seed, self.epoch, purpose)

    @lazy
    def shard_permutation(self) -> np.ndarray:
        """int64[num_shards]: ordinals of the log's shards, in the order in which they lie on the line."""
        ordinals = np.arange(self.shard_num_samples.size, dtype=np.int64)
        if not self.shuffle or ordinals.size == 0:
            return ordinals
        return native.permute(self._key(SHARDS), ordinals.size, ordinals)

    @lazy
    def shard_starts(self) -> np.ndarray:
        """int64[num_shards + 1]: where each shard of ``shard_permutation`` begins on the line, and the end."""
        starts = np.zeros(self.shard_num_samples.size + 1, np.int64)
        np.cumsum(self.shard_num_samples[self.shard_permutation], out=starts[1:])
        return starts

    @lazy
    def lane_begin(self) -> np.ndarray:
        """int64[lanes]: where each lane begins on the line."""
        num_each, num_long = divmod(self.num_samples, self.lanes)
        interval = np.roll(native.intervals(self._key(LANES), self.lanes), -self.phase)
        lengths = np.empty(self.lanes, np.int64)
        lengths[interval] = num_each + (np.arange(self.lanes) < num_long)
        return (np.cumsum(lengths) - lengths)[interval]

    @lazy
    def _native(self) -> native.Epoch:
        return native.Epoch(self._key(RUNS), self.num_samples, self.run_length, self.lane_begin)

    def lane_length(self, lane: int) -> int:
        """Return the samples of ``lane``: the first ``num_samples mod lanes`` lanes have one more."""
        return self.num_samples // self.lanes + (lane < self.num_samples % self.lanes)

    def run_span(self, run: int, lane: int) -> tuple[int, int]:
        """Return ``(begin, end)``: the part of the line that run ``run`` of ``lane`` permutes; may be empty."""
        length = self.lane_length(lane)
        begin, end = (min(offset, length) for offset in (run * self.run_length, (run + 1) * self.run_length))
        return int(self.lane_begin[lane]) + begin, int(self.lane_begin[lane]) + end

    def line(self, begin: int, end: int, step: int = 1) -> np.ndarray:
        """Return int64: the line indices of positions ``begin, begin + step, ...`` below ``end``.

        One GIL-free call, about 6 ns a position when a call spans whole windows; a call pays 20 ns for
        each run of each lane that it touches. Raises ValueError outside ``[0, num_samples]``.
        """
        return self._native.line(begin, end, step)

    def lines(self, positions) -> np.ndarray:
        """Return int64: the line index of each of ``positions``, in any order.

        As fast as ``line`` when positions of the same run stand together, else about 60 ns each.
        """
        return self._native.lines(positions)

    def wrapped_line(self, positions: range) -> np.ndarray:
        """Return int64: the line indices of ascending ``positions``, of which those past the epoch wrap around.

        Position ``num_samples + i`` is that of ``i``: how ``drop_last="pad"`` fills the last batch.
        """
        parts = [np.empty(0, np.int64)]
        while positions:
            base = positions.start // self.num_samples * self.num_samples
            num_before = len(range(positions.start, min(positions.stop, base + self.num_samples), positions.step))
            part, positions = positions[:num_before], positions[num_before:]
            parts.append(self.line(part.start - base, part[-1] + 1 - base, part.step))
        return np.concatenate(parts)

    def locate(self, line_indices) -> tuple[np.ndarray, np.ndarray]:
        """Return ``(shard ordinal, row)``, both int64: the log's shard and the row in it of each line index."""
        line_indices = np.asarray(line_indices, np.int64)
        # side="right" steps over empty shards, which begin where the next one does.
        places = np.searchsorted(self.shard_starts, line_indices, side="right") - 1
        return self.shard_permutation[places], line_indices - self.shard_starts[places]

    def chunks(self, positions: range, max_positions: int) -> Iterator[Chunk]:
        """Yield what ascending ``positions`` read, in chunks of whole runs of all lanes.

        A chunk spans one window, or as many as there are in ``max_positions``. Positions from ``num_samples`` on
        begin the epoch again (``drop_last="pad"``).
        """
        size = self.window * max(1, max_positions // self.window)
        for epoch_begin, own in chunk_positions(positions, size, self.num_samples):
            line = self.line(own.start, own.stop, own.step)
            # The blocks of a shard lie on the line as they lie in the shard, so nobody needs to know the shard of each position.
            touched = np.sort(NeededBlocks(self.shard_starts[:-1], line).blocks)
            yield Chunk(epoch_begin, own, None, None, line, shards=np.stack([self.shard_permutation[touched], self.shard_starts[touched]]))


def chunk_positions(positions: range, size: int, num_samples: int) -> Iterator[tuple[int, range]]:
    """Yield ``(epoch_begin, positions)`` for each ``size`` of an epoch of ``num_samples`` in which some are; see Chunk.
    """
    position = positions.start
    while position < positions.stop:
        epoch_begin = position // num_samples * num_samples
        end = min(position - (position - epoch_begin) % size + size, epoch_begin + num_samples, positions.stop)
        begin = position + -(position - positions.start) % positions.step
        if begin < end:
            yield epoch_begin, range(begin - epoch_begin, end - epoch_begin, positions.step)
        position = end


def _rebuild(shard_num_samples, seed, epoch, lanes, window, shuffle, phase) -> EpochOrder:
    return EpochOrder(
        shard_num_samples, seed=seed, epoch=epoch, lanes=lanes, window=window, shuffle=shuffle, phase=phase
    )

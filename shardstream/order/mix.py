"""The order of a mixture: which source each position draws from, and which of its samples.

Sources share their number of lanes, and lane ``l`` of the mixture draws from lane ``l`` of each source, so
a reader reads its own lanes of all of them. In a lane the draws come in blocks of 1,024, each with a fixed
number for every source, permuted by the cipher. The numbers follow the weights exactly over 1,024 blocks
(2^20 draws of a lane) and within a few draws at the end of any block.

A source is endless: epoch after epoch, end to end on its **course**, whose positions go to lanes as those of
one epoch do. Weights hold from a position of the mixture on: a **piece**. Changing them at a resume appends
a piece; what the sources had delivered by then is counted again, not stored. How a mixture ends:

==========  ==================================================================================
``stop``    the last position is
==========  ==================================================================================
"first"     the one before the first draw from a source that has nothing left in that lane
"rest"      the end of everything: draws from a source that is used up are passed over
"repeat"    the one that completes the last source; used up ones go on with their next epoch
==========  ==================================================================================

Twin: ``tests/twins/mix.py``. docs/FORMAT.md sections 7.6 and 8.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from shardstream._native import order as native
from shardstream.errors import ConfigError
from shardstream.order.epoch import MAX_SAMPLES, MIX, normalize_seed
from shardstream.order.schedule import lanes_of

DRAWS = native.DRAWS  # of one lane, permuted together
BLOCKS = 1024  # after which the numbers of draws are exact, and come again
STOPS = ("first", "rest", "repeat")
MAX_SOURCES = 64
MAX_PIECES = 64


def resolve_weights(weights: Sequence[float]) -> list[int]:
    """Return integer weights that sum to 2^20: the nearest by largest remainder, at least 1 unless 0 was given.

    Exact arithmetic on the numbers as given, so the same on every machine. Raises ConfigError.
    """
    if not all(isinstance(weight, (int, float)) and math.isfinite(weight) for weight in weights):
        raise ConfigError(f"weights={weights!r} must be finite numbers.")
    shares = [Fraction(weight) for weight in weights]
    if not 0 < len(shares) <= MAX_SOURCES or min(shares) < 0 or sum(shares) == 0:
        raise ConfigError(f"weights={weights!r} must be 1 to {MAX_SOURCES} numbers, none negative and not all 0.")
    total = DRAWS * BLOCKS
    exact = [share * total / sum(shares) for share in shares]
    whole = [max(int(share), 1) if share else 0 for share in exact]
    # Those that were lifted to 1 are taken from the largest, so that the sum stays.
    by_remainder = sorted(range(len(whole)), key=lambda source: (whole[source] - exact[source], source))
    for source in by_remainder[: max(total - sum(whole), 0)]:
        whole[source] += 1
    largest = max(range(len(whole)), key=lambda source: (whole[source], -source))
    whole[largest] += total - sum(whole)
    return whole


@lru_cache(maxsize=64)
def quota_table(weights: tuple[int, ...]) -> np.ndarray:
    """Return int64[BLOCKS + 1, num_sources]: draws of each source in the first ``b`` blocks of a piece.

    Every block gives source ``s`` ``weights[s] div 1024`` draws. The remainders, end to end, fill the blocks'
    free draws one block after the other, in the order of the blocks' reversed ten bits, which spreads them.
    """
    whole, rest = np.divmod(np.array(weights, np.int64), BLOCKS)
    places = np.arange(BLOCKS)
    reverse = sum(((places >> bit) & 1) << (9 - bit) for bit in range(10))
    ends = np.cumsum(rest)
    per_block = np.tile(whole, (BLOCKS, 1))
    for source, (end, count) in enumerate(zip(ends.tolist(), rest.tolist(), strict=True)):
        per_block[reverse[np.arange(end - count, end) % BLOCKS], source] += 1
    return np.concatenate([np.zeros((1, len(weights)), np.int64), np.cumsum(per_block, axis=0)])


class Piece(NamedTuple):
    """Weights that hold from a position on.

    Attributes:
        position: First position of the mixture.
        weights: As given by the user; one for each source.
    """

    position: int
    weights: tuple[float, ...]


class MixOrder:
    """The order of one epoch of a mixture; pure, and small when pickled.

    Args:
        num_samples: Samples in one epoch of each source.
        seed, epoch: Of the mixture's own draws; the sources' orders have theirs.
        lanes: Shared by all sources.
        pieces: ``(position, weights)`` with ascending positions, the first at 0.
        stop: ``"first"``, ``"rest"`` or ``"repeat"``.

    Raises:
        ConfigError: An argument is not legal; ``"rest"`` with a weight of 0; ``"repeat"`` of an empty source;
            a piece that begins after the end.
    """

    def __init__(self, num_samples: Sequence[int], *, seed: int, epoch: int, lanes: int,
                 pieces: Sequence[Piece], stop: str):  # fmt: skip
        self.source_num_samples = tuple(int(count) for count in num_samples)
        self.seed, self.epoch, self.lanes, self.stop = normalize_seed(seed), epoch, lanes, stop
        self.pieces = tuple(Piece(int(position), tuple(weights)) for position, weights in pieces)
        self._weights = [tuple(resolve_weights(piece.weights)) for piece in self.pieces]
        self._check()
        self.num_sources = len(self.source_num_samples)
        # Where each source's course begins among the lanes: behind the one before, so that in "rest" the lanes
        # of the whole mixture differ by at most one sample, as those of one source do.
        self.bases = tuple(sum(self.source_num_samples[:source]) for source in range(self.num_sources))
        self._key = native.key(self.seed, epoch, MIX)
        self._block = lru_cache(maxsize=2 * lanes + 64)(self._make_block)
        self._tables = [quota_table(weights) for weights in self._weights]
        # By lane: where each piece starts in it, and what it had drawn from each source by then.
        self._starts = [[self._depth_at(piece.position, lane) for piece in self.pieces] for lane in range(lanes)]
        self._lengths = np.array(
            [[self.lane_length(s, lane) for s in range(self.num_sources)] for lane in range(lanes)], np.int64
        )
        self._consumed = np.zeros((len(self.pieces), lanes, self.num_sources), np.int64)
        for piece in range(1, len(self.pieces)):
            for lane in range(lanes):
                self._consumed[piece, lane] = self._counts(piece - 1, lane, self._starts[lane][piece])
        self.num_samples = self._find_end()
        if self.pieces[-1].position > self.num_samples:
            raise ConfigError(f"piece {self.pieces[-1]} must not begin after the mixture's end at {self.num_samples}.")

    def _check(self) -> None:
        if self.stop not in STOPS:
            raise ConfigError(f"stop={self.stop!r} must be one of {', '.join(STOPS)}.")
        positions = [piece.position for piece in self.pieces]
        if not 0 < len(positions) <= MAX_PIECES or positions[0] != 0 or positions != sorted(set(positions)):
            raise ConfigError(f"pieces must be 1 to {MAX_PIECES}, begin at 0 and ascend, not {positions}.")
        if any(len(piece.weights) != len(self.source_num_samples) for piece in self.pieces):
            raise ConfigError(f"weights must be {len(self.source_num_samples)} numbers, one for each source.")
        if self.stop == "rest" and positions[-1] > sum(self.source_num_samples):
            raise ConfigError(f"piece {self.pieces[-1]} must not begin after the mixture's end.")
        if self.stop == "rest" and not all(weight for weights in self._weights for weight in weights):
            raise ConfigError('stop="rest" must have weights above 0: a source of weight 0 would never end.')
        if self.stop == "repeat" and 0 in self.source_num_samples:
            raise ConfigError('stop="repeat" must have no empty source: there is nothing to repeat.')

    def __reduce__(self):
        return _rebuild, (self.source_num_samples, self.seed, self.epoch, self.lanes, self.pieces, self.stop)

    def course_offset(self, source: int, lane: int) -> int:
        """Return the first position on ``source``'s course that lane ``lane`` of the mixture draws."""
        return (lane - self.bases[source]) % self.lanes

    def lane_length(self, source: int, lane: int) -> int:
        """Return the draws that one epoch of ``source`` has for ``lane``."""
        return max(0, -(-(self.source_num_samples[source] - self.course_offset(source, lane)) // self.lanes))

    def phase(self, source: int, repetition: int) -> int:
        """Return the ``phase`` of the EpochOrder of this repetition of ``source``."""
        return (self.bases[source] + repetition * self.source_num_samples[source]) % self.lanes

    def draws(self, positions: range) -> tuple[np.ndarray, np.ndarray]:
        """Return ``(source, course)``, both int64: the source of each position, and the position on its course.

        The course's position ``u`` is position ``u mod n`` of repetition ``u div n``, ``n`` the source's samples.
        """
        source, course = np.empty(len(positions), np.int64), np.empty(len(positions), np.int64)
        lanes = lanes_of(positions, self.lanes)
        for first, (lane, owned) in enumerate(lanes.items()):
            source[first :: len(lanes)], course[first :: len(lanes)] = self.lane_draws(lane, owned)
        return source, course

    def lane_draws(self, lane: int, owned: range) -> tuple[np.ndarray, np.ndarray]:
        """Return ``(source, course)`` as ``draws`` does, of ascending positions that are all of this lane."""
        stride = max(owned.step // self.lanes, 1)
        sources, numbers = np.empty(len(owned), np.int64), np.empty(len(owned), np.int64)
        starts, done = self._starts[lane], 0
        while done < len(owned):
            depth = owned[done] // self.lanes
            piece = bisect_right(starts, depth) - 1
            block, drawn = self._block_at(piece, lane, depth - starts[piece])
            begin = starts[piece] + int(drawn.sum())
            of_block, ranks = self._block(piece, lane, block)
            end = min([begin + len(of_block), *starts[piece + 1 : piece + 2]])
            until = min(done - (depth - end) // stride, len(owned))
            index = slice(depth - begin, depth - begin + (until - done - 1) * stride + 1, stride)
            sources[done:until] = of_block[index]
            numbers[done:until] = (self._consumed[piece, lane] + drawn)[sources[done:until]] + ranks[index]
            done = until
        offsets = np.array([self.course_offset(source, lane) for source in range(self.num_sources)])
        return sources, offsets[sources] + numbers * self.lanes

    def counts(self, lane: int, depth: int) -> np.ndarray:
        """Return int64[num_sources]: how many of the first ``depth`` draws of ``lane`` are from each source."""
        return self._counts(bisect_right(self._starts[lane], depth) - 1, lane, depth)

    def consumed(self, position: int) -> list[int]:
        """Return how many of the first ``position`` positions are from each source."""
        return sum(self.counts(lane, self._depth_at(position, lane)) for lane in range(self.lanes)).tolist()

    def num_repetitions(self) -> list[int]:
        """Return how many epochs of each source have begun by the end: where its next epoch counts from."""
        used = [1] * self.num_sources
        for lane in range(self.lanes):
            for source, count in enumerate(self.counts(lane, self._depth_at(self.num_samples, lane)).tolist()):
                last = self.course_offset(source, lane) + (count - 1) * self.lanes
                if count:
                    used[source] = max(used[source], last // self.source_num_samples[source] + 1)
        return used

    def position_of(self, source: int, lane: int, draw: int) -> int:
        """Return the position of draw number ``draw`` from ``source`` in ``lane``; -1 if it never comes."""
        piece = int(np.searchsorted(self._consumed[:, lane, source], draw, side="right")) - 1
        weight = self._weights[piece][source]
        if weight == 0:
            return -1
        turn, rest = divmod(draw - int(self._consumed[piece, lane, source]), weight)
        block = turn * BLOCKS + int(np.searchsorted(self._tables[piece][:, source], rest, side="right")) - 1
        sources, ranks = self._block(piece, lane, block)
        drawn = self._drawn(piece, lane, block)
        rank = draw - int(self._consumed[piece, lane, source] + drawn[source])
        index = int(np.flatnonzero((sources == source) & (ranks == rank))[0])
        return (self._starts[lane][piece] + int(drawn.sum()) + index) * self.lanes + lane

    def _depth_at(self, position: int, lane: int) -> int:
        """Return how many positions before ``position`` are of ``lane``."""
        return max(0, -(-(position - lane) // self.lanes))

    def _left(self, piece: int, lane: int) -> np.ndarray | int:
        """Return int64[num_sources]: the draws each source has left for ``lane`` at the piece's beginning."""
        if self.stop == "rest":
            return self._lengths[lane] - self._consumed[piece, lane]
        return MAX_SAMPLES

    def _drawn(self, piece: int, lane: int, block: int) -> np.ndarray:
        """Return int64[num_sources]: draws of the piece's blocks before ``block``, without those passed over."""
        turn, rest = divmod(block, BLOCKS)
        return np.minimum(turn * self._tables[piece][BLOCKS] + self._tables[piece][rest], self._left(piece, lane))

    def _block_at(self, piece: int, lane: int, depth: int) -> tuple[int, np.ndarray]:
        """Return the block of the piece's draw number ``depth`` in this lane, and ``_drawn`` before it."""

        def num_before(block: int) -> int:
            return int(self._drawn(piece, lane, block).sum())

        block = depth // DRAWS
        if self.stop == "rest" and num_before(block + 1) <= depth:  # something was passed over: it is further on
            low = high = block + 1
            while num_before(high) <= depth:
                low, high = high, 2 * high
            block = low - 1 + bisect_right(range(low, high), depth, key=num_before)
        return block, self._drawn(piece, lane, block)

    def _make_block(self, piece: int, lane: int, block: int) -> tuple[np.ndarray, np.ndarray]:
        """Return ``(source uint8, rank uint16)`` of the block's draws: rank counts the source's within the block."""
        rest = block % BLOCKS
        quotas = self._tables[piece][rest + 1] - self._tables[piece][rest]
        available = self._left(piece, lane) - self._drawn(piece, lane, block)
        return native.draws(native.key(lane, piece, block, head=self._key), quotas, available)

    def _counts(self, piece: int, lane: int, depth: int) -> np.ndarray:
        """Return int64[num_sources]: draws of each source among the lane's first ``depth``, which end in ``piece``."""
        depth -= self._starts[lane][piece]
        if depth <= 0:
            return self._consumed[piece, lane].copy()
        block, drawn = self._block_at(piece, lane, depth - 1)
        sources = self._block(piece, lane, block)[0][: depth - int(drawn.sum())]
        return self._consumed[piece, lane] + drawn + np.bincount(sources, minlength=self.num_sources)

    def _find_end(self) -> int:
        """Return the number of positions; see the module's table."""
        if self.stop == "rest":
            return sum(self.source_num_samples)
        ends = []
        for lane, source in np.ndindex(self._lengths.shape):
            draw = int(self._lengths[lane, source]) - (self.stop == "repeat")
            if self.stop == "first" and draw < self._consumed[-1, lane, source]:
                raise ConfigError(f"piece {self.pieces[-1]} must not begin after source {source} has ended.")
            position = self.position_of(source, lane, draw) if draw >= 0 else -1
            ends += [position] if position >= 0 else []
        return (min(ends) if self.stop == "first" else max(ends) + 1) if ends else 0


def _rebuild(num_samples, seed, epoch, lanes, pieces, stop) -> MixOrder:
    return MixOrder(num_samples, seed=seed, epoch=epoch, lanes=lanes, pieces=pieces, stop=stop)

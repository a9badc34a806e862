"""Orders over a growing dataset: one line of segments, indifferent to when they were seen."""

import random

import numpy as np
import pytest

from shardstream.errors import ConfigError
from shardstream.order import schedule
from shardstream.order.batches import owned
from shardstream.order.follow import FollowOrder

SIZES = [(3, [50, 20, 0, 7]), (4, [1]), (5, []), (7, [200] * 3), (8, [13]), (9, [96]), (12, [5, 5, 5])]


def followed(sizes=SIZES, **changes):
    follow = FollowOrder(**{"seed": 2, "lanes": 12, "window": 60, "shuffle": True, **changes})
    for version, shards in sizes:
        follow.append(version, shards)
    return follow


def samples(follow, positions):
    """(version, line index) of each position."""
    return [
        (segment.version, index)
        for segment, own in follow.parts(positions)
        for index in segment.order.line(own.start, own.stop, own.step).tolist()
    ]


def test_every_sample_of_every_segment_comes_once():
    """Cumulative positions are the segments end to end, each a permutation of its samples."""
    follow = followed()
    assert sorted(samples(follow, range(follow.num_samples))) == [
        (v, i) for v, sizes in SIZES for i in range(sum(sizes))
    ]


def test_nothing_depends_on_when_an_entry_was_seen():
    """A run that saw the entries one by one reads what one that saw them all at once does."""
    late, growing, read = followed(), followed([]), []
    for version, sizes in SIZES:
        begin = growing.num_samples
        growing.append(version, sizes)
        read += samples(growing, range(begin, growing.num_samples))
    assert read == samples(late, range(late.num_samples))


def test_a_reader_keeps_its_lanes_across_segments():
    """Cumulative position c is in lane c mod lanes, so in each segment a reader has its own lanes."""
    follow = followed()
    for rank in range(4):
        for segment, own in follow.parts(owned(0, follow.num_samples, rank, 4)):
            lanes = schedule.lanes_of(own, 12)
            assert {(segment.base + lane) % 12 % 4 for lane in lanes} <= {rank}
            assert {(segment.order.phase + lane) % 12 for lane in lanes} <= set(range(rank, 12, 4))


def test_batches_cross_segments_and_topologies_agree():
    """Global batches are cuts of one line; ranks' shares of them are the same samples on any topology."""
    follow = followed()
    whole = samples(follow, range(follow.num_samples))
    for world_size in (1, 2, 5):
        for begin in range(0, follow.num_samples - 40, 40):
            rows = [samples(follow, owned(begin, begin + 40, rank, world_size)) for rank in range(world_size)]
            assert sorted(row for one in rows for row in one) == sorted(whole[begin : begin + 40])


def test_a_resume_needs_only_the_segments_ahead():
    """From a saved base and position, a run that knows only later segments goes on exactly."""
    whole = followed()
    position = 700
    segment, _ = next(whole.parts(range(position, position + 1)))
    later = followed([one for one in SIZES if one[0] >= segment.version], base=segment.base)
    positions = range(position, whole.num_samples)
    assert samples(later, positions) == samples(whole, positions)


def test_segments_behind_are_forgotten():
    """After forget() the past is gone and the rest unchanged."""
    follow, whole = followed(), followed()
    follow.forget(700)
    assert len(follow.segments) < len(whole.segments)
    assert samples(follow, range(700, 760)) == samples(whole, range(700, 760))
    with pytest.raises(IndexError):
        samples(follow, range(0, 5))


def test_versions_ascend_and_unknown_positions_are_refused():
    """A segment out of order and a position not yet there are errors."""
    follow = followed()
    with pytest.raises(ConfigError, match="must be above"):
        follow.append(12, [5])
    with pytest.raises(IndexError):
        samples(follow, range(follow.num_samples - 1, follow.num_samples + 1))


def test_segments_of_equal_sizes_are_shuffled_differently():
    """Each segment has its own permutation."""
    follow = followed([(1, [300]), (2, [300])])
    one, two = (np.array([i for _, i in samples(follow, range(b, b + 300))]) for b in (0, 300))
    assert (one == two).sum() < 15


def test_random_cuts_read_the_same():
    """Any way to cut the line into ranges reads the same samples."""
    follow, random_ = followed(), random.Random(1)
    whole = samples(follow, range(follow.num_samples))
    for _ in range(50):
        begin, step = random_.randrange(follow.num_samples), random_.randint(1, 30)
        assert samples(follow, range(begin, follow.num_samples, step)) == whole[begin::step]


def test_a_reader_sees_one_order():
    """line() and locate() say of cumulative positions what the segments' own orders say, shards numbered through."""
    follow, first_shard = followed(base=17, first_shard=1000), {}
    for version, sizes in SIZES:
        first_shard[version] = 1000 + sum(len(shards) for v, shards in SIZES if v < version)
    for positions in (range(17, follow.num_samples), range(40, 300, 7), range(900, 900), range(777, 778)):
        shard, row = follow.locate(follow.line(positions.start, positions.stop, positions.step))
        expected = []
        for segment, own in follow.parts(positions):
            shards, rows = segment.order.locate(segment.order.line(own.start, own.stop, own.step))
            expected += [(first_shard[segment.version] + s, r) for s, r in zip(shards.tolist(), rows.tolist())]
        assert list(zip(shard.tolist(), row.tolist())) == expected

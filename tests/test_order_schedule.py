"""The schedule of blocks: everything is there in time, few fetch twice, little is asked ahead."""

import collections
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardstream.order import schedule
from shardstream.order.batches import BatchPlan
from shardstream.order.epoch import EpochOrder


class Dataset:
    """Shards of blocks of the given sizes, with a count of the shards whose blocks were asked for."""

    def __init__(self, shards):
        self.starts = [np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64) for sizes in shards]
        self.num_samples = np.array([starts[-1] for starts in self.starts], np.int64)
        self.num_asked = 0

    def block_starts(self, shard):
        self.num_asked += 1
        return self.starts[shard]

    def block_of(self, shard, row):
        return shard, int(np.searchsorted(self.starts[shard], row, side="right")) - 1

    def order(self, lanes, window, shuffle=True, seed=0):
        if not shuffle:
            lanes = window = 1
        return EpochOrder(self.num_samples, seed=seed, epoch=0, lanes=lanes, window=window, shuffle=shuffle)

    def blocks_at(self, order, positions):
        """The block of each position."""
        return [
            self.block_of(int(shard), int(row))
            for shard, row in zip(*order.locate(order.wrapped_line(positions)), strict=True)
        ]


DATASETS = st.lists(st.lists(st.integers(0, 30), max_size=5), min_size=1, max_size=6).map(Dataset)


def even(num_shards, num_blocks, num_rows):
    return Dataset([[num_rows] * num_blocks] * num_shards)


@settings(max_examples=200, deadline=None)
@given(
    DATASETS, st.integers(1, 12), st.integers(1, 100), st.booleans(), st.sampled_from([False, True, "pad"]), st.data()
)
def test_every_sample_finds_its_block_in_time(dataset, lanes, window, shuffle, drop_last, data):
    """For any topology and start, each owned position lies in the interval of a need for its block."""
    order = dataset.order(lanes, window, shuffle)
    world_size, workers = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3))
    start = data.draw(st.integers(0, order.num_samples))
    plan = BatchPlan(order.num_samples, start, data.draw(st.integers(1, 20)), world_size, drop_last)
    positions = plan.all_positions(
        data.draw(st.integers(0, world_size - 1)), data.draw(st.integers(0, workers - 1)), workers
    )
    needs = list(schedule.blocks(order, positions, dataset.block_starts))
    intervals = collections.defaultdict(list)
    for need in needs:
        intervals[need.shard, need.block].append((need.first_position, need.end_position))
        shard, row = (int(one[0]) for one in order.locate([need.line_begin]))
        assert (shard, dataset.starts[shard][need.block]) == (need.shard, row)
        assert need.line_end - need.line_begin == dataset.starts[shard][need.block + 1] - row
    for position, block in zip(positions, dataset.blocks_at(order, positions), strict=True):
        assert any(first <= position < end for first, end in intervals[block])
    assert [need.first_position for need in needs] == sorted(need.first_position for need in needs)


@settings(max_examples=100, deadline=None)
@given(DATASETS, st.integers(1, 12), st.integers(1, 100), st.booleans(), st.integers(1, 4))
def test_shards_come_no_later_than_their_blocks(dataset, lanes, window, shuffle, world_size):
    """The schedule of shards names each shard that has a needed block, in an interval that holds the block's."""
    order = dataset.order(lanes, window, shuffle)
    positions = BatchPlan(order.num_samples, 0, 5, world_size).all_positions(0)
    of_shards = list(schedule.shards(order, positions))
    for need in schedule.blocks(order, positions, dataset.block_starts):
        assert any(
            shard.shard == need.shard
            and shard.first_position <= need.first_position
            and need.end_position <= shard.end_position
            for shard in of_shards
        )
    assert all(shard.block == -1 for shard in of_shards)


@pytest.mark.parametrize("world_size, workers", [(1, 1), (2, 1), (1, 3), (4, 2), (3, 4), (8, 4), (96, 1)])
def test_each_block_is_fetched_by_at_most_two_readers(world_size, workers):
    """When the readers divide the lanes evenly, a block has one reader, or two at the border of two lanes."""
    dataset = even(40, 12, 40)
    order = dataset.order(96, 16_384)
    plan = BatchPlan(order.num_samples, 0, 8, world_size)
    readers = collections.Counter()
    for rank, worker in itertools.product(range(world_size), range(workers)):
        needs = schedule.blocks(order, plan.all_positions(rank, worker, workers), dataset.block_starts)
        readers.update({(need.shard, need.block) for need in needs})
    assert len(readers) == 40 * 12
    assert max(readers.values()) <= 2
    assert sum(readers.values()) - len(readers) < 96
    assert schedule.readers_per_block(96, world_size * workers) == 1


@pytest.mark.parametrize("num_readers", [2, 4, 8, 16, 32])
def test_large_blocks_too_have_at_most_two_readers_when_those_are_a_power_of_two(num_readers):
    """The lanes of one of 2^k readers are neighbours, so even a block longer than a lane has one reader or two."""
    dataset = even(1, 50, 200)
    order = dataset.order(96, 16_384)
    readers = collections.Counter()
    for rank in range(num_readers):
        needs = schedule.blocks(order, range(rank, order.num_samples, num_readers), dataset.block_starts)
        readers.update({(need.shard, need.block) for need in needs})
    assert max(readers.values()) <= 2


@pytest.mark.parametrize("num_readers, factor", [(5, 5), (10, 5), (64, 2), (7, 7), (36, 3)])
def test_the_factor_of_uneven_readers_is_what_they_fetch(num_readers, factor):
    """When readers do not divide the lanes, readers_per_block says how often a block is fetched."""
    dataset = even(30, 10, 64)
    order = dataset.order(96, 16_384)
    fetched = sum(
        len(
            {
                (need.shard, need.block)
                for need in schedule.blocks(order, range(r, order.num_samples, num_readers), dataset.block_starts)
            }
        )
        for r in range(num_readers)
    )
    assert schedule.readers_per_block(96, num_readers) == factor
    assert factor <= fetched / 300 <= factor * 1.4  # a third of the blocks lie on a border of two lanes here


def test_readers_in_order_skip_blocks_without_their_samples():
    """Without shuffle a block of one sample is fetched by its one reader only."""
    dataset = even(5, 20, 1)
    order = dataset.order(1, 1, shuffle=False)
    fetched = [list(schedule.blocks(order, range(rank, 100, 4), dataset.block_starts)) for rank in range(4)]
    assert [len(needs) for needs in fetched] == [25] * 4


def test_the_first_need_asks_for_one_shard_a_lane():
    """Starting anywhere in a large epoch looks into as many shards as the reader has lanes, and no more."""
    dataset = even(2000, 10, 50)
    order = dataset.order(96, 16_384)
    for start in (0, 499_999, 999_000):
        dataset.num_asked = 0
        next(schedule.blocks(order, range(start, order.num_samples), dataset.block_starts))
        assert dataset.num_asked <= 96


def test_a_resume_needs_the_blocks_of_one_window_first():
    """At any position, what is needed before the window's end is what the runs of that window touch."""
    dataset = even(500, 10, 50)
    order = dataset.order(96, 16_384)
    for start in (1, 100_000, 200_123):
        window_end = (start // order.window + 1) * order.window
        needs = schedule.blocks(order, range(start, order.num_samples), dataset.block_starts)
        first = list(itertools.takewhile(lambda need, end=window_end: need.first_position < end, needs))
        assert all(start <= need.first_position < start + 96 for need in first)
        assert len(first) <= 96 * (order.run_length // 50 + 2)


def test_blocks_are_let_go_as_the_reader_goes_on():
    """At no position are more blocks needed than each lane's run overlaps."""
    dataset = even(200, 10, 50)
    order = dataset.order(96, 16_384)
    changes = collections.Counter()
    for need in schedule.blocks(order, range(0, order.num_samples), dataset.block_starts):
        changes[need.first_position] += 1
        changes[need.end_position] -= 1
    assert max(np.cumsum([changes[position] for position in sorted(changes)])) <= 96 * (order.run_length // 50 + 2)


def test_an_empty_epoch_needs_nothing():
    """No samples, no positions, no lanes: no needs."""
    dataset = Dataset([[], [0]])
    for shuffle in (True, False):
        assert list(schedule.blocks(dataset.order(96, 96, shuffle), range(0), dataset.block_starts)) == []

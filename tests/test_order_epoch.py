"""EpochOrder: a permutation for every shape, a pure function of few numbers, the same as its twin."""

import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardstream.errors import ConfigError
from shardstream.order.epoch import EpochOrder, normalize_seed, resolve_lanes, resolve_window
from tests.twins import order as twin

SIZES = st.lists(st.integers(0, 60), max_size=12)


def shuffled(sizes, seed=0, epoch=0, lanes=96, window=16_384, phase=0):
    return EpochOrder(sizes, seed=seed, epoch=epoch, lanes=lanes, window=window, shuffle=True, phase=phase)


def samples(order):
    """All (shard, row) of an epoch in order, as one array (num_samples, 2)."""
    return np.stack(order.locate(order.line(0, order.num_samples)), axis=1)


def everything(sizes):
    return [(shard, row) for shard, size in enumerate(sizes) for row in range(size)]


@settings(max_examples=150, deadline=None)
@given(
    SIZES,
    st.integers(-(2**70), 2**70),
    st.integers(0, 2**40),
    st.integers(1, 20),
    st.integers(1, 200),
    st.integers(0, 99),
)
def test_every_sample_comes_exactly_once_where_the_twin_says(sizes, seed, epoch, lanes, window, phase):
    """For any sizes, empty shards among them, the epoch is a permutation of all samples, and the twin's."""
    order = shuffled(sizes, seed, epoch, lanes, window, phase)
    got = [tuple(pair) for pair in samples(order).tolist()]
    assert sorted(got) == everything(sizes)
    for position in {0, 1, len(got) // 2, len(got) - 1} & set(range(len(got))):
        assert got[position] == twin.sample(seed, epoch, sizes, lanes, window, position, phase)


@settings(max_examples=100, deadline=None)
@given(SIZES, st.integers(0, 9), st.integers(1, 20), st.integers(1, 200), st.integers(0, 9), st.integers(1, 5), st.integers(0, 40))
def test_chunks_name_exactly_the_shards_of_their_positions(sizes, seed, lanes, window, first, step, num_more):
    """For a reader of any positions, the epoch begun again among them: the shards of a chunk, ascending, are those that it reads."""
    order = shuffled(sizes, seed, lanes=lanes, window=window)
    positions = range(first, order.num_samples + num_more if sum(sizes) else 0, step)
    taken = []
    for chunk in order.chunks(positions, 50):
        shard, row = order.locate(chunk.line)
        ordinals, begins = chunk.shards
        assert sorted(ordinals.tolist()) == sorted(set(shard.tolist())) and begins.tolist() == sorted(begins.tolist())
        assert (begins[[ordinals.tolist().index(one) for one in shard.tolist()]] + row).tolist() == chunk.line.tolist()
        taken += [chunk.epoch_begin + position for position in chunk.positions]
    assert taken == list(positions)


@pytest.mark.parametrize("num_samples", [0, 1, 2, 95, 96, 97, 191, 192, 193, 16_319, 16_320, 16_321])
def test_sizes_around_lanes_and_windows(num_samples):
    """An epoch of 0, 1, L-1, L, L+1, ... samples is whole."""
    assert sorted(map(tuple, samples(shuffled([num_samples])).tolist())) == everything([num_samples])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 300), max_size=8), st.integers(1, 20), st.integers(1, 400))
def test_a_window_of_positions_is_one_run_of_every_lane(sizes, lanes, window):
    """Positions [r * window, (r + 1) * window) are exactly the samples of run r's spans."""
    order = shuffled(sizes, lanes=lanes, window=window)
    for run in range(order.num_runs):
        begin, end = run * order.window, min((run + 1) * order.window, order.num_samples)
        spans = [order.run_span(run, lane) for lane in range(lanes)]
        assert sorted(order.line(begin, end)) == sorted(i for span in spans for i in range(*span))
        assert end > begin
    assert all(begin == end for begin, end in (order.run_span(order.num_runs, lane) for lane in range(lanes)))


@given(SIZES)
def test_without_shuffle_it_is_the_logs_order(sizes):
    """shuffle=False gives shard after shard, row after row, in every epoch."""
    order = EpochOrder(sizes, seed=5, epoch=3, lanes=1, window=1, shuffle=False)
    assert [tuple(pair) for pair in samples(order).tolist()] == everything(sizes)


def test_seeds_and_epochs_give_different_orders():
    """Neighbouring seeds and epochs, and (seed, epoch) swapped, share no more places than chance."""
    orders = [samples(shuffled([500] * 20, seed, epoch)) for seed in range(3) for epoch in range(3)]
    for i, one in enumerate(orders):
        for other in orders[:i]:
            assert (one == other).all(1).sum() < 15  # 1 is expected


def test_a_small_dataset_is_shuffled_over_its_whole_length():
    """Any 24 consecutive positions of a one-shard epoch are spread over all of it, however few samples a lane has."""
    for num_samples in (96, 100, 192, 1000, 5000):
        line = shuffled([num_samples]).line(0, num_samples)
        for begin in range(0, num_samples - 24, 24):
            counts = np.bincount(line[begin : begin + 24] * 6 // num_samples, minlength=6)
            assert counts.min() >= 1
        assert abs(np.corrcoef(line, np.arange(num_samples))[0, 1]) < 0.2


def test_seeds_count_modulo_2_to_the_64():
    """Negative and huge seeds are legal and mean their remainder."""
    assert np.array_equal(shuffled([1000], -1).line(0, 1000), shuffled([1000], 2**64 - 1).line(0, 1000))
    assert normalize_seed(2**100 + 7) == 7


def test_it_pickles_to_the_same_order():
    """A worker's copy is the same order; nothing computed travels."""
    order = shuffled([100] * 50, seed=9, epoch=2)
    fresh = len(pickle.dumps(order))
    order.line(0, 10), order.locate([0])
    assert len(pickle.dumps(order)) == fresh
    copy = pickle.loads(pickle.dumps(order))
    assert np.array_equal(samples(copy), samples(order))


def test_a_million_shards_and_ten_billion_samples_need_memory_for_shards_only():
    """Opening and reading at the end holds 8 bytes a shard and array, and nothing a sample."""
    sizes = np.full(1_000_000, 10_000)
    tracemalloc.start()
    order = shuffled(sizes)
    order.locate(order.line(order.num_samples - 20_000, order.num_samples))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * sizes.nbytes


@pytest.mark.parametrize("world_size, lanes", [(1, 96), (96, 96), (97, 192), (1000, 1536)])
def test_default_lanes_double_until_each_rank_has_one(world_size, lanes):
    """96 lanes, doubled until there are as many as ranks."""
    assert resolve_lanes(world_size) == lanes


def test_default_window_is_bounded_by_samples_and_by_bytes():
    """16,384 samples or 256 MiB, in whole rows of lanes, at least one."""
    assert resolve_window(96, 100) == 16_320
    assert resolve_window(96, 100_000) == 2684 // 96 * 96
    assert resolve_window(96, 10**9) == 96
    assert resolve_window(96, 0) == 16_320
    assert resolve_window(96, 100, 1000) == 960


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1.5},
        {"seed": True},
        {"seed": None},
        {"epoch": -1},
        {"epoch": 2**62},
        {"lanes": 0},
        {"lanes": 2**21},
        {"window": 0},
        {"window": "64"},
        {"shuffle": False},
        {"shard_num_samples": [3, -1]},
        {"shard_num_samples": [[1]]},
        {"shard_num_samples": [2**61, 2**61]},
    ],
)
def test_illegal_arguments_are_refused(change):
    """Each argument out of range is a ConfigError, and so is a sum that would overflow."""
    arguments = {"shard_num_samples": [10], "seed": 0, "epoch": 0, "lanes": 4, "window": 8, "shuffle": True, **change}
    with pytest.raises(ConfigError, match="must"):
        EpochOrder(arguments.pop("shard_num_samples"), **arguments)

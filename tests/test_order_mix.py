"""Mixtures: exact numbers, nothing twice, resumable anywhere, and the same on every topology."""

import collections
import pickle
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardstream.errors import ConfigError
from shardstream.order import mix_schedule
from shardstream.order.batches import BatchPlan
from shardstream.order.epoch import EpochOrder
from shardstream.order.mix import STOPS, MixOrder, Piece, quota_table, resolve_weights
from shardstream.order.mix_rows import SHARD_BITS, MixRows
from tests.twins import mix as twin

WEIGHTS = st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=8)


def mixed(num_samples, weights=(0.7, 0.3), *, stop="rest", lanes=8, seed=3, epoch=0, pieces=None):
    return MixOrder(
        num_samples, seed=seed, epoch=epoch, lanes=lanes, pieces=pieces or [Piece(0, tuple(weights))], stop=stop
    )


def orders_of(mix, sizes, window=64, seed=11):
    """Orders of the sources' repetitions, as a stream makes them."""
    made = {}

    def order(source, repetition):
        if (source, repetition) not in made:
            made[source, repetition] = EpochOrder(
                sizes[source],
                seed=seed + source,
                epoch=repetition,
                lanes=mix.lanes,
                window=window,
                shuffle=True,
                phase=mix.phase(source, repetition),
            )
        return made[source, repetition]

    return order


@given(WEIGHTS)
def test_weights_become_integers_close_to_what_was_asked(weights):
    """They sum to 2^20, are the twin's, at least 1, and within 1 of exact where nothing had to be lifted to 1."""
    whole = resolve_weights(weights)
    assert whole == twin.integer_weights(weights)
    assert sum(whole) == 2**20 and min(whole) >= 1
    exact = np.array(weights) / sum(weights) * 2**20
    if exact.min() >= 1:
        assert np.abs(whole - exact).max() < 1 + 1e-6


@settings(max_examples=50, deadline=None)
@given(WEIGHTS)
def test_quotas_are_exact_over_1024_blocks_and_close_in_between(weights):
    """Each block has 1,024 draws, none negative; sums stay within 5 of the weights' shares, and end exact."""
    whole = tuple(resolve_weights(weights))
    table = quota_table(whole)
    assert np.all(np.diff(table, axis=0).sum(axis=1) == 1024) and np.diff(table, axis=0).min() >= 0
    assert table[-1].tolist() == list(whole)
    assert np.abs(table - np.arange(1025)[:, None] * np.array(whole) / 1024).max() < 5
    assert np.diff(table, axis=0)[[0, 1, 600]].tolist() == [twin.quotas(weights, block) for block in (0, 1, 600)]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, 800), min_size=1, max_size=4),
    st.sampled_from(STOPS),
    st.integers(1, 5),
    st.integers(0, 2**64 - 1),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_a_mixture_is_its_twins(num_samples, stop, lanes, seed, changed, random_):
    """Draw by draw the same as the twin, for every end and with weights that change on the way."""
    pieces = [Piece(0, tuple(random_.uniform(0.05, 1) for _ in num_samples))]
    mix = mixed(num_samples, stop=stop, lanes=lanes, seed=seed, pieces=pieces)
    if changed and mix.num_samples > 1:
        pieces += [
            Piece(random_.randint(1, mix.num_samples // 2 or 1), tuple(random_.uniform(0.05, 1) for _ in num_samples))
        ]
        mix = mixed(num_samples, stop=stop, lanes=lanes, seed=seed, pieces=pieces)
    limit = min(mix.num_samples, 2000)
    source, course = mix.draws(range(limit))
    expected = twin.mixture(num_samples, seed, 0, lanes, pieces, stop, limit)
    assert dict(enumerate(zip(source.tolist(), course.tolist(), strict=True))) == expected


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 2000), min_size=1, max_size=5), st.integers(1, 50), st.randoms(use_true_random=False))
def test_rest_delivers_everything_exactly_once(num_samples, lanes, random_):
    """stop="rest" is a permutation of all samples of all sources, whatever the weights and their changes."""
    weights = [tuple(random_.choice([0.001, 0.3, 1, 50]) for _ in num_samples) for _ in range(3)]
    total = sum(num_samples)
    cuts = sorted(random_.sample(range(1, total), 2)) if total > 3 else []
    mix = mixed(num_samples, lanes=lanes, pieces=[Piece(*piece) for piece in zip([0, *cuts], weights, strict=False)])
    source, course = mix.draws(range(total))
    assert mix.num_samples == total
    drawn = sorted(zip(source.tolist(), course.tolist(), strict=True))
    assert drawn == [(s, u) for s, count in enumerate(num_samples) for u in range(count)]
    assert mix.num_repetitions() == [1] * len(num_samples)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 4000), min_size=1, max_size=4),
    st.sampled_from(STOPS),
    st.sampled_from([1, 6, 96]),
    st.randoms(use_true_random=False),
)
def test_any_range_equals_the_whole_and_positions_invert_draws(num_samples, stop, lanes, random_):
    """Any range by any step is the whole epoch's, cut; counts and position_of agree with it."""
    mix = mixed(num_samples, [random_.uniform(0.02, 1) for _ in num_samples], stop=stop, lanes=lanes)
    end = min(mix.num_samples, 20_000)
    whole = np.stack(mix.draws(range(end)), axis=1)
    begin = random_.randint(0, end)
    positions = range(begin, random_.randint(begin, end), random_.choice([1, 2, 5, lanes, 3 * lanes]))
    assert np.array_equal(np.stack(mix.draws(positions), axis=1), whole[list(positions)])
    assert mix.consumed(begin) == np.bincount(whole[:begin, 0], minlength=len(num_samples)).tolist()
    for position in random_.sample(range(end), min(end, 20)):
        source, course = whole[position].tolist()
        assert mix.position_of(source, position % lanes, course // lanes) == position


@pytest.mark.parametrize("stop", STOPS)
def test_how_mixtures_end(stop):
    """first: with the first source; rest: with everything; repeat: with the last, others having gone on."""
    num_samples = (60_000, 20_000)
    mix = mixed(num_samples, (0.5, 0.5), stop=stop, lanes=8)
    source, course = mix.draws(range(mix.num_samples))
    counts = np.bincount(source, minlength=2)
    times = [np.bincount(course[source == s] % n, minlength=n) for s, n in enumerate(num_samples)]
    if stop == "first":
        assert max(one.max() for one in times) == 1
        assert 0.97 * 20_000 < counts[1] <= 20_000 and abs(counts[0] - counts[1]) < 300
    elif stop == "rest":
        assert [set(one.tolist()) for one in times] == [{1}, {1}] and mix.num_repetitions() == [1, 1]
    else:
        assert times[0].min() == 1 and times[1].min() >= 2
        assert abs(counts[0] - counts[1]) < 300 and 60_000 <= counts[0] < 1.02 * 60_000
        assert mix.num_repetitions()[1] in (3, 4)


def test_repetitions_are_whole_and_differ():
    """A repeated source delivers each of its epochs as a permutation, in an order of its own."""
    mix = mixed((5000, 400), (0.5, 0.5), stop="repeat", lanes=4)
    sizes = [[500] * 10, [40] * 10]
    source, repetition, line = mix_schedule.lines(mix, orders_of(mix, sizes), range(mix.num_samples))
    epochs = [line[(source == 1) & (repetition == i)] for i in range(3)]
    assert all(sorted(epoch.tolist()) == list(range(400)) for epoch in epochs)
    assert (epochs[0] == epochs[1]).mean() < 0.05


def test_shares_are_those_of_the_weights_in_every_stretch():
    """Over any 98,304 positions of 96 lanes the shares are within 0.1% of the weights."""
    mix = mixed((10**9, 10**9, 10**9), (0.6, 0.3, 0.1), lanes=96)
    source, _ = mix.draws(range(10**6, 10**6 + 2 * 98_304))
    assert np.abs(np.bincount(source) / len(source) - [0.6, 0.3, 0.1]).max() < 0.002


def test_weights_may_change_at_a_resume():
    """A new piece changes what comes after it, nothing before, and a source of weight 0 gives nothing more."""
    before = mixed((10_000, 10_000), (0.9, 0.1), stop="first")
    after = mixed((10_000, 10_000), stop="first", pieces=[Piece(0, (0.9, 0.1)), Piece(3001, (0.0, 1.0))])
    one, two = (np.stack(mix.draws(range(3001))) for mix in (before, after))
    assert np.array_equal(one, two)
    source, course = after.draws(range(after.num_samples))
    assert set(source[3001:].tolist()) == {1}
    assert len(set(zip(source.tolist(), course.tolist(), strict=True))) == after.num_samples


@pytest.mark.parametrize("block", range(4))
def test_lineages_of_mixtures_are_exact(block):
    """50 random lineages a block of topologies, crashes and changes of weights: each sample once."""
    for seed in range(block * 50, block * 50 + 50):
        random_ = random.Random(seed)
        num_samples = [random_.choice([0, 1, 30, 200, 1500]) for _ in range(random_.randint(1, 4))]
        pieces, position, drawn = (
            [Piece(0, tuple(random_.uniform(0.01, 1) for _ in num_samples))],
            0,
            collections.Counter(),
        )
        while position < sum(num_samples):
            if random_.random() < 0.3:
                pieces = [piece for piece in pieces if piece.position < position]
                pieces += [Piece(position, tuple(random_.uniform(0.01, 1) for _ in num_samples))]
            mix = pickle.loads(pickle.dumps(mixed(num_samples, lanes=random_.choice([24]), seed=seed, pieces=pieces)))
            plan = BatchPlan(mix.num_samples, position, random_.randint(1, 60), random_.randint(1, 5))
            survives = random_.randint(0, plan.num_batches)
            for t in range(survives):
                for rank in range(plan.world_size):
                    drawn.update(zip(*(one.tolist() for one in mix.draws(plan.positions(t, rank))), strict=True))
            position = plan.position_after(survives)
        assert drawn == {(s, u): 1 for s, count in enumerate(num_samples) for u in range(count)}


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 200), min_size=1, max_size=6), min_size=1, max_size=3),
    st.sampled_from(STOPS),
    st.randoms(use_true_random=False),
)
def test_every_draw_finds_its_block_in_time(sizes, stop, random_):
    """Each position's line index lies in a block that the reader's schedule holds at that position."""
    sizes = [[*one, 1] for one in sizes]
    mix = mixed([sum(one) for one in sizes], [random_.uniform(0.1, 1) for _ in sizes], stop=stop, lanes=6)
    orders = orders_of(mix, sizes)
    readers = random_.choice([1, 2, 3, 4])
    positions = range(
        random_.randint(0, mix.num_samples) // readers * readers + random_.randrange(readers), mix.num_samples, readers
    )

    def block_starts(source, shard):
        return np.array([*range(0, sizes[source][shard], 10), sizes[source][shard]])

    held = collections.defaultdict(list)
    needs = list(mix_schedule.blocks(mix, orders, positions, block_starts))
    for need in needs:
        held[need.source, need.repetition].append(need)
    for position, source, repetition, line in zip(positions, *mix_schedule.lines(mix, orders, positions), strict=True):
        assert any(
            need.first_position <= position < need.end_position and need.line_begin <= line < need.line_end
            for need in held[int(source), int(repetition)]
        )
    assert [need.first_position for need in needs] == sorted(need.first_position for need in needs)
    of_shards = {(need.source, need.repetition, need.shard) for need in mix_schedule.shards(mix, orders, positions)}
    assert of_shards == {(need.source, need.repetition, need.shard) for need in needs}


@pytest.mark.parametrize("num_readers", [2, 3, 4, 8])
def test_each_block_of_each_source_is_fetched_by_at_most_two_readers(num_readers):
    """A reader reads its own lanes of each source, so blocks have one reader, or two at a lane's border."""
    sizes = [[400] * 60, [400] * 20]
    mix = mixed([sum(one) for one in sizes], (0.7, 0.3), lanes=24)
    readers = collections.Counter()
    for reader in range(num_readers):
        needs = mix_schedule.blocks(
            mix,
            orders_of(mix, sizes),
            range(reader, mix.num_samples, num_readers),
            lambda source, shard: np.arange(0, 401, 40),
        )
        readers.update({need[2:6] for need in needs})
    assert max(readers.values()) <= 2 and len(readers) == 800
    assert sum(readers.values()) - 800 <= 2 * 24


@pytest.mark.parametrize(
    "change",
    [
        {"weights": (1, -1)},
        {"weights": (0, 0)},
        {"weights": (1,)},
        {"weights": (1, float("nan"))},
        {"weights": (1, "x")},
        {"weights": (1, float("inf"))},
        {"weights": (1, 0)},
        {"stop": "last"},
        {"pieces": [Piece(5, (1, 1))]},
        {"pieces": [Piece(0, (1, 1)), Piece(0, (1, 1))]},
        {"pieces": [Piece(0, (1, 1)), Piece(21, (1, 1))]},
        {"num_samples": (10, 0), "stop": "repeat"},
    ],
    ids=str,
)
def test_illegal_mixtures_are_refused(change):
    """Weights, pieces and ends that make no sense are a ConfigError."""
    arguments = {"num_samples": (10, 10), **change}
    with pytest.raises(ConfigError, match="must"):
        mixed(arguments.pop("num_samples"), **arguments)


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("seed", range(8))
def test_chunks_hold_each_run_from_its_first_draw_to_its_last(seed, stop):
    """MixRows names the row of every position, and a run's rows with every chunk while the lane is in it."""
    random_ = random.Random(f"{seed} {stop}")
    sizes = [[random_.randint(0, 90) for _ in range(random_.randint(1, 6))] + [40] for _ in range(3)]
    mix = mixed([sum(counts) for counts in sizes], [0.01, 0.3, 0.69], stop=stop, lanes=random_.choice([1, 4, 8]))
    orders = orders_of(mix, sizes, window=random_.choice([8, 64, 200]))
    begin, step = random_.randrange(mix.num_samples), random_.choice([1, 3, 4])
    positions = range(begin, mix.num_samples + 5, step)
    inside = range(begin, mix.num_samples, step)
    begun, ended, rows = set(), set(), []
    for chunk in MixRows(mix, orders).chunks(positions, 32):
        if stop == "rest" and len(rows) < len(inside):  # otherwise the same rows may well come again
            assert not ended & set(chunk.spans), "a run came back"
        ended |= begun - set(chunk.spans)
        begun |= set(chunk.spans)
        for shard, row in zip(chunk.shard.tolist(), chunk.row.tolist()):
            assert any(one == shard and first <= row < end for one, first, end in chunk.spans)
            rows.append((shard >> SHARD_BITS, shard % 2**SHARD_BITS, row))
    expected = []
    for part in (inside, range((begin - mix.num_samples) % step, positions.stop - mix.num_samples, step)):
        for source, turn, line in zip(*(values.tolist() for values in mix_schedule.lines(mix, orders, part))):
            shard, row = orders(source, turn).locate([line])
            expected.append((source, int(shard[0]), int(row[0])))
    assert rows == expected

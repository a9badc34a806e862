"""The index cipher, the lanes and the positions, against their twin and against chance."""

import collections
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shardstream._native import order as native
from tests.twins import order as twin

WORD = st.integers(0, 2**64 - 1)


def permutations(n, num_keys):
    """int64[num_keys, n]: the cipher on [0, n) under keys that differ as those of neighbouring runs do."""
    everything = np.arange(n)
    head = native.key(n)
    return np.stack([native.permute(native.key(k, head=head), n, everything) for k in range(num_keys)])


def excess(statistic, freedom):
    """How many standard deviations a chi-square statistic lies above its mean."""
    return (statistic - freedom) / math.sqrt(2 * freedom)


@given(st.lists(WORD, max_size=6), st.integers(0, 6))
def test_a_key_is_its_twins_and_continues_from_any_head(words, cut):
    """Keys are the documented chain of splitmix64 steps, and a key continues its head."""
    assert native.key(*words) == twin.key(*words)
    assert native.key(*words[cut:], head=native.key(*words[:cut])) == twin.key(*words)


@settings(max_examples=200, deadline=None)
@given(WORD, st.one_of(st.integers(1, 200), st.integers(1, 2**62 - 1)), st.lists(WORD, max_size=70))
@example(0, 2**62 - 1, [0, 2**62 - 2])
@example(0, 2**61 + 1, [2**61])
def test_the_cipher_is_its_twins(key, n, indices):
    """Any index under any key and size maps as in the twin, by SIMD or not."""
    indices = [index % n for index in indices]
    assert native.permute(key, n, indices).tolist() == [twin.permute(key, n, index) for index in indices]


@pytest.mark.parametrize("n", [*range(1, 300), 4095, 4096, 4097, 65537])
def test_the_cipher_is_a_bijection(n):
    """Every number below n is the image of exactly one number below n."""
    assert np.array_equal(np.sort(native.permute(native.key(n), n, np.arange(n))), np.arange(n))


@pytest.mark.parametrize("n", [2, 3, 4, 5, 6])
def test_all_orders_of_few_elements_are_equally_likely(n):
    """Over many keys each of the n! orders comes as often as by chance."""
    num_orders = math.factorial(n)
    drawn = permutations(n, 100 * num_orders) @ n ** np.arange(n)
    counts = np.array(list(collections.Counter(drawn.tolist()).values()))
    assert len(counts) == num_orders
    assert excess(((counts - 100) ** 2 / 100).sum(), num_orders - 1) < 4.5


@pytest.mark.parametrize("n", [7, 9, 12, 16, 33, 63, 64, 65, 100, 128, 170, 200])
def test_places_differences_and_lags_are_those_of_chance(n):
    """Over 3,000 keys no element prefers a place, no neighbours a difference, and lags do not correlate."""
    drawn = permutations(n, 3000)
    counts = np.stack([np.bincount(column, minlength=n) for column in drawn.T])
    expected = len(drawn) / n
    # The rows and columns of the counts have fixed sums, which takes (n - 1) / n off each cell's variance.
    assert excess(((counts - expected) ** 2 / expected).sum() * (n - 1) / n, (n - 1) ** 2) < 4.5
    centred = drawn - (n - 1) / 2
    for lag in (1, 2, 3):
        steps = np.bincount(((drawn[:, lag:] - drawn[:, :-lag]) % n).ravel(), minlength=n)[1:]
        assert excess(((steps - steps.mean()) ** 2 / steps.mean()).sum(), n - 2) < 5.5
        correlation = (centred[:, lag:] * centred[:, :-lag]).mean() / (centred**2).mean()
        assert abs(correlation + 1 / (n - 1)) < 5 / math.sqrt(len(drawn) * (n - lag))


@pytest.mark.parametrize("n", [200, 1 << 20, 10**12])
def test_one_bit_of_the_key_changes_the_whole_order(n):
    """Flipping any bit of the key leaves only as many elements in place as chance does."""
    indices = np.arange(200)
    before = native.permute(native.key(n), n, indices)
    kept = [(native.permute(native.key(n) ^ (1 << bit), n, indices) == before).sum() for bit in range(64)]
    assert sum(kept) <= 64 * 200 / n + 5 * math.sqrt(64 * 200 / n) + 2


def test_huge_domains_spread_neighbours():
    """Neighbours in a domain of 10^12 lie as far apart as random pairs, and differ in half of the bits."""
    n = 10**12
    image = native.permute(7, n, np.arange(20_000))
    assert abs(np.abs(np.diff(image)).mean() / (n / 3) - 1) < 0.03
    flips = (
        np.unpackbits((image[1:] ^ image[:-1]).view(np.uint8)).reshape(-1, 64).mean(0).reshape(8, 8)[:, ::-1].ravel()
    )
    assert np.all(np.abs(flips[:36] - 0.5) < 0.03)


@settings(max_examples=25, deadline=None)
@given(WORD, st.one_of(st.integers(1, 130), st.sampled_from([192, 384, 997, 1536])))
def test_lanes_are_their_twins(key, num_lanes):
    """The interval of each lane is the keyed digit reversal of the twin, and a bijection."""
    interval = native.intervals(key, num_lanes)
    assert interval.tolist() == twin.intervals(key, num_lanes)
    assert np.array_equal(np.sort(interval), np.arange(num_lanes))


@settings(max_examples=120, deadline=None)
@given(WORD, st.integers(0, 3000), st.integers(1, 100), st.integers(1, 1000), st.data())
def test_positions_are_their_twins(seed, num_samples, num_lanes, window, data):
    """Any range of positions by any step gives the line indices of the twin."""
    begin = data.draw(st.integers(0, num_samples))
    end = data.draw(st.integers(begin, num_samples))
    step = data.draw(st.integers(1, 2 * num_lanes))
    lane_begin = np.array(twin.lane_begins(seed, 0, num_samples, num_lanes))
    run_length = max(window // num_lanes, 1)
    line = native.Epoch(twin.key(seed, 0, twin.RUNS), num_samples, run_length, lane_begin).line(begin, end, step)
    positions = list(range(begin, end, step))
    for i in {0, 1, 2, len(line) // 3, len(line) // 2, len(line) - 2, len(line) - 1} & set(range(len(line))):
        assert line[i] == twin.line(seed, 0, num_samples, num_lanes, window, positions[i])
    assert len(line) == len(positions)


@settings(max_examples=100, deadline=None)
@given(WORD, st.integers(1, 20_000), st.integers(1, 100), st.integers(1, 5000), st.data())
def test_a_call_is_the_sum_of_its_parts(key, num_samples, num_lanes, run_length, data):
    """A range in one call equals the whole epoch's, cut; and the whole is a permutation of the line."""
    long = np.arange(num_lanes) < num_samples % num_lanes
    lane_begin = np.cumsum(num_samples // num_lanes + long) - (num_samples // num_lanes + long)
    epoch = native.Epoch(key, num_samples, run_length, lane_begin)
    whole = epoch.line(0, num_samples, 1)
    begin = data.draw(st.integers(0, num_samples))
    end = data.draw(st.integers(begin, num_samples))
    step = data.draw(st.integers(1, 300))
    assert np.array_equal(epoch.line(begin, end, step), whole[begin:end:step])
    assert np.array_equal(np.sort(whole), np.arange(num_samples))
    positions = np.array(data.draw(st.lists(st.integers(0, num_samples - 1), max_size=200)), np.int64)
    assert np.array_equal(epoch.lines(positions), whole[positions])
    by_lane = np.concatenate([np.arange(lane, num_samples, num_lanes) for lane in range(num_lanes)])
    assert np.array_equal(epoch.lines(by_lane), whole[by_lane])


@settings(max_examples=100, deadline=None)
@given(WORD, st.lists(st.tuples(st.integers(0, 2000), st.integers(-1, 1100)), min_size=1, max_size=8))
def test_draws_of_a_block_are_their_twins(key, sources):
    """Any quotas and any rests give the sources and ranks of the twin."""
    shares = np.array([share for share, _ in sources]) + 1
    quotas = np.diff(np.concatenate([[0], np.cumsum(shares) * native.DRAWS // shares.sum()]))
    available = np.array([left for _, left in sources])
    drawn, ranks = native.draws(key, quotas, available)
    assert list(zip(drawn.tolist(), ranks.tolist(), strict=True)) == twin.draws(
        key, quotas.tolist(), available.tolist()
    )


@pytest.mark.parametrize(
    "quotas, available",
    [([], []), ([1023], [5]), ([1025], [5]), ([1025, -1], [5, 5]), ([1024], [5, 5]), ([4] * 257, [0] * 257)],
)
def test_draws_refuse_quotas_that_are_no_block(quotas, available):
    """Quotas that are negative, of a wrong sum or number are a ValueError."""
    with pytest.raises(ValueError, match="must be"):
        native.draws(0, np.array(quotas, np.int64), np.array(available, np.int64))


@pytest.mark.parametrize(
    "arguments",
    [
        (10, 0, [0], 0, 10, 1),
        (10, 1, [11], 0, 10, 1),
        (10, 1, [-1], 0, 10, 1),
        (10, 2, [0], 0, 11, 1),
        (10, 2, [0], -1, 9, 1),
        (10, 2, [0], 5, 4, 1),
        (10, 2, [0], 0, 10, 0),
        (10, 2, [0], 0, 10, -1),
        (2**62, 2, [0], 0, 1, 1),
        (10, 2, [], 0, 10, 1),
        (10, 2**62 - 1, [0, 5], 0, 10, 1),
    ],
)
def test_illegal_arguments_are_refused(arguments):
    """Ranges that do not hold are a ValueError, not a read out of bounds."""
    num_samples, run_length, lane_begin, begin, end, step = arguments
    with pytest.raises(ValueError, match="must"):
        native.Epoch(1, num_samples, run_length, np.array(lane_begin, np.int64)).line(begin, end, step)


@pytest.mark.parametrize("position", [-1, 10, 2**62])
def test_positions_outside_the_epoch_are_refused(position):
    """One position outside is a ValueError for the whole call."""
    with pytest.raises(ValueError, match="must lie in"):
        native.Epoch(1, 10, 2, np.array([0, 5])).lines(np.array([3, position]))


@pytest.mark.parametrize("n, indices", [(0, []), (-1, []), (2**62, [0]), (5, [5]), (5, [0, -1])])
def test_the_cipher_refuses_what_is_outside_its_domain(n, indices):
    """Sizes outside [1, 2^62) and indices outside [0, n) are errors."""
    with pytest.raises(ValueError, match="must"):
        native.permute(1, n, indices)

"""Twin of ``csrc/lib/order.c`` and ``shardstream/order/``: plain Python integers, one position at a time.

Written from docs/FORMAT.md section 7 alone; it is the shortest complete statement of the order.
"""

import functools

MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15
RUNS, SHARDS, LANES, MIX = 1, 2, 3, 4


def mix64(x):
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & MASK
    return x ^ (x >> 31)


def key(*words):
    state = 0
    for word in words:
        state = mix64(((state ^ word % 2**64) + GOLDEN) & MASK)
    return state


def permute(cipher_key, n, index):
    """The image of ``index`` under the cipher of ``cipher_key`` on [0, n)."""
    column_bits = (n - 1).bit_length() // 2
    num_columns = 2**column_bits
    num_rows = -(-n // num_columns)
    num_rounds = 24 if n < 64 else 8
    stream = [mix64((cipher_key + (i + 1) * GOLDEN) & MASK) for i in range(num_rounds // 2)]
    round_keys = [half for word in stream for half in (word % 2**32, word >> 32)]

    def round_hash(half, round_key, size):
        t = ((half + round_key) % 2**32) * 0xCC9E2D51
        return (((t ^ t >> 32) % 2**32 * 0x9E3779B1) % 2**32) * size >> 32

    while True:
        row, column = divmod(index, num_columns)
        for j in range(0, num_rounds, 2):
            row = (row + round_hash(column, round_keys[j], num_rows)) % num_rows
            column = (column + round_hash(row, round_keys[j + 1], num_columns)) % num_columns
        index = row * num_columns + column
        if index < n:
            return index


def smallest_factor(n):
    return next((factor for factor in range(2, n) if n % factor == 0), n)


def intervals(cipher_key, num_lanes):
    """Which of the equal intervals of the line is each lane."""
    result = []
    for lane in range(num_lanes):
        interval, prefixes, left = 0, 1, num_lanes
        while left > 1:
            factor = smallest_factor(left)
            left //= factor
            node = mix64(((mix64(((cipher_key ^ prefixes) + GOLDEN) & MASK) ^ lane % prefixes) + GOLDEN) & MASK)
            interval += left * permute(node, factor, lane // prefixes % factor)
            prefixes *= factor
        result.append(interval)
    return result


@functools.cache
def lane_begins(seed, epoch, num_samples, num_lanes, phase=0):
    interval = intervals(key(seed, epoch, LANES), num_lanes)
    interval = [interval[(lane + phase) % num_lanes] for lane in range(num_lanes)]
    length = {interval[lane]: num_samples // num_lanes + (lane < num_samples % num_lanes) for lane in range(num_lanes)}
    return [sum(length[i] for i in range(interval[lane])) for lane in range(num_lanes)]


def line(seed, epoch, num_samples, num_lanes, window, position, phase=0):
    """The line index of one position."""
    lane, depth = position % num_lanes, position // num_lanes
    run_length = max(window // num_lanes, 1)
    run, index = divmod(depth, run_length)
    lane_length = num_samples // num_lanes + (lane < num_samples % num_lanes)
    length = min(run_length, lane_length - run * run_length)
    place = permute(key(seed, epoch, RUNS, lane, run), length, index)
    return lane_begins(seed, epoch, num_samples, num_lanes, phase)[lane] + run * run_length + place


def sample(seed, epoch, shard_num_samples, num_lanes, window, position, phase=0):
    """(shard ordinal, row) of one position."""
    rest = line(seed, epoch, sum(shard_num_samples), num_lanes, window, position, phase)
    num_shards = len(shard_num_samples)
    for i in range(num_shards):
        shard = permute(key(seed, epoch, SHARDS), num_shards, i)
        if rest < shard_num_samples[shard]:
            return shard, rest
        rest -= shard_num_samples[shard]
    raise IndexError(position)


def draws(cipher_key, quotas, available):
    """[(source, rank)] of a block of 1,024 draws of a mixture, those past what is available left out."""
    source_of = [source for source, quota in enumerate(quotas) for _ in range(quota)]
    seen, result = [0] * len(quotas), []
    for i in range(1024):
        source = source_of[permute(cipher_key, 1024, i)]
        if seen[source] < available[source]:
            result.append((source, seen[source]))
        seen[source] += 1
    return result

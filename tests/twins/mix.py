"""Twin of ``shardstream/order/mix.py``: the mixture drawn one sample at a time, nothing looked up.

Written from docs/FORMAT.md section 7.6.
"""

from fractions import Fraction

from tests.twins.order import MIX, draws, key


def integer_weights(weights):
    exact = [Fraction(weight) * 2**20 / sum(map(Fraction, weights)) for weight in weights]
    whole = [max(int(one), 1) if one else 0 for one in exact]
    for i in sorted(range(len(whole)), key=lambda i: (whole[i] - exact[i], i)):
        if sum(whole) < 2**20:
            whole[i] += 1
    whole[whole.index(max(whole))] += 2**20 - sum(whole)
    return whole


def quotas(weights, block):
    """Draws of each source in one block."""
    result, begin = [], 0
    for weight in integer_weights(weights):
        fill = {int(f"{slot % 1024:010b}"[::-1], 2) for slot in range(begin, begin + weight % 1024)}
        result.append(weight // 1024 + (block % 1024 in fill))
        begin += weight % 1024
    return result


def lane(num_samples, seed, epoch, num_lanes, pieces, stop, lane):
    """Yield (position, source, course position) of one lane until it has nothing more to draw."""
    bases = [sum(num_samples[:source]) for source in range(len(num_samples))]
    taken = [0] * len(num_samples)
    depth = 0

    def course(source, draw):
        return (lane - bases[source]) % num_lanes + draw * num_lanes

    for number, (_, weights) in enumerate(pieces):
        end = pieces[number + 1][0] if number + 1 < len(pieces) else None
        block = 0
        while end is None or depth * num_lanes + lane < end:
            everything = [10**9] * len(num_samples)
            for source, _ in draws(key(seed, epoch, MIX, lane, number, block), quotas(weights, block), everything):
                if end is not None and depth * num_lanes + lane >= end:
                    break
                used_up = course(source, taken[source]) >= num_samples[source]
                if used_up and stop == "rest":
                    continue
                if used_up and stop == "first":
                    return
                yield depth * num_lanes + lane, source, course(source, taken[source])
                taken[source] += 1
                depth += 1
                complete = all(course(s, taken[s]) >= num_samples[s] for s in range(len(num_samples)) if weights[s])
                if complete and stop == "rest":
                    return
            block += 1


def mixture(num_samples, seed, epoch, num_lanes, pieces, stop, limit):
    """The first positions, fewer than ``limit``, as {position: (source, course position)}; all lanes side by side."""
    found, ends = {}, []
    for number in range(num_lanes):
        if (
            stop == "rest"
            and sum(
                len(range((number - sum(num_samples[:s])) % num_lanes, n, num_lanes)) for s, n in enumerate(num_samples)
            )
            == 0
        ):
            continue
        drawn = lane(num_samples, seed, epoch, num_lanes, pieces, stop, number)
        last = None
        for position, source, course in drawn:
            last = position
            if position >= limit:
                break
            found[position] = (source, course)
        else:
            ends.append(number if last is None else last + num_lanes)
    end = min(ends, default=limit) if stop == "first" else limit
    return {position: draw for position, draw in found.items() if position < end}

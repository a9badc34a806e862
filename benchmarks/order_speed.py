"""What the order costs: opening a huge epoch, a position, a block of the schedule, a draw of a mixture.

    python benchmarks/order_speed.py

Best of several turns, since other work on the machine only ever adds.
"""

from __future__ import annotations

import itertools
import time
import tracemalloc
from collections.abc import Callable

import numpy as np

from shardstream.order import mix_schedule, schedule
from shardstream.order.epoch import EpochOrder
from shardstream.order.mix import MixOrder, Piece

SIZES = np.full(1_000_000, 10_000)  # 10^10 samples
BLOCK_STARTS = np.arange(0, 10_001, 500)


def best_seconds(action: Callable[[], object], turns: int = 7) -> float:
    """Return the shortest time that ``action`` took."""
    seconds = []
    for _ in range(turns):
        begin = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def open_at(share: float) -> np.ndarray:
    """Open the epoch and read one window at this share of it."""
    order = EpochOrder(SIZES, seed=1, epoch=0, lanes=96, window=16_384, shuffle=True)
    begin = int(share * (order.num_samples - order.window))
    first = list(itertools.islice(schedule.blocks(order, range(begin, order.num_samples), lambda shard: BLOCK_STARTS), 200))
    return order.line(begin, begin + order.window), first


def main() -> None:
    for share in (0.0, 0.5, 0.99):
        print(f"open 1,000,000 shards, 10^10 samples, first window and 200 blocks at {share:4.0%}: {best_seconds(lambda s=share: open_at(s), 3):.3f} s")
    tracemalloc.start()
    open_at(0.5)
    print(f"peak memory of that: {tracemalloc.get_traced_memory()[1] / 1e6:.0f} MB (the shards' sizes themselves: {SIZES.nbytes / 1e6:.0f} MB)")
    tracemalloc.stop()

    order = EpochOrder(SIZES, seed=1, epoch=0, lanes=96, window=16_384, shuffle=True)
    print(f"permute 1,000,000 shards: {best_seconds(lambda: EpochOrder(SIZES, seed=2, epoch=0, lanes=96, window=96, shuffle=True).shard_permutation) * 1e3:.1f} ms")
    for num, step in ((1_000_000, 1), (order.window, 1), (order.window * 8, 8), (256, 1)):
        count = len(range(0, num, step))
        seconds = best_seconds(lambda end=num, by=step: order.line(5, end + 5, by), 50)
        print(f"line of {count:>9,} positions, step {step}: {seconds / count * 1e9:6.1f} ns a position")
    lines = order.line(0, order.window)
    print(f"locate: {best_seconds(lambda: order.locate(lines)) / len(lines) * 1e9:.0f} ns a position among 1,000,000 shards")
    blocks = schedule.blocks(order, range(order.num_samples), lambda shard: BLOCK_STARTS)
    print(f"schedule: {best_seconds(lambda: list(itertools.islice(blocks, 5000))) / 5000 * 1e6:.1f} us a block")

    mix = MixOrder((10**9, 10**8), seed=1, epoch=0, lanes=96, pieces=[Piece(0, (0.7, 0.3))], stop="rest")
    begins = itertools.count(0, 98_304)
    print(f"mixture: {best_seconds(lambda: mix.draws(range(b := next(begins), b + 98_304))) / 98_304 * 1e9:.0f} ns a draw")
    sources = [EpochOrder([10_000] * (n // 10_000), seed=s, epoch=0, lanes=96, window=16_384, shuffle=True, phase=mix.phase(s, 0))
               for s, n in enumerate(mix.source_num_samples)]  # fmt: skip
    action = lambda: mix_schedule.lines(mix, lambda source, repetition: sources[source], range(b := next(begins), b + 98_304))  # noqa: E731
    print(f"mixture with the sources' lines: {best_seconds(action) / 98_304 * 1e9:.0f} ns a position")


if __name__ == "__main__":
    main()

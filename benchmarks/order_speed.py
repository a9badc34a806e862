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

from shardstream._native import order as native
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


def open_at(share: float) -> tuple[np.ndarray, list]:
    """Open the epoch and read one window at this share of it."""
    order = EpochOrder(SIZES, seed=1, epoch=0, lanes=96, window=16_384, shuffle=True)
    begin = int(share * (order.num_samples - order.window))
    first = list(
        itertools.islice(schedule.blocks(order, range(begin, order.num_samples), lambda shard: BLOCK_STARTS), 200)
    )
    return order.line(begin, begin + order.window), first


def report(what: str, seconds: float, num: int, unit: str = "ns") -> None:
    """Print what one of ``num`` costs."""
    print(f"{what:<58}{seconds / num * {'ns': 1e9, 'us': 1e6, 'ms': 1e3}[unit]:>10.1f} {unit}")


def one_source() -> None:
    for share in (0.0, 0.5, 0.99):
        report(
            f"open at {share:.0%}: first window and 200 blocks", best_seconds(lambda at=share: open_at(at), 3), 1, "ms"
        )
    tracemalloc.start()
    open_at(0.5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    print(f"{'  peak memory of that':<58}{peak / 1e6:>10.1f} MB ({SIZES.nbytes / 1e6:.0f} MB are the shards' sizes)")
    order = EpochOrder(SIZES, seed=1, epoch=0, lanes=96, window=16_384, shuffle=True)
    ordinals = np.arange(len(SIZES))
    report("permute 1,000,000 shards", best_seconds(lambda: native.permute(7, len(SIZES), ordinals)), 1, "ms")
    for num, step in ((1_000_000, 1), (order.window, 1), (order.window * 8, 8), (256, 1)):
        count = len(range(0, num, step))
        seconds = best_seconds(lambda end=num, by=step: order.line(5, end + 5, by), 50)
        report(f"a position, {count:,} a call, step {step}", seconds, count)
    lines = order.line(0, order.window)
    report("locate a position among 1,000,000 shards", best_seconds(lambda: order.locate(lines)), len(lines))
    blocks = schedule.blocks(order, range(order.num_samples), lambda shard: BLOCK_STARTS)
    report("a block of the schedule", best_seconds(lambda: list(itertools.islice(blocks, 5000))), 5000, "us")


def mixture() -> None:
    mix = MixOrder((10**9, 10**8), seed=1, epoch=0, lanes=96, pieces=[Piece(0, (0.7, 0.3))], stop="rest")
    sources = [
        EpochOrder(
            [10_000] * (num // 10_000),
            seed=1,
            epoch=0,
            lanes=96,
            window=16_384,
            shuffle=True,
            phase=mix.phase(source, 0),
        )
        for source, num in enumerate(mix.source_num_samples)
    ]
    num = mix.lanes * 1024
    turns = itertools.count()

    def draws():
        begin = next(turns) * num
        return mix.draws(range(begin, begin + num))

    def lines():
        begin = next(turns) * num
        return mix_schedule.lines(mix, lambda source, repetition: sources[source], range(begin, begin + num))

    report("a draw of a mixture of two", best_seconds(draws), num)
    report("a draw and its line in the source", best_seconds(lines), num)


if __name__ == "__main__":
    print(f"{len(SIZES):,} shards, {SIZES.sum():,} samples, 96 lanes, window 16,384")
    one_source()
    mixture()

"""How well lanes and windows shuffle a class-sorted dataset, against a true permutation of all of it.

    python benchmarks/shuffle_quality.py [--plot shuffle_quality.png]

The worst case for a streaming shuffle: 200 shards in which the samples stand sorted by class. For each
batch the entropy of its labels is compared with that of batches drawn by a global permutation. 100%
is a true shuffle; 0% is batches of one class. The memory column is what all readers of the job hold
together: the most blocks (1 MiB) that the schedule needs at one position.

What to read off: lanes decide, the window hardly matters where a shard is longer than a run. A batch holds
samples of about as many shards as there are lanes, so with more classes than lanes and batches of
thousands the entropy stops at log2(lanes); raising lanes= lifts it, at 1 MiB a lane. (Small batches pass
100%: consecutive lanes lie spread over the whole epoch, which is more even than chance.)

Ends with status 1 unless the default is within 10% of the global permutation in batches of up to 256 with
up to one class a shard.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter

import numpy as np

from shardstream.order import schedule
from shardstream.order.epoch import DEFAULT_LANES, DEFAULT_WINDOW, EpochOrder

NUM_SHARDS = 200
SAMPLES_PER_SHARD = 2500
SAMPLES_PER_BLOCK = 512  # 2 kB a sample, as 1,024 uint16 tokens
BATCH_SIZES = (32, 256, 1024)
NUM_CLASSES = (10, 200, 1000)
LANES = (1, 32, 96, 192, 384)
WINDOWS = (1, 4096, 16_384, 65_536)


def batch_entropies(labels: np.ndarray, batch_size: int, num_classes: int) -> np.ndarray:
    """Return the label entropy in bits of each whole batch of ``labels``."""
    batches = labels[: len(labels) // batch_size * batch_size].reshape(-1, batch_size)
    rows = np.repeat(np.arange(len(batches)), batch_size)
    shares = np.bincount(rows * num_classes + batches.ravel(), minlength=len(batches) * num_classes) / batch_size
    shares = shares.reshape(len(batches), num_classes)
    return -(shares * np.log2(np.where(shares > 0, shares, 1))).sum(axis=1)


def peak_blocks(order: EpochOrder) -> int:
    """Return the most blocks that are needed at one position of the epoch."""
    starts = np.append(np.arange(0, SAMPLES_PER_SHARD, SAMPLES_PER_BLOCK), SAMPLES_PER_SHARD)
    changes: Counter[int] = Counter()
    for need in schedule.blocks(order, range(order.num_samples), lambda shard: starts):
        changes[need.first_position] += 1
        changes[need.end_position] -= 1
    return int(np.cumsum([changes[position] for position in sorted(changes)]).max())


def measure(lanes: int, window: int, seeds: range = range(2)) -> tuple[dict[tuple[int, int], float], int]:
    """Return ``({(num_classes, batch_size): share of a global permutation's entropy}, peak blocks)``."""
    num_samples = NUM_SHARDS * SAMPLES_PER_SHARD
    shares: dict[tuple[int, int], list[float]] = {}
    for seed in seeds:
        order = EpochOrder(
            [SAMPLES_PER_SHARD] * NUM_SHARDS, seed=seed, epoch=0, lanes=lanes, window=window, shuffle=True
        )
        shard, row = order.locate(order.line(0, num_samples))
        truth = np.random.default_rng(seed).permutation(num_samples)
        for num_classes in NUM_CLASSES:
            labels = (shard * SAMPLES_PER_SHARD + row) * num_classes // num_samples
            for batch_size in BATCH_SIZES:
                ours = batch_entropies(labels, batch_size, num_classes).mean()
                ideal = batch_entropies(truth * num_classes // num_samples, batch_size, num_classes).mean()
                shares.setdefault((num_classes, batch_size), []).append(ours / ideal)
    return {case: float(np.mean(values)) for case, values in shares.items()}, peak_blocks(order)


def report(results: dict[tuple[int, int], tuple[dict, int]]) -> None:
    """Print one row for each lanes and window."""
    cases = [(num_classes, batch_size) for num_classes in NUM_CLASSES for batch_size in BATCH_SIZES]
    print(
        f"{NUM_SHARDS} class-sorted shards of {SAMPLES_PER_SHARD} samples; "
        "batch label entropy, % of a global permutation's\n"
    )
    print(
        f"{'':>22}"
        + "".join(f"{f'{num_classes} classes':^{8 * len(BATCH_SIZES)}}" for num_classes in NUM_CLASSES)
        + f"{'memory':>9}"
    )
    print(
        f"{'lanes':>6}{'window':>9}{'batch':>7}"
        + "".join(f"{batch_size:>8}" for _, batch_size in cases)
        + f"{'MiB':>9}"
    )
    for (lanes, window), (shares, blocks) in results.items():
        mark = "  <- default" if (lanes, window) == (DEFAULT_LANES, DEFAULT_WINDOW) else ""
        print(
            f"{lanes:>6}{window:>9}{'':>7}"
            + "".join(f"{100 * shares[case]:>8.1f}" for case in cases)
            + f"{blocks:>9}{mark}"
        )


def plot(results: dict[tuple[int, int], tuple[dict, int]], path: str) -> None:
    """Write a figure: share of the ideal entropy over the window, a line for each number of lanes."""
    try:
        from matplotlib import pyplot
    except ImportError:
        print(f"\n{path} not written: matplotlib is not installed (pip install 'shardstream[plot]')")
        return
    figure, axes = pyplot.subplots(1, len(NUM_CLASSES), figsize=(13, 4), sharey=True, layout="constrained")
    for axis, num_classes in zip(axes, NUM_CLASSES, strict=True):
        for lanes in LANES:
            values = [100 * results[lanes, window][0][num_classes, 256] for window in WINDOWS]
            axis.plot(WINDOWS, values, marker="o", label=f"{lanes} lanes")
        axis.axhline(90, color="grey", linestyle=":")
        axis.set(xscale="log", xlabel="window (samples)", title=f"{num_classes} classes, batches of 256")
    axes[0].set(ylabel="label entropy, % of a global permutation's", ylim=(0, 110))
    axes[-1].legend(loc="lower right")
    figure.savefig(path, dpi=120)
    print(f"\nwrote {path}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--plot", help="write a figure to this PNG file")
    arguments = parser.parse_args()
    results = {(lanes, window): measure(lanes, window) for lanes in LANES for window in WINDOWS}
    report(results)
    if arguments.plot:
        plot(results, arguments.plot)
    shares = results[DEFAULT_LANES, DEFAULT_WINDOW][0]
    worst = min(
        share for (num_classes, batch_size), share in shares.items() if num_classes <= NUM_SHARDS and batch_size <= 256
    )
    print(f"\ndefault ({DEFAULT_LANES} lanes, window {DEFAULT_WINDOW}): at least {100 * worst:.1f}% "
          f"with up to {NUM_SHARDS} classes and batches of up to 256")  # fmt: skip
    return 0 if worst >= 0.9 else 1


if __name__ == "__main__":
    sys.exit(main())

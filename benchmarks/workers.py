"""What worker processes bring where samples pass through Python: samples/s by number of workers (make bench-workers).

    python benchmarks/workers.py [--workers 0 1 2] [--seconds 0.3] [--folder DIR]

Three row-wise transforms, a cheap, a middling and a dear one, over samples of 2 kB in batches of 256, shuffled, in a
process of its own for each number of workers; the page cache is warm. The numbers take short turns, 15 each, since a
machine that others share changes its speed within seconds; medians count, of samples/s and of the ratio to the first
number in the same round. Exits with 1 if two workers are slower than none on any of them. Workers need cores: on a
machine with fewer than three free, expect little.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

import shardstream as ss

BATCH, NUM_SAMPLES, LENGTH, ROUNDS, NUM_AHEAD = 256, 20_000, 1024, 15, 16


def rename(sample: dict) -> dict:
    """Some 5 us: no arithmetic."""
    return {"tokens": sample["x"][:-1], "targets": sample["x"][1:]}


def mask(sample: dict) -> dict:
    """Some 20 us: a few small numpy calls."""
    values = sample["x"].numpy()
    return {"x": np.where(values % 7 == 0, 0, values), "length": int((values != 0).sum())}


def words(sample: dict) -> dict:
    """Some 200 us: Python over elements."""
    values = sample["x"].tolist()
    return {"x": sample["x"], "distinct": len(set(values)), "sum": sum(value * value for value in values)}


TRANSFORMS = {function.__name__: function for function in (rename, mask, words)}


def child(folder: str, name: str, num_workers: str, seconds: str) -> None:
    """Answer each line of standard input with the samples/s of as many seconds."""
    stream = ss.ShardStream(folder, batch_size=BATCH, shuffle=True, epochs=None, transform=TRANSFORMS[name])
    batches = iter(ss.StreamLoader(stream, num_workers=int(num_workers)))
    for _ in range(NUM_SAMPLES // BATCH // 4):  # workers have begun
        next(batches)
    print("ready", flush=True)
    for _ in sys.stdin:
        for _ in range(NUM_AHEAD):  # made while others had their turns
            next(batches)
        begin, count = time.perf_counter(), 0
        while time.perf_counter() - begin < float(seconds):
            count += len(next(iter(next(batches).values())))
        print(count / (time.perf_counter() - begin), flush=True)


def measure(folder: str, name: str, workers: list[int], seconds: float) -> dict[int, list[float]]:
    """Return the samples/s of each round by number of workers."""
    speeds: dict[int, list[float]] = {number: [] for number in workers}
    with contextlib.ExitStack() as stack:
        children = {}
        for number in workers:
            command = [sys.executable, __file__, "--child", folder, name, str(number), str(seconds)]
            children[number] = stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        for process in children.values():
            process.stdout.readline()  # it is ready
        for _ in range(ROUNDS):
            for number, process in children.items():
                process.stdin.write("go\n")
                process.stdin.flush()
                speeds[number].append(float(process.stdout.readline()))
        for process in children.values():
            process.stdin.close()
    return speeds


def ratios(speeds: list[float], base: list[float]) -> tuple[float, float, float]:
    """Return the quartiles of one number's speeds as shares of another's in the same round."""
    low, median, high = statistics.quantiles([speed / of_base for speed, of_base in zip(speeds, base)], n=4)
    return low, median, high


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--seconds", type=float, default=0.3, help="of one turn")
    parser.add_argument("--folder", help="where samples are written; by default the folder for temporary files")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(*args.child)
        return 0
    is_met = True
    with tempfile.TemporaryDirectory(prefix="shardstream-workers-", dir=args.folder) as folder:
        rng = np.random.default_rng(1)
        with ss.ShardWriter(folder, schema=ss.Schema(x=ss.Dense("uint16", (LENGTH,)))) as writer:
            writer.write_batch({"x": rng.integers(0, 50_000, (NUM_SAMPLES, LENGTH), np.uint16)})
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; samples/s")
        for name in TRANSFORMS:
            speeds = measure(folder, name, args.workers, args.seconds)
            shares = {number: ratios(of_number, speeds[args.workers[0]]) for number, of_number in speeds.items()}
            shown = ", ".join(f"{number}: {statistics.median(speeds[number]):,.0f} ({median:.2f}, quartiles {low:.2f} and {high:.2f})"
                              for number, (low, median, high) in shares.items())  # fmt: skip
            print(f"  {name:8} workers {shown}", flush=True)
            if {0, 2} <= speeds.keys():
                is_met = is_met and ratios(speeds[2], speeds[0])[1] >= 1
    print("two workers are not slower than none" if is_met else "MISSED: two workers are slower than none")
    return 0 if is_met else 1


if __name__ == "__main__":
    sys.exit(main())

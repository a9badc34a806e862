"""Time to the first batch: a cold start beside resumes at 1%, 50% and 99% of an epoch of 5 million samples.

    python benchmarks/resume.py [--num-samples 5000000] [--turns 9]

Each turn opens the dataset anew, by a new stream in this process, with torch imported and the files in the page cache:
a cold start without either would only be slower, and the ratio smaller. The places take turns; medians count.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time

import numpy as np
import torch

import shardstream as ss

PLACES = {"cold start": 0.0, "at 1%": 0.01, "at 50%": 0.5, "at 99%": 0.99}
BATCH_SIZE = 256
BUDGET = 1.2


def write(url: str, num_samples: int) -> None:
    """Write samples of a label and 16 bytes."""
    step = 100_000
    with ss.ShardWriter(url, schema=ss.Schema(x=ss.Dense("uint8", (16,)), y=ss.Dense("int64")),
                        shard_nbytes="16MB") as writer:  # fmt: skip
        for begin in range(0, num_samples, step):
            y = np.arange(begin, min(begin + step, num_samples))
            writer.write_batch({"x": np.repeat(y.astype(np.uint8)[:, None], 16, axis=1), "y": y})


def first_batch_s(url: str, share: float, num_samples: int, state: dict) -> float:
    """Return the seconds from nothing to the first batch at this share of the epoch."""
    position = int(share * num_samples) // BATCH_SIZE * BATCH_SIZE + 1 if share else 0  # not at a window's edge
    begun = time.perf_counter()
    loader = ss.StreamLoader(ss.ShardStream(url, batch_size=BATCH_SIZE, shuffle=True, seed=1))
    if share:
        loader.load_state_dict({**state, "position": position})
    batches = iter(loader)
    batch = next(batches)
    seconds = time.perf_counter() - begun
    assert len(batch["y"]) == BATCH_SIZE and loader.state_dict()["position"] == position + BATCH_SIZE
    batches.close()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--num-samples", type=int, default=5_000_000)
    parser.add_argument("--turns", type=int, default=9)
    options = parser.parse_args()
    print(f"{platform.platform()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}; Python {platform.python_version()}, "
          f"torch {torch.__version__}, shardstream {ss.__version__}")  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        url = os.path.join(folder, "d")
        write(url, options.num_samples)
        state = ss.ShardStream(url, batch_size=BATCH_SIZE, shuffle=True, seed=1).state_dict()
        seconds: dict[str, list[float]] = {name: [] for name in PLACES}
        for turn in range(options.turns + 1):
            for name, share in PLACES.items():
                taken = first_batch_s(url, share, options.num_samples, state)
                if turn:  # the first warms up
                    seconds[name].append(taken)
        print(f"{options.num_samples:,} samples in {len(ss.Dataset(url).shards)} shards, batches of "
              f"{BATCH_SIZE}, window {state['window']:,}")  # fmt: skip
        cold = statistics.median(seconds["cold start"])
        for name, all_of in seconds.items():
            ratio = statistics.median(all_of) / cold
            print(f"{name:<11} median {statistics.median(all_of) * 1e3:6.1f} ms, best {min(all_of) * 1e3:6.1f}; {ratio:.2f}x the cold start"
                  f"{'' if ratio <= BUDGET else f', over the budget of {BUDGET}x'}")  # fmt: skip


if __name__ == "__main__":
    main()

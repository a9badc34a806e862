"""How old a sample is when the loop gets it, and what following costs while nothing comes.

    python benchmarks/freshness.py                    a local folder
    python benchmarks/freshness.py --url s3://bucket/prefix

A producer in a process of its own writes one sample at a time, with the time of each ``write()`` in it, under
``max_latency=1s``. A stream follows; for every sample the time from its ``write()`` to the batch that has it is noted.
Then the producer stops, and the CPU time and the requests of idle following are counted.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import resource
import tempfile
import threading
import time

import numpy as np
import torch

import shardstream as ss
from shardstream.storage import Store

SCHEMA = ss.Schema(x=ss.Sparse(2**18), y=ss.Dense("int64"), t=ss.Dense("float64"))
WARM_UP = 5  # batches that are not counted: the first ones have what was written while the stream opened


def produce(url: str, seconds: float, rate: float) -> None:
    """Write samples at a steady rate."""
    generator, begin, num = np.random.default_rng(0), time.time(), 0
    with ss.ShardWriter(url, schema=SCHEMA, producer="p", max_latency="1s") as writer:
        while (now := time.time()) < begin + seconds:
            while num < (now - begin) * rate:
                writer.write({"x": np.unique(generator.integers(0, 2**18, 20)), "y": num, "t": time.time()}, source=num)
                num += 1
            time.sleep(0.002)


def measure(url: str, options: argparse.Namespace) -> None:
    """Follow, and print the ages of samples."""
    torch.set_num_threads(1)
    process = multiprocessing.get_context("spawn").Process(target=produce, args=(url, options.seconds, options.rate))
    process.start()
    while True:
        try:
            ss.Dataset(url)
            break
        except ss.DatasetNotFoundError:
            time.sleep(0.05)
    stream = ss.ShardStream(url, batch_size=options.batch_size, shuffle=True, sparse="jagged", follow=True,
                            start="beginning", idle_timeout=6)  # fmt: skip
    stream.state_dict()  # opens it
    ages, sizes, ids, begin = [], [], [], None
    for batch in stream:
        now = time.time()
        begin = begin or now
        ages.append(now - batch["t"].numpy())
        sizes.append(len(batch["y"]))
        ids += batch["y"].tolist()
        end = now
    process.join()
    assert len(set(ids)) == len(ids), "a sample came twice"
    ages = np.concatenate(ages[WARM_UP:])
    print(f"write() to batch, {len(ages):,} samples at {options.rate:g}/s, batches of {options.batch_size} ({len(sizes) / (end - begin):.1f} a second): "
          f"median {np.median(ages):.2f} s, 99% {np.quantile(ages, 0.99):.2f} s, most {ages.max():.2f} s")  # fmt: skip


def idle(url: str, seconds: float) -> None:
    """Print CPU time and requests of following while nothing comes."""
    marks: list[tuple[float, int]] = []
    names, plain = [], Store.read
    stream = ss.ShardStream(url, batch_size=64, follow=True, start="end", idle_timeout=seconds)
    stream.state_dict()
    Store.read = lambda store, name, *rest: names.append(name) or plain(store, name, *rest)
    threading.Thread(target=lambda: time.sleep(seconds / 2) or marks.append((cpu(), len(names))), daemon=True).start()
    assert next(iter(stream), None) is None
    Store.read = plain
    seconds = seconds / 2  # the second half: the wait between looks has come to its second
    print(f"idle following: {100 * (cpu() - marks[0][0]) / seconds:.2f}% of a core, {(len(names) - marks[0][1]) / seconds:.2f} requests a second, "
          f"{len(set(names[marks[0][1] :]))} object asked for")  # fmt: skip


def cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--url", help="where to write; a fresh folder by default")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=500.0, help="samples a second (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=64)
    options = parser.parse_args()
    print(f"python {platform.python_version()}, torch {torch.__version__}, {os.cpu_count()} cores, load "
          f"{os.getloadavg()[0]:.1f}")  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        url = f"{options.url.rstrip('/')}/freshness-{os.getpid()}" if options.url else folder + "/d"
        measure(url, options)
        idle(url, 20.0)


if __name__ == "__main__":
    main()

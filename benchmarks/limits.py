"""How near a stream comes to arrays in RAM: samples/s of shuffled batches of 256 beside the limit line, one process.

    python benchmarks/limits.py [tokens sparse blobs] [--repeats 15] [--folder DIR]

Each workload is read twice: kept, as by default a dataset is that takes less than half of memory_limit, whose blocks
are read and decoded in the first epoch only; and streamed, under a limit that is lower, so that every epoch reads,
verifies and decodes all of it.

The limit line makes the same batches in the same order by vectorised numpy and torch from arrays in RAM, with all
that depends on the order worked out before the clock starts; of the ways tried the fastest counts. Stream and limit
take turns, an epoch each, in one process; page cache warm. Budgets: 0.8 of the limit for tokens and sparse, 0.5 for
blobs, kept and streamed. "us a batch" is CPU time, of the thread that would train and of all threads together.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

import shardstream as ss

BATCH = 256
BUDGETS = {"tokens": 0.8, "sparse": 0.8, "blobs": 0.5}
KEPT, STREAMED = "shardstream, kept", "shardstream, streamed"
Ways = dict[str, Callable[[], Iterator]]


def tokens(folder: Path) -> tuple[int, Ways]:
    """200,000 rows of 2,048 uint16 that come as int64."""
    num_rows, length = 200_000, 2048
    rows = np.random.default_rng(1).integers(0, 50_000, (num_rows, length), np.uint16)
    write(folder, ss.Schema(x=ss.Dense("uint16", (length,))), ({"x": part} for part in np.array_split(rows, 200)))
    order = np.random.default_rng(2).permutation(num_rows)
    batches = [order[begin : begin + BATCH] for begin in range(0, num_rows, BATCH)]
    taken, wide = np.empty((BATCH, length), np.uint16), torch.empty(BATCH, length, dtype=torch.int64)

    def new() -> Iterator:
        for batch in batches:
            yield torch.from_numpy(rows[batch].astype(np.int64))

    def reused() -> Iterator:
        for batch in batches:
            np.take(rows, batch, axis=0, out=taken[: len(batch)], mode="clip")
            np.copyto(wide.numpy()[: len(batch)], taken[: len(batch)])
            yield wide[: len(batch)]

    return num_rows, {**streams(folder, rows.nbytes), "new tensors": new, "one tensor, reused": reused}


def sparse(folder: Path) -> tuple[int, Ways]:
    """200,000 sets of 20 of 1,024 that come as float32 (256, 1024)."""
    num_rows, count, dim = 200_000, 20, 1024
    rng = np.random.default_rng(1)
    sets = np.sort(np.argpartition(rng.random((num_rows, dim), np.float32), count, axis=1)[:, :count], axis=1)
    parts = np.array_split(sets, 50)
    write(folder, ss.Schema(x=ss.Sparse(dim)), ({"x": (p.reshape(-1), np.arange(len(p) + 1) * count)} for p in parts))
    shuffled = sets[rng.permutation(num_rows)] + np.arange(num_rows)[:, None] % BATCH * dim
    cells = [torch.from_numpy(shuffled[begin : begin + BATCH].reshape(-1)) for begin in range(0, num_rows, BATCH)]
    reused_dense, one = torch.zeros(BATCH, dim), torch.tensor(1.0)

    def new_numpy() -> Iterator:
        for cell in cells:
            dense = np.zeros((BATCH, dim), np.float32)
            dense.reshape(-1)[cell.numpy()] = 1
            yield torch.from_numpy(dense)

    def new_torch() -> Iterator:
        for cell in cells:
            dense = torch.zeros(BATCH, dim)
            dense.view(-1)[cell] = one
            yield dense

    def reused_numpy() -> Iterator:
        for cell in cells:
            reused_dense.zero_()
            reused_dense.view(-1).numpy()[cell.numpy()] = 1
            yield reused_dense

    return num_rows, {**streams(folder, 4 * num_rows * count), "new, numpy": new_numpy, "new, torch": new_torch,
                      "one tensor, reused": reused_numpy}  # fmt: skip


def blobs(folder: Path) -> tuple[int, Ways]:
    """2,560 byte strings of 100 kB that come as bytes."""
    num_rows, nbytes = 2_560, 100_000
    data = np.random.default_rng(1).integers(0, 256, num_rows * nbytes, np.uint8).tobytes()
    bounds = np.arange(num_rows + 1) * nbytes
    write(folder, ss.Schema(x=ss.Bytes()), ({"x": [data[begin : begin + nbytes]]} for begin in bounds[:-1]))
    order = np.random.default_rng(2).permutation(num_rows) * nbytes
    batches, view = [order[begin : begin + BATCH].tolist() for begin in range(0, num_rows, BATCH)], memoryview(data)

    def copied() -> Iterator:
        for batch in batches:
            yield [bytes(view[begin : begin + nbytes]) for begin in batch]

    return num_rows, {**streams(folder, len(data)), "bytes copied": copied}


WORKLOADS = {"tokens": tokens, "sparse": sparse, "blobs": blobs}


def write(folder: Path, schema: ss.Schema, batches: Iterator[dict]) -> None:
    with ss.ShardWriter(str(folder), schema=schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


def streams(folder: Path, decoded_nbytes: int) -> Ways:
    """Return the dataset's batches when its blocks, which take a little more than ``decoded_nbytes``, are kept, and
    when they are not.
    """

    def loader(memory_limit: int | str) -> Callable[[], Iterator]:
        stream = ss.ShardStream(str(folder), batch_size=BATCH, shuffle=True,
                                read=ss.ReadPolicy(memory_limit=memory_limit))  # fmt: skip
        loader = ss.StreamLoader(stream)
        return lambda: iter(loader)

    return {KEPT: loader("2GB"), STREAMED: loader(2 * decoded_nbytes)}


def epoch(iterate: Callable[[], Iterator]) -> tuple[float, float, float]:
    """Return seconds of the clock, of this thread's CPU and of all threads' CPU that one epoch took."""
    begin, thread, process = time.perf_counter(), time.thread_time(), time.process_time()
    for _ in iterate():
        pass
    return time.perf_counter() - begin, time.thread_time() - thread, time.process_time() - process


def report(name: str, folder: Path, repeats: int) -> None:
    num_rows, ways = WORKLOADS[name](folder)
    seconds = {way: [] for way in ways}
    for _ in range(repeats + 2):
        for way, iterate in ways.items():
            seconds[way].append(epoch(iterate))
    print(f"{name}: {WORKLOADS[name].__doc__}")
    print(f"  {'':<22}{'best':>12}{'median':>12}   rows/s{'us a batch: thread':>26}{'all':>9}")
    num_batches, best, median = -(-num_rows // BATCH), {}, {}
    for way, runs in seconds.items():
        wall, thread, process = zip(*runs[2:])
        best[way], median[way] = num_rows / min(wall), num_rows / statistics.median(wall)
        print(f"  {way:<22}{best[way]:>12,.0f}{median[way]:>12,.0f}{min(thread) / num_batches * 1e6:>35.0f}"
              f"{min(process) / num_batches * 1e6:>9.0f}")  # fmt: skip
    for mine in (KEPT, STREAMED):
        shares = [of[mine] / max(speed for way, speed in of.items() if way not in (KEPT, STREAMED)) for of in (best, median)]
        verdict = "met" if shares[0] >= BUDGETS[name] else "MISSED"
        print(f"  share of the limit, {mine.partition(', ')[2]}: {shares[0]:.2f} best, {shares[1]:.2f} "
              f"median; budget {BUDGETS[name]}: {verdict}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="*", choices=[[], *WORKLOADS], help="by default all")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--folder", help="where the shards are written; by default a temporary folder")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, numpy {np.__version__}; {args.repeats} epochs each, alternating, "
          "after 2 of warm-up")  # fmt: skip
    for name in args.workloads or WORKLOADS:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            report(name, Path(folder) / name, args.repeats)


if __name__ == "__main__":
    main()

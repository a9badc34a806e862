"""Print what each tier takes and gives on one real dataset, hashed Reuters, and how fast rows are taken by number.

    .venv/bin/python benchmarks/tiers.py                 # a minute; the tables of docs/tiers.md
    .venv/bin/python benchmarks/tiers.py --copies 10     # ten times the articles, as a larger dataset

Each tier runs in a fresh process, over the same rows: the set of hashed words of an article's body (2^18 dimensions)
and whether it is about earnings. Three epochs of shuffled batches of 256, as ``EmbeddingBag`` takes them; the best
epoch counts. Memory is what the process has after them beyond what it had after its imports: anonymous pages,
which it alone holds, and mapped file pages, which the system takes back when it needs them.

The second part takes random batches of 256 rows from a table on disk, page cache warm, alternating between contenders.

The articles are those of ``$SHARDSTREAM_DATA/text/reuters``, or of ``../shared/data/text/reuters`` beside the
repository.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
REUTERS = Path(os.environ.get("SHARDSTREAM_DATA", ROOT / "../shared/data")) / "text/reuters"
DIM, BATCH, EPOCHS = 2**18, 256, 3
TIERS = ("memory", "memmap", "shards", "stream")
NAMES = {"memory": "MemoryDataset", "memmap": "MemmapDataset", "shards": "ShardDataset, one after the other",
         "stream": "ShardStream"}  # fmt: skip
TABLES = {"128 float32": ((128,), "float32"), "784 uint8": ((784,), "uint8"), "3,072 uint8": ((3072,), "uint8")}
TABLE_ROWS = 100_000


def read_articles() -> tuple[list[str], list[int]]:
    """Return the bodies, and 1 for each that is about earnings."""
    sgml = "".join(path.read_text("latin-1") for path in sorted(REUTERS.glob("*.sgm")))
    articles = re.findall(r"<TOPICS>(.*?)</TOPICS>.*?<BODY>(.*?)</BODY>", sgml, re.DOTALL)
    return [body for _, body in articles], [int("<D>earn</D>" in topics) for topics, _ in articles]


def prepare(folder: Path, copies: int) -> int:
    """Write the rows as shards, mapped columns and one array file; return their number."""
    import shardstream as ss
    from shardstream.convert import to_memmap

    texts, labels = read_articles()
    indices, indptr, _ = ss.text.FeatureHasher(DIM, ngrams=(1, 1)).transform(texts)
    schema = ss.Schema(x=ss.Sparse(DIM), y=ss.Dense("int64"))
    with ss.ShardWriter(str(folder / "shards"), schema=schema, shard_nbytes="1MB") as writer:
        for _ in range(copies):
            writer.write_batch({"x": (indices, indptr), "y": np.array(labels)})
    to_memmap(str(folder / "shards"), str(folder / "memmap"))
    mapped = ss.MemmapDataset(str(folder / "memmap"), sparse="jagged")[:]
    np.savez(folder / "memory.npz", values=mapped["x"].values, offsets=mapped["x"].offsets, y=mapped["y"])
    return len(labels) * copies


def batches(tier: str, folder: Path, epoch: int, state: dict) -> Iterator[int]:
    """Yield the number of rows of each batch of an epoch; what is opened stays in ``state``."""
    import torch

    import shardstream as ss

    rng = np.random.default_rng(epoch)
    if tier == "stream":
        stream = state.setdefault("stream", ss.ShardStream(str(folder / "shards"), batch_size=BATCH, shuffle=True, sparse="jagged", epochs=None))
        stream.set_epoch(epoch)
        for batch, _ in zip(stream, range(len(stream))):
            yield len(batch["y"])
        return
    if tier == "shards":
        datasets = (ss.ShardDataset(url, sparse="jagged") for url in ss.Dataset(str(folder / "shards")).shards)
    elif tier == "memmap":
        datasets = [state.setdefault("ds", ss.MemmapDataset(str(folder / "memmap"), sparse="jagged"))]
    else:
        if "ds" not in state:
            arrays = {name: torch.from_numpy(array) for name, array in np.load(folder / "memory.npz").items()}
            state["ds"] = ss.MemoryDataset(ss.Jagged(arrays["values"], arrays["offsets"]), arrays["y"])
        datasets = [state["ds"]]
    for ds in datasets:
        order = rng.permutation(len(ds))
        for begin in range(0, len(order), BATCH):
            batch = ds[order[begin : begin + BATCH]]
            yield len(batch[1] if tier == "memory" else batch["y"])


def memory_nbytes() -> dict[str, int]:
    status = Path("/proc/self/status").read_text()
    return {name: int(re.search(rf"{name}:\s+(\d+) kB", status)[1]) * 1024 for name in ("RssAnon", "RssFile")}


def run_tier(tier: str, folder: Path) -> None:
    """Print as JSON the seconds to the first batch, rows a second and memory of one tier."""
    import torch  # noqa: F401

    import shardstream as ss

    _ = ss.ShardStream, ss.MemoryDataset, ss.MemmapDataset, ss.ShardDataset
    before, state = memory_nbytes(), {}
    begin = time.perf_counter()
    next(batches(tier, folder, 0, state))
    first_s = time.perf_counter() - begin
    speeds = []
    for epoch in range(EPOCHS):
        begin = time.perf_counter()
        num_rows = sum(batches(tier, folder, epoch, state))
        speeds.append(num_rows / (time.perf_counter() - begin))
    after = memory_nbytes()
    print(json.dumps({"first_s": first_s, "rows_per_s": max(speeds), **{name: after[name] - before[name] for name in after}}))


def disk_nbytes(tier: str, folder: Path) -> int:
    if tier == "memory":
        return (folder / "memory.npz").stat().st_size
    below = folder / ("memmap" if tier == "memmap" else "shards")
    return sum(path.stat().st_size for path in below.rglob("*") if path.is_file())


def report_tiers(folder: Path, copies: int) -> None:
    num_rows = prepare(folder, copies)
    print(f"\n{num_rows:,} rows\n\n| tier | on disk, MB | memory of its own, MB | mapped, MB | first "
          "batch, s | rows/s |\n|---|---|---|---|---|---|")  # fmt: skip
    for tier in TIERS:
        done = subprocess.run([sys.executable, __file__, "--tier", tier, "--folder", folder], stdout=subprocess.PIPE,
                              check=True)  # fmt: skip
        found = json.loads(done.stdout)
        print(f"| {NAMES[tier]} | {disk_nbytes(tier, folder) / 1e6:.1f} | {found['RssAnon'] / 1e6:.1f} | {found['RssFile'] / 1e6:.1f} | "
              f"{found['first_s']:.3f} | {found['rows_per_s']:,.0f} |")  # fmt: skip


def microseconds(call: Callable, choices: list[np.ndarray]) -> float:
    begin = time.perf_counter()
    for rows in choices:
        call(rows)
    return (time.perf_counter() - begin) / len(choices) * 1e6


def report_access(folder: Path) -> None:
    """Print how long a random batch takes from MemmapDataset, numpy and dask, the best of alternating rounds."""
    import shardstream as ss

    print("\n| table of 100,000 rows | MemmapDataset, us | numpy take, us | share of numpy | dask, us | "
          "times dask |\n|---|---|---|---|---|---|")  # fmt: skip
    rng = np.random.default_rng(0)
    for name, (shape, dtype) in TABLES.items():
        place = str(folder / name.replace(" ", "-"))
        with ss.MemmapWriter(place, ss.Schema(x=ss.Dense(dtype, shape))) as writer:
            for _ in range(10):
                writer.write_batch({"x": (rng.random((TABLE_ROWS // 10, *shape)) * 255).astype(dtype)})
        ds, virtual = ss.MemmapDataset(place), ss.MemmapDataset(place).as_dask()["x"]
        (_, (block,)) = ds.mapped()
        mapped = block.columns["x"]
        calls = {"ours": ds.__getitem__, "numpy": lambda rows: np.take(mapped, rows, 0),
                 "dask": lambda rows: virtual[rows].compute(scheduler="synchronous")}  # fmt: skip
        choices = [rng.integers(0, TABLE_ROWS, BATCH) for _ in range(300)]
        assert np.array_equal(calls["ours"](choices[0])["x"], calls["dask"](choices[0])), "the contenders disagree"
        rounds = [{who: microseconds(call, choices[: 6 if who == "dask" else 300]) for who, call in calls.items()} for _ in range(9)]
        best = {who: min(one[who] for one in rounds) for who in calls}
        print(f"| {name} | {best['ours']:.0f} | {best['numpy']:.0f} | {best['numpy'] / best['ours']:.2f} | {best['dask']:.0f} | "
              f"{best['dask'] / best['ours']:.0f} |")  # fmt: skip


def machine() -> str:
    from importlib.metadata import version

    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    packages = ", ".join(f"{name} {version(name)}" for name in ("numpy", "torch", "dask"))
    return f"{cpu[1] if cpu else platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; Python {platform.python_version()}, {packages}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--copies", type=int, default=1, help="how many times the articles are taken (default 1)")
    parser.add_argument("--tier", choices=TIERS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.tier:
        run_tier(arguments.tier, arguments.folder)
        return 0
    if not REUTERS.is_dir():
        print(f"There are no articles: set SHARDSTREAM_DATA, or have {REUTERS}.", file=sys.stderr)
        return 2
    print(machine())
    with tempfile.TemporaryDirectory(prefix="shardstream-tiers-") as folder:
        report_tiers(Path(folder), arguments.copies)
        report_access(Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())

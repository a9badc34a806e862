"""Whether ``memory_limit`` holds: resident memory over an epoch of 10 GB, and over many epochs of less (make
bench-memory).

    python benchmarks/memory.py [--nbytes 10GB] [--limits 500MB 1GB] [--folder DIR]

Samples of tokens, of bytes of any length and of index sets are generated and written, then read shuffled in batches of
256 by fresh processes: once through all of it with each limit, then ten times through a tenth of it, and through as much
text and ragged tokens under zstd, whose sizes are known only when they are decoded. The peak of the resident set, batches
and all, above what it was when 256 such samples had been read, must stay within 1.1 times the limit; and that of the last
epochs within 1.05 times that of the first three. Exits with 1 if not. What was written is deleted.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import shardstream as ss
from shardstream.config import parse_nbytes

BATCH, EPOCHS, SETTLED = 256, 10, 3
MAX_OF_LIMIT, MAX_GROWTH = 1.1, 1.05
PACKED_SCHEMA = ss.Schema(raw=ss.Text(), tokens=ss.Ragged("uint16"))
SCHEMA = ss.Schema(tokens=ss.Dense("uint16", (2048,)), raw=ss.Bytes(), words=ss.Sparse(2**18))
MEAN_RAW_NBYTES, NUM_WORDS, ROWS_AT_ONCE = 8_000, 100, 256


def write(folder: Path, nbytes: int) -> None:
    """Write about ``nbytes`` of samples, 4 kB of tokens, 0 to 16 kB of bytes and 100 indices each; and a dataset of
    ``BATCH`` more.
    """
    if not folder.name.endswith("-few"):
        write(folder.with_name(f"{folder.name}-few"), 1)
    rng, written = np.random.default_rng(1), 0
    noise = rng.bytes(2 * MEAN_RAW_NBYTES + 2**20)
    with ss.ShardWriter(str(folder), schema=SCHEMA) as writer:
        while written < nbytes:
            tokens = rng.integers(0, 50_000, (ROWS_AT_ONCE, 2048), np.uint16)
            begins, lengths = rng.integers(0, 2**20, ROWS_AT_ONCE).tolist(), rng.integers(0, 2 * MEAN_RAW_NBYTES, ROWS_AT_ONCE).tolist()
            words = np.sort(rng.integers(0, 2**18 // NUM_WORDS, (ROWS_AT_ONCE, NUM_WORDS)) + np.arange(NUM_WORDS) * (2**18 // NUM_WORDS))
            writer.write_batch({"tokens": tokens, "raw": [noise[begin : begin + length] for begin, length in zip(begins, lengths)],
                                "words": (words.reshape(-1), np.arange(ROWS_AT_ONCE + 1) * NUM_WORDS)})  # fmt: skip
            written += tokens.nbytes + sum(lengths)


def write_packed(folder: Path, nbytes: int) -> None:
    """Write about ``nbytes`` of samples under zstd: 4 kB of words, which becomes a quarter or, in every second of eight parts, nearly
    nothing; and 0 to 4,000 tokens. And a dataset of ``BATCH`` more.
    """
    if not folder.name.endswith("-few"):
        write_packed(folder.with_name(f"{folder.name}-few"), 1)
    rng, written = np.random.default_rng(1), 0
    words = np.array(["".join(map(chr, rng.integers(97, 123, rng.integers(2, 10)))) for _ in range(2000)])
    with ss.ShardWriter(str(folder), schema=PACKED_SCHEMA, compression="zstd") as writer:
        while written < nbytes:
            lengths, is_plain = rng.integers(0, 4000, ROWS_AT_ONCE), 8 * written // nbytes % 2
            texts = [str(words[number]) * 700 if is_plain else " ".join(words[rng.zipf(1.3, 700) % 2000])
                     for number in rng.integers(0, 2000, ROWS_AT_ONCE)]  # fmt: skip
            tokens = (rng.zipf(1.3, int(lengths.sum())) % 50_000).astype(np.uint16)
            writer.write_batch({"raw": texts, "tokens": (tokens, np.cumsum([0, *lengths]))})
            written += sum(map(len, texts)) + tokens.nbytes


def read(folder: str, limit: str, num_epochs: str) -> None:
    """In a process of its own: print the peak resident bytes of each epoch above those before, as JSON."""
    def loader_of(url: str) -> ss.StreamLoader:
        return ss.StreamLoader(ss.ShardStream(url, batch_size=BATCH, shuffle=True, sparse="jagged", read=ss.ReadPolicy(memory_limit=limit)))

    for _ in loader_of(f"{folder}-few"):  # what code and threads take is not the limit's matter
        pass
    loader, peaks, seconds = loader_of(folder), [], []
    before = resident_nbytes("VmRSS")
    for _ in range(int(num_epochs)):
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins again
        begin = time.perf_counter()
        num_rows = sum(len(batch["raw"]) for batch in loader)
        seconds.append(time.perf_counter() - begin)
        peaks.append(resident_nbytes("VmHWM") - before)
    print(json.dumps({"num_rows": num_rows, "num_samples": ss.Dataset(folder).num_samples, "peaks": peaks, "seconds": seconds}))


def resident_nbytes(name: str) -> int:
    return int(re.search(rf"{name}:\s*(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


def measure(folder: Path, limit: str, num_epochs: int) -> bool:
    """Read in a fresh process, print what it took, and return whether it is within the bounds."""
    command = [sys.executable, __file__, "--child", str(folder), limit, str(num_epochs)]
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    peaks, of_limit = found["peaks"], max(found["peaks"]) / parse_nbytes(limit)
    growth = max(peaks[SETTLED:]) / max(peaks[:SETTLED]) if len(peaks) > SETTLED else 1.0
    is_met = of_limit <= MAX_OF_LIMIT and growth <= MAX_GROWTH and found["num_rows"] == found["num_samples"]
    print(f"{folder.name}, memory_limit {limit:>6}, {num_epochs:2} epochs of {found['num_rows']:,} samples, {min(found['seconds']):.1f} s each: peak "
          f"{max(peaks) / 1e6:.0f} MB above the start, {of_limit:.2f} of the limit; last epochs {growth:.2f} of the first ones: "
          f"{'met' if is_met else 'MISSED'}", flush=True)  # fmt: skip
    return is_met


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nbytes", default="10GB", help="of the samples (default %(default)s)")
    parser.add_argument("--limits", nargs="+", default=["500MB", "1GB"])
    parser.add_argument("--folder", help="where they are written; by default the folder for temporary files")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        read(*args.child)
        return 0
    nbytes = parse_nbytes(args.nbytes, "--nbytes")
    with tempfile.TemporaryDirectory(prefix="shardstream-memory-", dir=args.folder) as folder:
        large, small, packed = (Path(folder) / name for name in ("large", "small", "packed"))
        write(large, nbytes)
        write(small, nbytes // 10)
        write_packed(packed, nbytes // 10)
        met = [measure(large, limit, 1) for limit in args.limits] + [measure(one, limit, EPOCHS) for one in (small, packed) for limit in args.limits]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())

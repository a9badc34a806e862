"""What finding samples in a tar costs: headers a second, and samples as views of the archive's own bytes.

    python benchmarks/files_layout.py

The archive is in memory and larger than the caches: two members a sample, ``jpg`` of 512 bytes and ``cls`` of one, so
half of its bytes are headers. It is scanned as shards are counted (pieces of 4 MiB) and as blocks are read (1 MiB, a
scan each); then each sample of each block is asked for, which gives memoryviews and copies nothing. Beside it Python's
tarfile and WebDataset's own iterator, on a tenth of the archive. Best of several turns that alternate, since other work
on the machine only ever adds.
"""

from __future__ import annotations

import io
import os
import tarfile
import time
from collections.abc import Callable

import numpy as np

from shardstream._native import tar
from shardstream.codecs import files

NUM_SAMPLES = 100_000
PIECE_NBYTES, BLOCK_NBYTES = 4 * 2**20, 2**20
TURNS = 9


def archive(num_samples: int) -> bytes:
    """Return a tar of so many samples."""
    payloads = {"cls": b"3", "jpg": bytes(512)}
    members = [tar.header(f"{number:08}.{field}", len(data)) + data + tar.padding(len(data))
               for number in range(num_samples) for field, data in payloads.items()]  # fmt: skip
    whole = b"".join(members)
    return whole + tar.end_blocks(len(whole))


def scan_pieces(data: np.ndarray) -> int:
    """Return the members of an archive scanned in pieces."""
    scanner, num = tar.Scanner(), 0
    for begin in range(0, len(data), PIECE_NBYTES):
        first = min(begin, scanner.offset)
        num += len(scanner.feed(data[first : begin + PIECE_NBYTES], first, begin + PIECE_NBYTES >= len(data)))
    return num


def blocks(data: np.ndarray) -> list[tuple[np.ndarray, int]]:
    """Return the archive cut into blocks of whole samples, and where each begins."""
    sample_nbytes = 4 * tar.BLOCK_NBYTES
    step = BLOCK_NBYTES // sample_nbytes * sample_nbytes
    end = NUM_SAMPLES * sample_nbytes
    return [(data[begin : min(begin + step, end)], begin) for begin in range(0, end, step)]


def read_blocks(cut: list[tuple[np.ndarray, int]]) -> int:
    return sum(len(files.read_block(block, begin)) for block, begin in cut)


def read_samples(cut: list[tuple[np.ndarray, int]]) -> int:
    """Return the samples of all blocks, each of them made as views."""
    num = 0
    for block, begin in cut:
        samples = files.read_block(block, begin)
        for number in range(len(samples)):
            samples[number]
        num += len(samples)
    return num


def read_tarfile(data: bytes) -> int:
    with tarfile.open(fileobj=io.BytesIO(data)) as opened:
        return sum(1 for _ in opened)


def read_webdataset(data: bytes) -> int:
    from webdataset.tariterators import group_by_keys, tar_file_expander

    return sum(1 for _ in group_by_keys(tar_file_expander([{"url": "archive.tar", "stream": io.BytesIO(data)}])))


def main() -> None:
    data = np.frombuffer(archive(NUM_SAMPLES), np.uint8)
    tenth = archive(NUM_SAMPLES // 10)
    cut = blocks(data)
    contenders: dict[str, tuple[Callable[[], int], str]] = {
        "scan in pieces of 4 MiB": (lambda: scan_pieces(data), "headers"),
        "blocks of 1 MiB opened": (lambda: 2 * read_blocks(cut), "headers"),
        "samples as views": (lambda: read_samples(cut), "samples"),
        "tarfile, members": (lambda: read_tarfile(tenth), "headers"),
        "WebDataset, samples": (lambda: read_webdataset(tenth), "samples"),
    }
    best = dict.fromkeys(contenders, 0.0)
    for turn in range(TURNS):
        for name, (action, _) in contenders.items():
            if turn % 4 and name in ("tarfile, members", "WebDataset, samples"):  # these take seconds
                continue
            begin = time.perf_counter()
            num = action()
            best[name] = max(best[name], num / (time.perf_counter() - begin))
    print(f"{len(data) / 1e6:.0f} MB, {2 * NUM_SAMPLES:,} headers, load {os.getloadavg()[0]:.1f}")
    for name, (_, unit) in contenders.items():
        print(f"{name:28} {best[name] / 1e6:8.3f} M {unit}/s")


if __name__ == "__main__":
    main()

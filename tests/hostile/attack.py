"""Reads each hostile shard in a process of its own, under limits: ``python -m tests.hostile.attack FOLDER``.

Prints a JSON object a line: the shard's name, what reading it came to, CPU seconds, MiB of memory that it took beyond
what the process had, and the files that appeared. A limit that is broken ends the process, which is told as its signal.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import sys
import traceback
import warnings
from pathlib import Path

from shardstream.codecs import files
from shardstream.errors import ShardstreamError
from shardstream.reader import BlockReader
from shardstream.source import open_source
from shardstream.storage import Fetcher
from tests.hostile.build import SHARDS

CPU_S, MEMORY_NBYTES = 20, 1536 * 2**20  # beyond these a process is ended


def read(path: Path) -> str:
    """Read a shard as a stream does; return what came of it: ``"samples"`` or an error's class."""
    try:
        source = open_source([str(path)])
        reader = BlockReader(source, None, Fetcher())
        for shard in range(source.num_shards):
            for block in range(reader.index(shard)[0].num_blocks):
                content = reader.read(shard, block).columns
                for key, members in content.get("__samples__", ()):
                    files.decode_sample(key, members, None, False)
        return "samples"
    except ShardstreamError as error:
        assert len(str(error)) < 2000, "an error as long as the shard"
        return type(error).__name__
    except Exception:
        return traceback.format_exc()


def attack(name: str, folder: Path) -> dict:
    """Read one shard in a forked child; return what is printed of it."""
    path = SHARDS[name](folder)
    before, (reading, writing) = sorted(os.listdir(folder)), os.pipe()
    child = os.fork()
    if child == 0:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_NBYTES,) * 2)
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
        resident = _resident_mib()
        found = read(path)
        gc.collect()  # what an error leaves in cycles must not crash the interpreter
        os.write(writing, json.dumps([found[-3000:], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - resident]).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    _, status, used = os.wait4(child, 0)
    found, memory_mib = json.loads(answer) if answer else (f"ended by status {status}", 0.0)
    appeared = sorted(set(os.listdir(folder)) - set(before))
    path.unlink()
    return {"name": name, "found": found, "cpu_s": round(used.ru_utime + used.ru_stime, 2),
            "memory_mib": round(memory_mib), "appeared": appeared}  # fmt: skip


def _resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def main(folder: str) -> None:
    warnings.simplefilter("ignore")
    os.environ["XDG_CACHE_HOME"] = folder + "/cache"
    os.mkdir(folder + "/cache")
    os.chdir(folder)
    files._webdataset()  # imported once, before the children
    for name in SHARDS:
        print(json.dumps(attack(name, Path(folder))), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])

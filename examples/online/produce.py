"""Writes records into a growing dataset, as they come, each exactly once however often this program is killed.

    python examples/online/produce.py s3://bucket/events --tail /var/log/events.jsonl
    python examples/online/produce.py events --folder /data/incoming
    python examples/online/produce.py events --redis redis://localhost --stream events

Each line of the input is a JSON object: {"text": "what was said", "label": 1, "time": 1767225600.5}. A record is the set of
its text's hashed words and word pairs (x), the label (y) and the time (t). Lines that are no such object are skipped and
counted. With every commit goes where the input stands after it; started again, the producer asks the dataset for that
place and goes on. An older instance that is still alive fails at its next commit (exit status 3).
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import sys
import threading
import time
from collections.abc import Iterator

import numpy as np
from sources import Folder, RedisStream, Tail, warn

import shardstream as ss

DIM = 2**18
SCHEMA = ss.Schema(x=ss.Sparse(DIM), y=ss.Dense("int64"), t=ss.Dense("float64"))
HASHER = ss.text.FeatureHasher(DIM, ngrams=(1, 2))
IDLE_S = 0.1  # between two looks at an input that has nothing new
LOOKS_A_CHECK = 20
FENCED = 3
WARNINGS_SHOWN = 5


def main() -> int:
    arguments, stopping = parsed(), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())  # between two batches; what was read is then committed
    num_written = num_skipped = 0
    try:
        with ss.ShardWriter(arguments.dataset, schema=SCHEMA, producer=arguments.producer, max_latency=arguments.max_latency,
                            shard_nbytes="16MB") as writer:  # fmt: skip
            print(f"goes on after {writer.last_source!r}", flush=True)
            for num_quiet, lines, position in batches(arguments, writer.last_source, stopping):
                if num_quiet % LOOKS_A_CHECK == LOOKS_A_CHECK - 1:
                    writer.flush()  # nothing is left to commit; but a commit in the background may have failed
                records = [record for record in map(parse, lines) if record is not None]
                num_skipped += len(lines) - len(records)
                if records:
                    writer.write_batch(columns(records), source=position)
                    num_written += len(records)
    except ss.ProducerFenced as error:
        warn(str(error))
        return FENCED
    except OSError as error:  # of the dataset's store or of the input
        warn(str(error))
        return 1
    print(f"{num_written} records written, {num_skipped} lines skipped", flush=True)
    return 0


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("dataset", help="URL of the dataset; created if there is none")
    inputs = parser.add_mutually_exclusive_group(required=True)
    inputs.add_argument("--tail", metavar="FILE", help="a file that grows, and may be rotated")
    inputs.add_argument("--folder", metavar="DIR", help="a folder in which files arrive, in the order of their names")
    inputs.add_argument("--redis", metavar="URL", help="a Redis server, such as redis://localhost:6379")
    parser.add_argument("--stream", metavar="NAME",
                        help="the Redis stream; its entries have the JSON object in a field named line")  # fmt: skip
    parser.add_argument("--producer", default="produce",
                        help="name under which the input's place is kept (default: %(default)s)")  # fmt: skip
    parser.add_argument("--max-latency", default="1s",
                        help="longest wait of a record for its commit (default: %(default)s)")  # fmt: skip
    parser.add_argument("--stop-when-idle", type=float, metavar="SECONDS", help="end when nothing came for so long")
    arguments = parser.parse_args()
    if (arguments.redis is None) != (arguments.stream is None):
        parser.error("--redis and --stream belong together")
    return arguments


def batches(arguments: argparse.Namespace, position: object, stopping: threading.Event) -> Iterator[tuple[int, list[bytes], object]]:
    """Yield how often nothing new was found lately, the input's lines from a position on, and the position after them."""
    if arguments.tail is not None:
        source = Tail(arguments.tail, position)
    elif arguments.folder is not None:
        source = Folder(arguments.folder, position)
    else:
        source = RedisStream(arguments.redis, arguments.stream, position)
    num_quiet, idle_since = 0, time.monotonic()
    for lines, after in source:
        num_quiet = 0 if after is not None else num_quiet + 1
        yield num_quiet, lines, after
        if after is not None:
            idle_since = time.monotonic()
        elif arguments.stop_when_idle is not None and time.monotonic() - idle_since > arguments.stop_when_idle:
            return
        else:
            stopping.wait(IDLE_S)
        if stopping.is_set():
            return


def parse(line: bytes, shown: list[int] = [0]) -> tuple[str, int, float] | None:  # noqa: B006 (counts the warnings)
    """Return ``(text, label, time)`` of one line, or None with a warning."""
    try:
        record = json.loads(line)
        text, label, moment = record["text"], record["label"], float(record["time"])
        text.encode()
        if isinstance(label, int) and -(2**63) <= label < 2**63 and math.isfinite(moment):
            return text, label, moment
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        pass
    shown[0] += 1
    if shown[0] <= WARNINGS_SHOWN:
        warn(f"skipped a line that is no record: {line[:100]!r}")
    return None


def columns(records: list[tuple[str, int, float]]) -> dict:
    """Return records as ``write_batch`` takes them."""
    texts, labels, times = zip(*records)
    indices, indptr, _ = HASHER.transform(list(texts))
    return {"x": (indices, indptr), "y": np.array(labels, np.int64), "t": np.array(times, np.float64)}


if __name__ == "__main__":
    sys.exit(main())

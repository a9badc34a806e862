"""Reading whole shards from S3: ours beside s3fs, obstore, boto3, s5cmd and raw sockets, in one run.

    python benchmarks/s3_throughput.py [--rounds 5] [--mb 128] [--only loopback|link]

Prints Markdown. The server is the one that ``AWS_ENDPOINT_URL`` names on loopback, else one started for the run
(``tools/s3_server.py``). Each contender is a process of its own that reads the same shards, turn by turn, after one
turn of warming up; a figure is the median of the rounds, a ratio the median of the ratios within a round, so that a
machine that others use shifts both sides alike.

================  =====================================================================================================
shardstream       ``ss.ShardStream``, not shuffled: requests, CRC-32C of every byte, batches of tensors; every epoch from the server
fetch             its lower half: the same blocks in parts, every byte's CRC-32C checked, then let go of, as all others do
s3fs              ``cat_ranges`` of 8 MiB over all shards
obstore           ``get_range`` of 8 MiB on 16 threads
boto3             ``get_object`` of each shard up to 8 MiB on 16 threads, else ``download_fileobj`` in parts of 8 MiB
s5cmd             ``s5cmd cp`` into a folder in memory, the start of the program included
sockets           16 raw connections, ``recv_into`` buffers used again, no checks
================  =====================================================================================================

Shardstream and fetch run twice, with obstore and, as where that extra is not installed, with s3fs. On the *link*
30 ms pass before the first byte and a connection brings 90 MB/s (``s3_link.py``). CPU seconds are those of the client's
process, per GB read.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import multiprocessing
import os
import platform
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

import shardstream as ss
from shardstream.reader import BlockReader
from shardstream.source import open_source
from shardstream.storage import Fetcher, ranges

ROOT = Path(__file__).resolve().parents[1]
SIZES_MIB = (1, 4, 16, 64)
ROW_NBYTES = 128_000
RANGE_NBYTES = 8 << 20
NUM_THREADS = 16
STREAM_NBYTES = "256MB"  # less than twice an epoch
MEMORY = Path("/dev/shm")
SPAWN = multiprocessing.get_context("spawn")


def write(url: str, shard_mib: int, total_mib: int) -> None:
    """Write shards of about ``shard_mib``, of rows that no codec can shrink."""
    generator = np.random.default_rng(shard_mib)
    rows = max(1, shard_mib * 2**20 // (ROW_NBYTES + 512))
    with ss.ShardWriter(url, schema=ss.Schema(x=ss.Dense("uint8", (ROW_NBYTES,))),
                        shard_nbytes=(rows - 1) * ROW_NBYTES) as writer:  # fmt: skip
        for _ in range(total_mib // shard_mib):
            writer.write_batch({"x": generator.integers(0, 256, (rows, ROW_NBYTES), np.uint8)})


# -- contenders: each returns a function that reads everything once and returns the bytes it got ---------------------


def shardstream_with(client: str) -> Callable:
    def prepare(url: str) -> Callable[[], int]:
        _use(client)
        # Blocks of an epoch that fits into half of the memory would stay for the next one, and the server not be asked.
        stream = ss.ShardStream(url, batch_size=16, epochs=None, read=ss.ReadPolicy(memory_limit=STREAM_NBYTES))
        batches = iter(stream)

        def read() -> int:
            stream.stats.take()
            nbytes = sum(next(batches)["x"].numel() for _ in range(len(stream)))
            assert stream.stats.sums()["num_bytes_read"] >= nbytes, "not all of the epoch was read"
            return nbytes

        return read

    return prepare


def fetch_with(client: str) -> Callable:
    def prepare(url: str) -> Callable[[], int]:
        _use(client)
        source, fetcher = open_source(url), Fetcher()
        reader = BlockReader(source, None, fetcher)

        def parts() -> list[tuple[int, list[int]]]:
            found = []
            for shard in range(source.num_shards):
                part: list[int] = []
                for block in range(reader.index(shard)[0].num_blocks):
                    if part and reader.span(shard, block)[1] - reader.span(shard, part[0])[0] > RANGE_NBYTES:
                        found.append((shard, part))
                        part = []
                    part.append(block)
                found.append((shard, part))
            return found

        todo = parts()
        pool = ThreadPoolExecutor(32)
        return lambda: sum(pool.map(lambda part: sum(block.nbytes for block in reader.read_many(*part)), todo))

    return prepare


def _use(client: str) -> None:
    if client == "s3fs":
        ranges.obstore_is_installed = lambda: False


def _objects(url: str) -> list[tuple[str, int]]:
    table = open_source(url)._url.__self__
    return list(zip(table.urls, table.nbytes.tolist(), strict=True))


def _pieces(url: str) -> list[tuple[str, int, int]]:
    return [(shard, begin, min(begin + RANGE_NBYTES, nbytes))
            for shard, nbytes in _objects(url) for begin in range(0, nbytes, RANGE_NBYTES)]  # fmt: skip


def prepare_s3fs(url: str) -> Callable[[], int]:
    import s3fs

    client, pieces = s3fs.S3FileSystem(), _pieces(url)
    return lambda: sum(map(len, client.cat_ranges(*(list(column) for column in zip(*pieces, strict=True)))))


def prepare_obstore(url: str) -> Callable[[], int]:
    import obstore
    from obstore.store import S3Store

    store = S3Store(urlsplit(url).netloc, config={"endpoint": os.environ["AWS_ENDPOINT_URL"], "virtual_hosted_style_request": "false"},
                    client_options={"allow_http": True})  # fmt: skip
    pieces, pool = _pieces(url), ThreadPoolExecutor(NUM_THREADS)
    get = lambda piece: len(obstore.get_range(store, urlsplit(piece[0]).path[1:], start=piece[1], end=piece[2]))  # noqa: E731
    return lambda: sum(pool.map(get, pieces))


def prepare_boto3(url: str) -> Callable[[], int]:
    import boto3
    from boto3.s3.transfer import TransferConfig
    from botocore.config import Config

    client = boto3.client("s3", config=Config(max_pool_connections=64))
    config = TransferConfig(multipart_threshold=RANGE_NBYTES, multipart_chunksize=RANGE_NBYTES,
                            max_concurrency=NUM_THREADS)  # fmt: skip
    objects, pool = _objects(url), ThreadPoolExecutor(NUM_THREADS)

    def get(item: tuple[str, int]) -> int:
        bucket, key = urlsplit(item[0]).netloc, urlsplit(item[0]).path[1:]
        if item[1] <= RANGE_NBYTES:
            return len(client.get_object(Bucket=bucket, Key=key)["Body"].read())
        target = io.BytesIO()
        client.download_fileobj(bucket, key, target, Config=config)
        return target.getbuffer().nbytes

    return lambda: sum(pool.map(get, objects))


def prepare_s5cmd(url: str) -> Callable[[], int]:
    program = shutil.which("s5cmd", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")

    def read() -> int:
        folder = tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None)
        try:
            subprocess.run([program, "--log", "error", "--endpoint-url", os.environ["AWS_ENDPOINT_URL"], "cp", f"{url}/*.tar", folder + "/"],
                           check=True)  # fmt: skip
            return sum(entry.stat().st_size for entry in os.scandir(folder))
        finally:
            shutil.rmtree(folder)

    return read


def prepare_sockets(url: str) -> Callable[[], int]:
    import boto3

    client, endpoint = boto3.client("s3"), urlsplit(os.environ["AWS_ENDPOINT_URL"])
    heads: list[list[bytes]] = [[] for _ in range(NUM_THREADS)]
    for number, (shard, begin, end) in enumerate(_pieces(url)):
        place = {"Bucket": urlsplit(shard).netloc, "Key": urlsplit(shard).path[1:]}
        signed = urlsplit(client.generate_presigned_url("get_object", Params=place))
        heads[number % NUM_THREADS].append(
            f"GET {signed.path}?{signed.query} HTTP/1.1\r\nHost: {endpoint.netloc}\r\nRange: bytes={begin}-{end - 1}\r\n\r\n".encode())
    pool = ThreadPoolExecutor(NUM_THREADS)
    connections = [socket.create_connection((endpoint.hostname, endpoint.port)) for _ in range(NUM_THREADS)]
    buffers = [memoryview(bytearray(RANGE_NBYTES + 65536)) for _ in range(NUM_THREADS)]

    def get(number: int) -> int:
        total, buffer = 0, buffers[number]
        for head in heads[number]:
            connections[number].sendall(head)
            have = 0
            while (split := bytes(buffer[:have]).find(b"\r\n\r\n")) < 0:
                have += connections[number].recv_into(buffer[have : have + 4096])
            answer = bytes(buffer[:split]).lower()
            assert answer.startswith(b"http/1.1 206"), answer[:60]
            length = int(answer.partition(b"content-length:")[2].split(b"\r\n")[0])
            while have < split + 4 + length:
                have += connections[number].recv_into(buffer[have:])
            total += length
        return total

    return lambda: sum(pool.map(get, range(NUM_THREADS)))


LOOPBACK = {
    "shardstream, obstore": shardstream_with("obstore"), "fetch, obstore": fetch_with("obstore"),
    "shardstream, s3fs": shardstream_with("s3fs"), "fetch, s3fs": fetch_with("s3fs"),
    "s3fs": prepare_s3fs, "obstore": prepare_obstore, "boto3": prepare_boto3, "s5cmd": prepare_s5cmd,
}  # fmt: skip
LINK = {**LOOPBACK, "sockets": prepare_sockets}
OURS = [name for name in LOOPBACK if "," in name]


# -- the run -------------------------------------------------------------------------------------------------------


def work(name: str, url: str, environment: dict[str, str], pipe) -> None:
    """A contender's process: prepares, then reads once for each message and answers (seconds, CPU seconds, bytes)."""
    os.environ.update(environment)
    read = LINK[name](url)
    read()
    pipe.send("ready")
    while pipe.recv():
        before, began = _cpu_s(), time.monotonic()
        nbytes = read()
        pipe.send((time.monotonic() - began, _cpu_s() - before, nbytes))


def _cpu_s() -> float:
    """Return CPU seconds of this process and of those that it ran."""
    return sum(used.ru_utime + used.ru_stime for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))


def measure(names: list[str], url: str, environment: dict[str, str],
            num_rounds: int) -> dict[str, list[tuple[float, float]]]:  # fmt: skip
    """Return (GB/s, CPU seconds per GB) of each round of each contender; they take turns, each round in another order.
    """
    pipes, processes = {}, []
    for name in names:
        pipes[name], theirs = SPAWN.Pipe()
        processes.append(SPAWN.Process(target=work, args=(name, url, environment, theirs), daemon=True))
        processes[-1].start()
        assert pipes[name].recv() == "ready"
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for number in range(num_rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            pipes[name].send(True)
            seconds, cpu_s, nbytes = pipes[name].recv()
            found[name].append((nbytes / seconds / 1e9, cpu_s / nbytes * 1e9))
    for name, process in zip(names, processes, strict=True):
        pipes[name].send(False)
        process.join()
    return found


def report(title: str, found: dict[str, list[tuple[float, float]]]) -> None:
    """Print a table: medians, and each contender's ratio to the best rival of the same round."""
    rivals = [name for name in found if name not in OURS]
    print(f"\n### {title}\n\n| reader | GB/s | CPU-s/GB | of the best other | of s3fs | of sockets "
          "|\n|---|---|---|---|---|---|")  # fmt: skip
    for name, rounds in found.items():
        others = [rival for rival in rivals if rival not in (name, "sockets")]
        best = [max(found[rival][i][0] for rival in others) for i in range(len(rounds))]
        ratios = [statistics.median(rate / other for (rate, _), other in zip(rounds, best, strict=True))]
        for rival in ("s3fs", "sockets"):
            ratios.append(statistics.median(a[0] / b[0] for a, b in zip(rounds, found[rival], strict=True)) if rival in found else None)
        rate, cpu = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(f"| {name} | {rate:.2f} | {cpu:.2f} | " + " | ".join("" if ratio is None else f"{ratio:.2f}" for ratio in ratios) + " |", flush=True)


def versions() -> str:
    found = []
    for package in ("shardstream", "torch", "s3fs", "aiobotocore", "obstore", "boto3", "s5cmd"):
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"{package} not installed")
    return ", ".join(found)


def servers() -> tuple[dict[str, str], Callable[[], None]]:
    """Return the server's environment, and what to call at the end."""
    names = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION")
    if os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://127.0.0.1"):
        return {name: os.environ[name] for name in names} | {"SERVER": os.environ.get("SHARDSTREAM_S3_SERVER", "?")}, lambda: None
    spec = importlib.util.spec_from_file_location("s3_server", ROOT / "tools" / "s3_server.py")
    server = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(server)
    folder = Path(tempfile.mkdtemp(prefix="shardstream-s3-"))
    environment = server.start(folder)
    return {**environment, "SERVER": environment["SHARDSTREAM_S3_SERVER"]}, lambda: server.stop(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mb", type=int, default=128,
                        help="MiB read by a turn on loopback; four times as much on the link")  # fmt: skip
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES_MIB, help="MiB a shard")
    parser.add_argument("--only", choices=("loopback", "link"))
    arguments = parser.parse_args()
    environment, stop = servers()
    os.environ.update(environment)
    bucket = f"bench-{uuid.uuid4().hex[:8]}"
    try:
        import boto3

        from benchmarks.s3_link import RunningLink

        boto3.client("s3").create_bucket(Bucket=bucket)
        print(f"{environment['SERVER']}; {versions()}; Python {platform.python_version()}, "
              f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")  # fmt: skip
        s5cmd = shutil.which("s5cmd") or (Path(sys.executable).parent / "s5cmd").exists()
        contenders = lambda names: [name for name in names if name != "s5cmd" or s5cmd]  # noqa: E731
        if arguments.only != "link":
            for size in arguments.sizes:
                url = f"s3://{bucket}/{size}"
                write(url, size, max(arguments.mb, 2 * size))
                report(f"Loopback, shards of {size} MiB",
                       measure(contenders(LOOPBACK), url, environment, arguments.rounds))  # fmt: skip
        if arguments.only != "loopback":
            link = RunningLink(environment["AWS_ENDPOINT_URL"])
            url = f"s3://{bucket}/link"
            write(url, 16, 4 * arguments.mb)
            report("Link of 30 ms and 90 MB/s a connection, shards of 16 MiB",
                   measure(contenders(LINK), url, {**environment, "AWS_ENDPOINT_URL": link.url}, arguments.rounds))  # fmt: skip
            link.close()
        print(f"\nload at the end {os.getloadavg()[0]:.1f}")
    finally:
        remove(bucket)
        stop()


def remove(bucket: str) -> None:
    import boto3

    client = boto3.client("s3")
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for item in page.get("Contents", []):
            client.delete_object(Bucket=bucket, Key=item["Key"])
    client.delete_bucket(Bucket=bucket)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()

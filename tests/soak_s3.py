"""Hours of bad weather in minutes: ``python -m tests.soak_s3 [seed] [number of requests]``, or ``make soak-s3``.

First four processes read epochs through one cache of a quarter of the data, are killed at random, and its files are
spoilt. Then epochs are read through the fault proxy, in front of the S3 server of the environment or one started here,
with a fifth of all requests faulty in every listed way, until so many requests were made. Then a server of its own is
stopped in mid-epoch for 20 seconds and started again. Stops at the first sample that is lost, repeated or wrong, and at
a run that hangs.
"""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import importlib.util
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
import warnings
from pathlib import Path

import shardstream as ss
from tests import bad_store
from tests.fault_proxy import RunningProxy

NUM_SAMPLES = 20_000
HANG_S = 900  # an epoch that takes longer hangs
OUTAGE_S = 20.0
CACHE_S = 60.0


def server():
    """Return the module that starts S3 servers."""
    spec = importlib.util.spec_from_file_location("s3_server", Path(__file__).resolve().parents[1] / "tools" / "s3_server.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def options_of(environment: dict[str, str], endpoint: str | None = None) -> dict:
    return {"endpoint_url": endpoint or environment["AWS_ENDPOINT_URL"], "key": environment["AWS_ACCESS_KEY_ID"],
            "secret": environment["AWS_SECRET_ACCESS_KEY"]}  # fmt: skip


def new_bucket(options: dict) -> str:
    import fsspec

    bucket = f"soak-{uuid.uuid4().hex[:10]}"
    fsspec.filesystem("s3", **options).mkdir(bucket)
    return f"s3://{bucket}"


def many_requests(environment: dict[str, str], seed: int, num_requests: int) -> None:
    """Read epochs through the proxy until ``num_requests`` were made."""
    proxy = RunningProxy(environment["AWS_ENDPOINT_URL"])
    options = options_of(environment, proxy.url)
    url = f"{new_bucket(options)}/data"
    with bad_store.small_blocks():
        proxy.plan(faults=["reset", "lost", "500", "503", "409"], share=0.2, seed=seed, methods=["PUT"])
        bad_store.write(url, NUM_SAMPLES, storage_options=options)
        print(f"written through {sum(proxy.stats()['faults'].values())} faults of {proxy.stats()['requests']}",
              flush=True)  # fmt: skip
        done, epoch, faults = 0, 0, {}
        while done < num_requests:
            faulthandler.dump_traceback_later(HANG_S, exit=True)
            proxy.plan(faults=bad_store.FAULTS, share=0.2, seed=seed + epoch, methods=["GET"], stall_s=0.5,
                       trickle_nbytes_per_s=20_000)  # fmt: skip
            stream = ss.ShardStream(url, batch_size=100, shuffle=True, seed=seed + epoch, storage_options=options,
                                    lanes=(8, 96)[epoch % 2], read=ss.ReadPolicy(retry=bad_store.QUICK))  # fmt: skip
            began = time.monotonic()
            bad_store.check_epoch(stream, NUM_SAMPLES)
            stats = proxy.stats()
            done, epoch = done + stats["requests"]["GET"], epoch + 1
            faults = {name: faults.get(name, 0) + stats["faults"].get(name, 0) for name in bad_store.FAULTS}
            print(f"epoch {epoch}: exact, {stats['requests']['GET']} requests, {sum(stats['faults'].values())} faulty, "
                  f"{time.monotonic() - began:.0f} s", flush=True)  # fmt: skip
            faulthandler.cancel_dump_traceback_later()
    proxy.close()
    print(f"{done} requests, {sum(faults.values())} of them faulty ({faults}): {epoch} epochs exact.")


def shared_cache(environment: dict[str, str], seed: int) -> None:
    """Let processes read through one cache, kill them, spoil its files, and look at its size on disk all the while."""
    options, generator = options_of(environment), random.Random(seed)
    url, folder = f"{new_bucket(options)}/data", Path(tempfile.mkdtemp(prefix="shardstream-cache-"))
    with bad_store.small_blocks():
        bad_store.write(url, NUM_SAMPLES, storage_options=options)
    limit = ss.Dataset(url, storage_options=options).nbytes // 4
    context, results = multiprocessing.get_context("spawn"), multiprocessing.get_context("spawn").Queue()
    start = lambda: context.Process(target=read_through_cache, args=(url, options, folder, limit, generator.randrange(1 << 30), results))  # noqa: E731
    processes = [start() for _ in range(4)]
    for process in processes:
        process.start()
    num_epochs, num_kills, num_spoilt, most, end = 0, 0, 0, 0, None
    # processes that have read an epoch; starting one takes its time, and only these are killed
    readers: set[int] = set()
    while end is None or time.monotonic() < end:
        assert all(process.exitcode is None for process in processes), "a reader failed"
        most = max(most, on_disk(folder))
        while not results.empty():
            readers.add(results.get())
            num_epochs += 1
        if end is None and len(readers) == 4:
            end = time.monotonic() + CACHE_S
        victim = next((process for process in processes if process.pid in readers), None)
        if end is not None and victim is not None and generator.random() < 0.03:
            processes.remove(victim)
            victim.kill()
            victim.join()
            processes.append(start())
            processes[-1].start()
            num_kills += 1
        found = sorted(folder.glob("*.blocks"))
        for path in generator.sample(found, min(1, len(found))):
            # of what is there: a hole would grow the file
            with contextlib.suppress(OSError), open(path, "r+b") as file:
                file.seek(os.lseek(file.fileno(), generator.randrange(path.stat().st_size), os.SEEK_DATA))
                file.write(b"spoilt")
                num_spoilt += 1
        time.sleep(0.1)
    for process in processes:
        process.kill()
        process.join()
    assert num_kills and most <= limit, f"{num_kills} kills, {most} of {limit} bytes on disk"
    shutil.rmtree(folder)
    print(f"cache: {num_epochs} epochs exact, {num_kills} kills, {num_spoilt} spoilt places, at most {most} of "
          f"{limit} bytes on disk.", flush=True)  # fmt: skip


def on_disk(folder: Path) -> int:
    """Return the bytes on disk of the cached blocks, counted while no write is under way."""
    with open(folder / ".usage", "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return sum(path.stat().st_blocks * 512 for path in folder.glob("*.blocks"))


def read_through_cache(url: str, options: dict, folder: Path, limit: int, seed: int, results) -> None:
    """A process that reads epochs until it is killed; it ends at a wrong one."""
    warnings.simplefilter("ignore")
    for epoch in range(1 << 30):
        stream = ss.ShardStream(url, batch_size=100, shuffle=True, seed=seed + epoch, storage_options=options,
                                cache_dir=str(folder), cache_limit=limit)  # fmt: skip
        bad_store.check_epoch(stream, NUM_SAMPLES)
        results.put(os.getpid())


def outage() -> None:
    """Stop a server of our own in mid-epoch and start it again: Ceph's gateway where it is installed, else moto's
    process is held.
    """
    tool, folder = server(), Path(tempfile.mkdtemp(prefix="shardstream-outage-"))
    environment = tool.start(folder)
    try:
        options = options_of(environment)
        url = f"{new_bucket(options)}/data"
        with bad_store.small_blocks():
            bad_store.write(url, NUM_SAMPLES, storage_options=options)
            stream = ss.ShardStream(url, batch_size=100, shuffle=True, lanes=8, window=800, storage_options=options,
                                    read=ss.ReadPolicy(memory_limit="3MB"))  # fmt: skip
            found = []
            faulthandler.dump_traceback_later(HANG_S, exit=True)
            for number, batch in enumerate(stream):
                found += bad_store.check_batch(batch)
                if number == 20:
                    down = stopped(tool, folder)
                    began = time.monotonic()
            faulthandler.cancel_dump_traceback_later()
            down.wait()
        assert sorted(found) == list(range(NUM_SAMPLES))
        print(f"{environment['SHARDSTREAM_S3_SERVER']} was gone for {OUTAGE_S:.0f} s: the epoch is "
              f"exact, {time.monotonic() - began:.0f} s after it went.")  # fmt: skip
    finally:
        tool.stop(folder)


def stopped(tool, folder: Path) -> subprocess.Popen:
    """Stop the last process of a server now, and start it again, as it was, after ``OUTAGE_S``; returns the process
    that does.
    """
    pid = json.loads((folder / tool.STATE).read_text())["processes"][-1]["pid"]
    command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]
    if b"radosgw" not in command[0]:  # moto keeps all in memory; held, it does not answer
        os.kill(pid, signal.SIGSTOP)
        return subprocess.Popen([sys.executable, "-c", f"import os, time; time.sleep({OUTAGE_S}); os.kill({pid}, {int(signal.SIGCONT)})"])
    os.kill(pid, signal.SIGTERM)
    tool.wait_until(lambda: tool.started(pid) is None, tool.STOP_S)
    again = (f"import importlib.util, time; from pathlib import Path; time.sleep({OUTAGE_S}); "
             f"spec = importlib.util.spec_from_file_location('s3_server', {tool.__file__!r}); tool = importlib.util.module_from_spec(spec); "
             f"spec.loader.exec_module(tool); folder = Path({str(folder)!r}); "
             f"tool.spawn(folder, 'rgw', {[part.decode() for part in command]!r}, {{'CEPH_CONF': str(folder.resolve() / 'ceph.conf')}})")  # fmt: skip
    return subprocess.Popen([sys.executable, "-c", again])


def main(seed: int = 1, num_requests: int = 10_000) -> None:
    """Run both parts."""
    warnings.simplefilter("ignore")
    names = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION")
    given = {name: os.environ[name] for name in names if name in os.environ}
    tool, folder = server(), Path(tempfile.mkdtemp(prefix="shardstream-soak-"))
    is_ours = len(given) < 4 or not given["AWS_ENDPOINT_URL"].startswith("http://127.0.0.1")
    environment = tool.start(folder) if is_ours else given
    os.environ["AWS_DEFAULT_REGION"] = environment["AWS_DEFAULT_REGION"]
    try:
        shared_cache(environment, seed)
        many_requests(environment, seed, num_requests)
    finally:
        if is_ours:
            tool.stop(folder)
    outage()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

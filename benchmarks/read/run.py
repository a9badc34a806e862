"""Measure how fast samples are read, by this library and others: samples/s, memory, CPU, first batch, bytes on disk.

    python -m benchmarks.read                                   # everything; half an hour (make bench)
    python -m benchmarks.read --quick                           # a tenth of the samples, no workers; minutes (make bench-quick)
    python -m benchmarks.read --workloads sparse --contenders ours limit --workers 0 1
    python -m benchmarks.read --s3                              # ours, from S3 beside local disk

Every contender stores the same samples by its own writer, and delivers the same shuffled batches of 256 in a fresh
process: imports; the loader is made and its first batch awaited; a whole epoch, in which samples, ids and content are
added up and must be what was written; then epochs, cut after some seconds, whose median counts. The page cache is warm.
Memory is the peak resident set of the process and of its largest worker beyond what imports took; CPU is user and system
time of both over the timed epochs. One machine, one run: ratios hold, absolute figures are the machine's.

Results go to ``build/bench/read.json`` as they come, beside those of other workloads and contenders that stand there from runs on the
same machine with the same versions; ``--report`` makes the table and plots of docs/benchmarks.md of them.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import platform
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.read.contenders import ALL

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "build/bench/read.json"
NAMES = ("tokens", "sparse", "ragged", "tabular", "images", "blobs")
REPEATS, EPOCH_S = 3, 3.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.read", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--contenders", nargs="+", choices=ALL, default=ALL)
    parser.add_argument("--workers", nargs="+", type=int, default=None, help="numbers of worker processes (default 0 1 2; quick: 0)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the samples, workers 0, shorter epochs")
    parser.add_argument("--s3", action="store_true", help="ours also from S3, at $AWS_ENDPOINT_URL")
    parser.add_argument("--report", action="store_true", help="only make docs/benchmarks.md and its plots of the results")
    parser.add_argument("--child", nargs=6, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(*arguments.child)
        return 0
    if not arguments.report:
        measure_all(arguments)
    from benchmarks.read.report import write_report

    write_report(json.loads(RESULTS.read_text()), print_only=not arguments.report)
    return 0


def measure_all(arguments) -> None:
    """Measure, and keep each result at once."""
    workers = arguments.workers or ([0] if arguments.quick else [0, 1, 2])
    for name in arguments.workloads:
        with tempfile.TemporaryDirectory(prefix=f"shardstream-bench-{name}-") as folder:
            wanted = json.dumps(run_child("expect", "limit", name, folder, arguments.quick))
            for contender in arguments.contenders:
                for place in ["local", *(["s3"] if arguments.s3 and contender == "ours" else [])]:
                    url = f"{folder}/{contender}" if place == "local" else f"{os.environ.get('SHARDSTREAM_BENCH_BUCKET', 's3://shardstream-bench')}/{os.path.basename(folder)}"
                    stored = run_child("write", contender, name, url, arguments.quick)
                    for num_workers in [0] if contender == "limit" else workers:
                        found = run_child(str(num_workers), contender, name, url, arguments.quick, wanted)
                        run = {"workload": name, "contender": contender, "place": place, "num_workers": num_workers, **stored, **found}
                        keep(run, arguments.quick)
                        print(shown(run), file=sys.stderr, flush=True)
                    if place == "local":
                        shutil.rmtree(url, ignore_errors=True)


def keep(run: dict, quick: bool) -> None:
    """Put a result into the file, in the place of an older one of the same; those of another machine or other versions go."""
    measured_on, runs = machine(), []
    if RESULTS.exists():
        old = json.loads(RESULTS.read_text())
        if old["quick"] == quick and all(old["machine"][name] == measured_on[name] for name in ("cpu", "cores", "python", "versions")):
            runs = [other for other in old["runs"] if any(other[name] != run[name] for name in ("workload", "contender", "place", "num_workers"))]
    runs = sorted([*runs, run], key=lambda run: (NAMES.index(run["workload"]), ALL.index(run["contender"]), run["place"], run["num_workers"]))
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps({"machine": measured_on, "quick": quick, "runs": runs}, indent=1))


def run_child(step: str, contender: str, workload: str, folder: str, quick: bool, wanted: str = "") -> dict:
    """Return what a fresh process found; ``{"error": ...}`` if it failed, which the table shows."""
    command = [sys.executable, "-m", "benchmarks.read", "--child", step, contender, workload, folder, str(int(quick)), wanted]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=1800)
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1][:200] if done.stderr.strip() else f"exit status {done.returncode}"}
    return json.loads(done.stdout.splitlines()[-1])


# -- in a process of its own ----------------------------------------------------------------------


def child(step: str, contender: str, name: str, folder: str, quick: str, wanted: str) -> None:
    from benchmarks.read.workloads import WORKLOADS

    workload = WORKLOADS[name]
    num_samples = workload.num_samples // (10 if quick == "1" else 1)
    module = importlib.import_module(f"benchmarks.read.contenders.{contender}")
    place = folder if "://" in folder else Path(folder)
    if step == "expect":
        print(json.dumps({"totals": expected(workload, num_samples)}))
    elif step == "write":
        begin = time.perf_counter()
        module.write(workload, num_samples, place)
        print(json.dumps({"num_samples": num_samples, "write_s": time.perf_counter() - begin, "disk_nbytes": stored_nbytes(folder)}))
    else:
        print(json.dumps(measure(module, workload, json.loads(wanted)["totals"], place, int(step), EPOCH_S / (4 if quick == "1" else 1))))


def measure(module, workload, wanted: list[int], folder, num_workers: int, epoch_s: float) -> dict:
    """Return the figures of one contender, and whether an epoch was exactly what was written: its sums are those ``wanted``."""
    gc.collect()
    before_nbytes = peak_nbytes()
    begin = time.perf_counter()
    loader = module.loader(workload, folder, num_workers)
    batches = iter(loader)
    first = next(batches)
    first_s = time.perf_counter() - begin
    totals = [0, 0, 0]
    for batch in chain_first(first, batches):
        totals = [total + part for total, part in zip(totals, workload.digest(batch))]
    is_exact = totals == wanted
    cpu_s, speeds, timed = cpu_seconds(), [], 0
    for _ in range(REPEATS):
        begin, count = time.perf_counter(), 0
        batches = iter(loader)
        for batch in batches:
            count += len(batch["id"])
            if time.perf_counter() - begin > epoch_s:
                break
        speeds.append(count / (time.perf_counter() - begin))
        timed += count
        del batches
    return {"samples_per_s": statistics.median(speeds), "first_s": first_s, "is_exact": is_exact,
            "cpu_us_per_sample": (cpu_seconds() - cpu_s) / timed * 1e6, "memory_nbytes": peak_nbytes() - before_nbytes}  # fmt: skip


def chain_first(first, rest):
    yield first
    yield from rest


def expected(workload, num_samples: int) -> list[int]:
    """Return the sums over what was written, a batch at a time as it is delivered."""
    from benchmarks.read.workloads import BATCH

    totals, waiting = [0, 0, 0], []
    for sample in workload.samples(num_samples):
        waiting.append(sample)
        if len(waiting) == BATCH or sample["id"] == num_samples - 1:
            totals = [total + part for total, part in zip(totals, workload.digest(workload.collate(waiting)))]
            waiting = []
    return totals


def peak_nbytes() -> int:
    """Return the peak resident bytes of this process and of its largest child."""
    return sum(resource.getrusage(who).ru_maxrss * 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def cpu_seconds() -> float:
    return sum(use.ru_utime + use.ru_stime for use in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))


def stored_nbytes(folder: str) -> int:
    if "://" in folder:
        import shardstream as ss

        return ss.Dataset(folder).nbytes
    return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())


# -- the machine ----------------------------------------------------------------------------------


def machine() -> dict:
    from importlib.metadata import PackageNotFoundError, version

    versions = {}
    for name in ("shardstream", "torch", "numpy", "webdataset", "mosaicml-streaming", "litdata", "datasets", "simplejpeg"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            pass
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {"cpu": cpu[1] if cpu else platform.machine(), "cores": os.cpu_count(), "python": platform.python_version(),
            "load": round(os.getloadavg()[0], 1), "date": time.strftime("%Y-%m-%d"), "versions": versions}  # fmt: skip


def shown(run: dict) -> str:
    """Return one line about a run."""
    head = f"{run['workload']:8} {run['contender']:12} {run['place']:6} workers {run['num_workers']}"
    if "error" in run:
        return f"{head}  failed: {run['error']}"
    return (f"{head}  {run['samples_per_s']:12,.0f}/s  first {run['first_s']:6.3f} s  {run['cpu_us_per_sample']:8.1f} us CPU  "
            f"{run['memory_nbytes'] / 1e6:7.0f} MB  {run['disk_nbytes'] / 1e6:7.1f} MB on disk{'' if run['is_exact'] else '  NOT THE SAMPLES THAT WERE WRITTEN'}")  # fmt: skip

"""Measure how fast samples are read, by this library and others: samples/s, memory, CPU, first batch, bytes on disk.

    python -m benchmarks.read                                   # all that is missing; some 25 minutes (make bench; with S3 another six)
    python -m benchmarks.read --prepare                         # only write the samples, some minutes that nothing need be quiet for
    python -m benchmarks.read --next                            # one piece of up to 100 s; exit status 3 if none is missing
    python -m benchmarks.read --quick                           # a tenth of the samples or so, no workers, short turns; 3 minutes (make bench-quick)
    python -m benchmarks.read --workloads sparse --workers 0 1 --again
    python -m benchmarks.read --s3                              # also whole epochs from S3, at $AWS_ENDPOINT_URL
    python -m benchmarks.read --report                          # put what stands there into docs/benchmarks.md, with its plot

Every contender stores the same samples by its own writer (``store.py``) and delivers the same shuffled batches of 256. A piece is one
workload with one number of workers (or from S3), read by all contenders in turns (``race.py``), so ratios are those of turns that followed each other; the page
cache is warm, and torch has one thread; what threads of its own a library has it may use. The median turn counts. CPU is user and system
time of the whole tree of processes during the turns, memory the most that it had in anonymous and shared pages, proportionally, beyond
what imports took. An epoch that is not exactly what was written is told so and is no rival.
On S3 a turn is a whole epoch of a new loader without a cache, and the first batch is its best.

Results go to ``build/bench/read.json`` (``read-quick.json``) as they come, so that an interrupted run goes on where it was;
what was measured on another machine or with other versions is measured anew. One machine, one run: ratios hold, absolute figures are the machine's.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from benchmarks.read import store
from benchmarks.read.contenders import MODULES, REMOTE, STORED_AS
from benchmarks.read.race import race, race_from_s3
from benchmarks.read.results import ROOT, Results

NAMES = ("tokens", "sparse", "ragged", "tabular", "images", "blobs")
NOTHING_MISSING = 3


@dataclass(frozen=True)
class Piece:
    """What is measured at once; ``num_workers`` is None for S3."""

    workload: str
    num_workers: int | None

    @property
    def name(self) -> str:
        return f"{self.workload}, {'S3' if self.num_workers is None else f'{self.num_workers} workers'}"


@dataclass(frozen=True)
class Size:
    """How much is measured: rounds of turns, and how many samples there are."""

    is_quick: bool
    rounds: int
    turn_s: float

    def num_samples(self, workload: str) -> int:
        from benchmarks.read.workloads import WORKLOADS

        return WORKLOADS[workload].num_quick if self.is_quick else WORKLOADS[workload].num_samples


FULL, QUICK = Size(False, 5, 0.8), Size(True, 3, 0.25)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.read", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--contenders", nargs="+", choices=MODULES, default=list(MODULES), help="fewer of them are printed, but not kept")
    parser.add_argument("--workers", nargs="+", type=int, default=None, help="numbers of worker processes (default 0 1 2; quick: 0)")
    parser.add_argument("--quick", action="store_true", help="fewer samples, workers 0, shorter turns")
    parser.add_argument("--s3", action="store_true", help="also from S3, at $AWS_ENDPOINT_URL")
    parser.add_argument("--prepare", action="store_true", help="only write the samples")
    parser.add_argument("--next", action="store_true", help=f"measure one piece that is missing; exit status {NOTHING_MISSING} if there is none")
    parser.add_argument("--again", action="store_true", help="measure also what has been measured")
    parser.add_argument("--report", action="store_true", help="only put what has been measured into docs/benchmarks.md and its plot")
    arguments = parser.parse_args()
    size = QUICK if arguments.quick else FULL
    results = Results(ROOT / f"build/bench/read{'-quick' if arguments.quick else ''}.json")
    if not arguments.report:
        wanted = [piece for piece in pieces(arguments) if arguments.again or results.lacks(piece.name, size.num_samples(piece.workload))]
        if arguments.next and not wanted:
            print("nothing is missing", file=sys.stderr)
            return NOTHING_MISSING
        wanted = wanted[:1] if arguments.next else wanted
        prepare(arguments, dict.fromkeys(piece.workload for piece in wanted), size, results)
        for piece in [] if arguments.prepare else wanted:
            measure(piece, arguments.contenders, size, results)
    if arguments.report or not (arguments.prepare or arguments.next):
        from benchmarks.read.report import write_report

        write_report(results, print_only=not arguments.report)
    return 0


def pieces(arguments: argparse.Namespace) -> Iterator[Piece]:
    for num_workers in arguments.workers or ([0] if arguments.quick else [0, 1, 2]):
        yield from (Piece(workload, num_workers) for workload in arguments.workloads)
    if arguments.s3:
        yield from (Piece(workload, None) for workload in arguments.workloads)


def prepare(arguments: argparse.Namespace, workloads: dict[str, None], size: Size, results: Results) -> None:
    """Write all samples that are not there yet, two processes at a time, each for one contender."""
    writers = dict.fromkeys([*(STORED_AS.get(contender, contender) for contender in arguments.contenders), "limit"])
    commands = {}
    for contender in writers:
        missing = [f"{workload}={size.num_samples(workload)}" for workload in workloads if store.about(contender, workload, size.num_samples(workload)) is None]
        if missing:
            commands[contender] = [sys.executable, "-m", "benchmarks.read.store", contender, *missing]
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda command: subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True), commands.values()))
    for contender, process in zip(commands, done):
        if process.returncode:
            print(f"{contender} could not write:\n{process.stdout[-2000:]}", file=sys.stderr)
    for workload in workloads:
        sizes = {contender: store.about(contender, workload, size.num_samples(workload)) for contender in writers if contender != "limit"}
        results.stored.setdefault(workload, {}).update({contender: found for contender, found in sizes.items() if found})
        if arguments.s3:
            for contender in REMOTE:
                if contender in writers and sizes.get(contender):
                    store.upload(contender, workload, size.num_samples(workload))
    results.save()


def measure(piece: Piece, contenders: list[str], size: Size, results: Results) -> None:
    """Measure a piece, show it, and keep it if nobody was left out."""
    begin, num_samples = time.perf_counter(), size.num_samples(piece.workload)
    wanted = store.about("limit", piece.workload, num_samples)["totals"]
    if piece.num_workers is None:
        chosen = [contender for contender in contenders if contender in REMOTE]
        urls = {contender: store.upload(contender, piece.workload, num_samples) for contender in chosen}
        runs = race_from_s3(piece.workload, num_samples, wanted, urls, max(1, size.rounds // 2))
    else:
        chosen = [contender for contender in contenders if piece.num_workers == 0 or contender not in ("limit", "ours_streamed")]
        folders = {contender: str(num_samples) if contender == "limit" else str(store.folder_of(contender, piece.workload, num_samples) / "data")
                   for contender in chosen}  # fmt: skip
        runs = race(piece.workload, num_samples, wanted, folders, piece.num_workers, size.rounds, size.turn_s)
    for run in runs:
        print(shown(piece, run), file=sys.stderr)
    print(f"{piece.name}: {time.perf_counter() - begin:.0f} s", file=sys.stderr, flush=True)
    if set(contenders) == set(MODULES):
        results.keep(piece.name, {"workload": piece.workload, "num_workers": piece.num_workers, "num_samples": num_samples, "runs": runs})


def shown(piece: Piece, run: dict) -> str:
    """Return one line about a run."""
    from benchmarks.read.figures import Figures

    head = f"  {piece.name:18} {run['contender']:13}"
    if "error" in run:
        return f"{head}  failed: {run['error']}"
    figures = Figures.of(run)
    return (f"{head}  {figures.samples_per_s:12,.0f}/s +-{figures.spread:4.0%}  first {figures.first_s:6.3f} s  {figures.cpu_us:8.1f} us CPU  "
            f"{figures.memory_nbytes / 1e6:7.0f} MB{'' if run['is_exact'] else '  NOT THE SAMPLES THAT WERE WRITTEN'}")  # fmt: skip

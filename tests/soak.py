"""Kill training jobs for as long as you like: ``make soak ARGS="--lineages 1000 --minutes 60"``.

Lineages of real ranks and workers as in ``test_exactly_once.py`` and ``test_following.py``, a few at a time, with all
start methods: of blocks, files, a list of shards, a mixture, a log that grows, and that mixed with older samples.
Trainers are forked from processes that have torch and shardstream imported already, so a run costs a few tenths of a
second; one lineage in 200 is started by torchrun itself, and one in 50 may have workers of all start methods, which
import torch anew. Prints what each lineage went through, and goes on after a failure: its folder stays, and the exit
status is 1.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

from tests.follow_lineage import FollowLineage
from tests.lineage import Lineage, write_sources

NUM_SAMPLES = 223
LIMIT_S = 600  # of a run, as others may use the machine


def go_through(folder: Path, sources: dict, seed: int) -> tuple[str, str, int, bool]:
    """Run the lineage of a seed; return what it reads, a line about it, its number of runs, and whether it failed."""
    warnings.simplefilter("ignore")
    layout = sorted(sources)[seed % len(sources)]
    launch = "torchrun" if seed % 200 == 0 else ("fork", "agent")[seed // len(sources) % 2]
    contexts = ("fork", "forkserver", "spawn") if seed % 50 == 1 else ("fork",)
    # a log that grows meanwhile, whose producers are killed too; alone, or mixed with older samples
    if seed % 10 in (3, 7):
        layout, launch = ("follow", "fork") if seed % 10 == 3 else ("replay", "fork")
        lineage = FollowLineage(folder / f"lineage-{seed}", seed, limit_s=LIMIT_S, is_mixed=layout == "replay")
    else:
        lineage = Lineage(folder / f"lineage-{seed}", {"source": sources[layout]}, NUM_SAMPLES, seed, contexts, launch,
                          limit_s=LIMIT_S)  # fmt: skip
    failure = ""
    try:
        lineage.run()
        shutil.rmtree(lineage.folder)
    except Exception as error:  # AssertionError is what it is for; whatever else happens fails the lineage, too
        traceback.print_exc()
        failure = f"FAILED ({type(error).__name__}: {error}; see {lineage.folder}): "
    return layout, f"{failure}seed {seed}, {layout}, {launch}: {'; '.join(lineage.log)}", len(lineage.log), bool(failure)


def main(argv: list[str] | None = None) -> int:
    """Run lineages and print a line for each; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__.split("\n")[0])
    parser.add_argument("--first-seed", type=int, default=1000)
    parser.add_argument("--lineages", type=int, default=1000, help="at most so many (default 1000)")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no lineage after this time")
    parser.add_argument("--jobs", type=int, default=4,
                        help="lineages at a time (default 4; each waits a third of its time)")  # fmt: skip
    options = parser.parse_args(argv)
    folder = Path(tempfile.mkdtemp(prefix="shardstream-soak-"))
    sources, begun = write_sources(folder, NUM_SAMPLES), time.monotonic()
    seeds = iter(range(options.first_seed, options.first_seed + options.lineages))
    num_lineages, num_runs, num_failed = Counter(), Counter(), Counter()  # of each layout
    with ProcessPoolExecutor(options.jobs, get_context("fork")) as pool:
        running = {pool.submit(go_through, folder, sources, seed) for seed in islice(seeds, options.jobs)}
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for layout, line, runs, failed in (future.result() for future in done):
                print(f"{time.monotonic() - begun:.0f} s: {line}", flush=True)
                num_lineages[layout], num_runs[layout], num_failed[layout] = num_lineages[layout] + 1, num_runs[layout] + runs, num_failed[layout] + failed
            if time.monotonic() - begun < options.minutes * 60:
                running |= {pool.submit(go_through, folder, sources, seed) for seed in islice(seeds, len(done))}
    for layout in sorted(num_lineages):
        print(f"{layout}: {num_lineages[layout]} lineages of {num_runs[layout]} runs, {num_failed[layout]} failed")
    has_failed = num_failed.total() > 0
    if not has_failed:
        shutil.rmtree(folder)
    print(f"{num_lineages.total()} lineages of {num_runs.total()} runs in {time.monotonic() - begun:.0f} s on {os.cpu_count()} CPUs, "
          f"{num_failed.total()} failed{'' if has_failed else ': every sample consumed once in each epoch of each'}.")  # fmt: skip
    return int(has_failed)


if __name__ == "__main__":
    sys.exit(main())

"""Kill training jobs for as long as you like: ``python -m tests.soak [first seed] [number of lineages]``.

Lineages of real ranks and workers as in ``test_exactly_once.py``, with all start methods, and torchrun itself for
one in twenty. Prints what each lineage went through, and stops at the first sample lost or consumed twice.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
import warnings
from pathlib import Path

from tests.lineage import Lineage, write_sources

NUM_SAMPLES = 223


def main(first_seed: int = 1000, num_lineages: int = 1000) -> None:
    """Run lineages and print a line for each."""
    warnings.simplefilter("ignore")
    folder = Path(tempfile.mkdtemp(prefix="shardstream-soak-"))
    sources = write_sources(folder, NUM_SAMPLES)
    begin, num_runs = time.monotonic(), 0
    for seed in range(first_seed, first_seed + num_lineages):
        layout = sorted(sources)[seed % len(sources)]
        launch = "torchrun" if seed % 20 == 0 else "fork"
        contexts = ("fork",) if seed % 5 else ("fork", "forkserver", "spawn")
        lineage = Lineage(folder / f"lineage-{seed}", {"source": sources[layout]}, NUM_SAMPLES, seed, contexts, launch)
        lineage.run()
        num_runs += len(lineage.log)
        print(f"seed {seed}, {layout}, {launch}: {'; '.join(lineage.log)}", flush=True)
        shutil.rmtree(lineage.folder)
    shutil.rmtree(folder)
    print(f"{num_lineages} lineages of {num_runs} runs in {time.monotonic() - begin:.0f} s: every sample consumed once in each epoch of each.")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

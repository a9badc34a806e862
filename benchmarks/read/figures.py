"""Turns to figures: medians of runs, and ratios of two runs, turn by turn of one round."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

RIVALS = ("webdataset", "mosaicml", "litdata", "hf_arrow", "hf_numpy")


@dataclass(frozen=True)
class Figures:
    """What a contender's turns came to.

    Attributes:
        samples_per_s: The median turn's.
        spread: Half of the difference between the second best and second worst turn (of three: best and worst), of the median.
        cpu_us: User and system time a sample, of all its processes.
        memory_nbytes: The most seen after the first epoch and after each turn, beyond what imports took.
    """

    samples_per_s: float
    spread: float
    first_s: float
    cpu_us: float
    memory_nbytes: int

    @classmethod
    def of(cls, run: dict) -> Figures:
        turns, speeds = run["turns"], sorted(speeds_of(run))
        cut = 1 if len(speeds) > 3 else 0
        median, inner = statistics.median(speeds), speeds[cut : len(speeds) - cut]
        cpu_us = sum(turn["cpu_s"] for turn in turns) / sum(turn["samples"] for turn in turns) * 1e6
        peak = max(run.get("epoch_nbytes", 0), *(turn["nbytes"] for turn in turns))
        return cls(median, (inner[-1] - inner[0]) / 2 / median, run["first_s"], cpu_us, peak - run["base_nbytes"])


def speeds_of(run: dict) -> list[float]:
    return [turn["samples"] / turn["seconds"] for turn in run["turns"]]


def is_valid(run: dict) -> bool:
    """Return whether a run counts: all of it worked, and the samples were those that had been written."""
    return "error" not in run and run["is_exact"]


def ratio(run: dict, to: dict) -> float:
    """Return how many times as fast ``run`` was as ``to``: the median over rounds."""
    return statistics.median(mine / theirs for mine, theirs in zip(speeds_of(run), speeds_of(to)))


def best_rival(runs: list[dict], among: tuple[str, ...] = RIVALS) -> dict | None:
    """Return the fastest of those that count."""
    rivals = [run for run in runs if run["contender"] in among and is_valid(run)]
    return max(rivals, key=lambda run: Figures.of(run).samples_per_s, default=None)

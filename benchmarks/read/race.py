"""Contenders beside one another on one workload (``race``, ``race_from_s3``): each in a process of its own, all of them there at once, taking turns.

All import at once. One after the other makes its loader and waits for the first batch, while nothing else runs. All read the rest of their
first epoch at once, which is not timed: its sums must be those of the samples that were written. Then they take turns of about
a second, in another order each round; those that wait have filled their queues and stand still. So what else happens on the machine
meets all of them alike, and ratios are of turns of one round.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from typing import Any

from benchmarks.read.results import ROOT

LIMIT_S = 300  # for one answer
SETTLE_S = 0.05  # before a turn, for queues to fill


class Failed(Exception):
    """A contestant has said that it failed, or has said nothing."""


class Seat:
    """A contestant's process (``contestant.py``) from here."""

    def __init__(self, contender: str, workload: str, num_samples: int, folder: str, num_workers: int):
        command = [sys.executable, "-m", "benchmarks.read.contestant", contender, workload, str(num_samples), folder, str(num_workers)]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                                         start_new_session=True)  # fmt: skip
        self.found: dict[str, Any] = {"contender": contender, "turns": []}

    def ask(self, step: str) -> None:
        if "error" in self.found:
            return
        try:
            print(step, file=self._process.stdin, flush=True)
        except BrokenPipeError:
            pass  # its answer says why

    def answer(self) -> dict[str, Any]:
        """Return the next answer; nothing if it has failed, which ``found`` tells."""
        if "error" in self.found:
            return {}
        ready, _, _ = select.select([self._process.stdout], [], [], LIMIT_S)
        line = self._process.stdout.readline() if ready else ""
        found = json.loads(line) if line else {"error": "ended without a word" if ready else f"no answer in {LIMIT_S} s"}
        if "error" in found:
            self.found["error"] = found["error"]
            return {}
        return found

    def close(self) -> None:
        """End the process and all that it has started."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()


def race(workload: str, num_samples: int, wanted: list[int], folders: dict[str, str], num_workers: int, rounds: int, turn_s: float) -> list[dict]:
    """Return what became of each contender of ``folders``."""
    seats = []
    try:
        seats += [Seat(contender, workload, num_samples, folder, num_workers) for contender, folder in folders.items()]
        for seat in seats:
            seat.found["base_nbytes"] = seat.answer().get("base_nbytes", 0)
        for seat in seats:
            time.sleep(SETTLE_S)
            seat.ask("first")
            seat.found["first_s"] = seat.answer().get("seconds", 0.0)
        for seat in seats:
            seat.ask("epoch")
        for seat in seats:
            read = seat.answer()
            seat.found["is_exact"], seat.found["epoch_nbytes"] = read.get("totals") == wanted, read.get("nbytes", 0)
        for number in range(rounds):
            for seat in seats[number % len(seats) :] + seats[: number % len(seats)]:
                time.sleep(SETTLE_S)
                seat.ask(f"turn {turn_s}")
                seat.found["turns"].append(seat.answer())
    finally:
        for seat in seats:
            seat.close()
    return [seat.found for seat in seats]


def race_from_s3(workload: str, num_samples: int, wanted: list[int], urls: dict[str, str], rounds: int) -> list[dict]:
    """Return what became of each contender of ``urls``: turns are whole epochs of new loaders."""
    seats = []
    try:
        seats += [Seat(contender, workload, num_samples, url, 0) for contender, url in urls.items()]
        for seat in seats:
            seat.found["base_nbytes"] = seat.answer().get("base_nbytes", 0)
        for number in range(rounds + 1):
            for seat in seats[number % len(seats) :] + seats[: number % len(seats)]:
                seat.ask("cold")
                turn = seat.answer()
                if number:  # the first one makes connections and imports clients
                    seat.found["turns"].append(turn)
                seat.found["is_exact"] = seat.found.get("is_exact", True) and turn.get("totals") == wanted
    finally:
        for seat in seats:
            seat.close()
    for seat in seats:
        seat.found["first_s"] = min((turn["first_s"] for turn in seat.found["turns"] if turn), default=0.0)
    return [seat.found for seat in seats]

"""Lineages: a training run that is killed at random moments and goes on with another topology, until its epochs end.

A run of the job is ``tests/trainer.py`` in 1 to 4 ranks with 0 to 3 workers each, in a real process group. It stops
by itself after some steps, or one of its ranks, one of its workers or all of it is killed by SIGKILL. The next run
begins at the newest state saved. At the end every sample must have been consumed once an epoch.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from torch.distributed import TCPStore

import shardstream as ss
from tests import trainer


def write_sources(folder: Path, num_samples: int) -> dict:
    """Write samples numbered from 0 and return where they are: blocks, the same as files, as a list of these files, and
    dealt out to a mixture.
    """
    generator = random.Random(0)
    parts = {"blocks": range(num_samples), "large": range(num_samples // 3, num_samples),
             "small": range(num_samples // 3)}  # fmt: skip
    for name, numbers in parts.items():
        with ss.ShardWriter(str(folder / name), schema=ss.Schema(y=ss.Dense("int64"), t=ss.Ragged("uint8"))) as writer:
            for i in numbers:
                writer.write({"y": i, "t": [i % 256] * (i % 3)})
                if generator.random() < 0.1:
                    writer._close_block()
                    writer._roll(False)
    with ss.ShardWriter(str(folder / "files")) as writer:
        for i in range(num_samples):
            writer.write({"__key__": f"{i:05d}", "cls": i})
            if generator.random() < 0.05:
                writer._close_block()
                writer._roll(False)
    return {"blocks": str(folder / "blocks"), "files": str(folder / "files"), "list": ss.Dataset(str(folder / "files")).shards,
            "mixture": {"mix": [str(folder / "large"), str(folder / "small")]}}  # fmt: skip


class Lineage:
    """One training run of ``num_epochs`` over ``source``, all of whose choices follow from ``seed``.

    Args:
        folder: For its notes and states.
        spec: ``source`` and what else ``trainer.make_stream`` takes.
        num_samples: Of an epoch; samples are numbered from 0.
        contexts: Start methods of workers to choose from.
        launch: "fork": ranks are forked here, where torch and shardstream are imported, and meet at a file; "agent":
            they are too, but have the environment that torchrun gives, and a store that a launcher holds; or
            "torchrun": that itself, whose processes import torch for 2 s each.
        max_runs: The last of so many runs is not killed.
        limit_s: A run that takes longer hangs.
    """

    batch_sizes = 1, 3, 8, 20

    def __init__(self, folder: Path, spec: dict, num_samples: int, seed: int, contexts=("fork",), launch: str = "fork", num_epochs: int = 3,
                 max_ranks: int = 4, max_runs: int = 12, limit_s: float = 120):  # fmt: skip
        self.folder, self.num_samples, self.contexts, self.launch, self.num_epochs = folder, num_samples, contexts, launch, num_epochs
        self.max_ranks, self.max_runs, self.limit_s = max_ranks, max_runs, limit_s
        self._store: _Store | None = None  # of a run by "agent"
        self.random = random.Random(seed)
        self.spec = {**spec, "seed": seed, "num_epochs": num_epochs}
        self.consumed = [Counter() for _ in range(num_epochs)]
        self.log: list[str] = []

    def run(self) -> None:
        """Go through runs until the last epoch has ended; AssertionError if a sample was lost or came twice."""
        state = None
        for number in range(self.max_runs):
            state = self._run(number, state, is_last=number == self.max_runs - 1)
            if state is not None and state["epoch"] >= self.num_epochs:
                break
        else:
            raise AssertionError(f"the lineage did not end: {self.log}")
        for epoch, consumed in enumerate(self.consumed):
            assert set(consumed.values()) == {1} and set(consumed) == set(range(self.num_samples)), (
                f"epoch {epoch}: missing {sorted(set(range(self.num_samples)) - set(consumed))[:9]}, "
                f"twice {[i for i, count in consumed.items() if count > 1][:9]}; {self.log}")  # fmt: skip

    def _run(self, number: int, state: dict | None, is_last: bool) -> dict | None:
        """Do one run, and return the state it left, or the one before if it saved none."""
        choose = self.random
        world_size, num_workers = choose.randint(1, self.max_ranks), choose.randint(0, 3)
        # A run that ends before its time comes is no failure, only a shorter lineage: so it is given less time than it
        # needs.
        ending = "finish" if is_last else choose.choices(["stop", "rank", "worker" if num_workers else "rank", "job", "finish"], [2, 3, 3, 3, number >= 3])[0]
        batch_size = choose.choice(self.batch_sizes)
        num_notes = (self.num_epochs - (state.get("epoch", 0) if state else 0)) * self.num_samples // batch_size
        spec = {**self.spec, "state": state, "num_workers": num_workers, "batch_size": batch_size, "context": choose.choice(self.contexts),
                "weights": [1, choose.choice([0.1, 1, 3])], "save_every": choose.randint(1, 8), "step_s": choose.choice([0.001, 0.01]),
                "stop_after": choose.randint(1, max(1, num_notes // world_size // 2)) if ending == "stop" else None}  # fmt: skip
        folder = self.folder / f"run-{number}"
        folder.mkdir(parents=True)
        (folder / "spec.json").write_text(json.dumps(spec))
        self.log.append(f"{world_size} ranks x {num_workers} {spec['context']} workers, batches of "
                        f"{spec['batch_size']}: {ending}")  # fmt: skip
        processes = self._start(folder, world_size)
        if ending in ("rank", "worker", "job"):
            self._kill(folder, processes, ending, choose.randint(0, min(num_notes // 2, 80)), choose.random() * 0.02)
        self._end(folder, processes, must_succeed=ending in ("stop", "finish"))
        return self._collect(folder, world_size, state)

    # -- processes --------------------------------------------------------------------------------

    def _start(self, folder: Path, world_size: int) -> list:
        if self.launch == "torchrun":
            command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={world_size}", "--master-addr=127.0.0.1", "--rdzv-backend=c10d",
                       "--rdzv-endpoint=127.0.0.1:0", trainer.__file__, str(folder / "spec.json")]  # fmt: skip
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
            with open(folder / "stderr", "wb") as stderr:
                return [_Command(subprocess.Popen(command, env=environment, stderr=stderr, start_new_session=True))]
        context = multiprocessing.get_context("fork")
        self._store = _Store(context) if self.launch == "agent" else None
        port = None if self._store is None else self._store.port
        processes = [context.Process(target=_be_a_rank, args=(str(folder / "spec.json"), rank, world_size, port)) for rank in range(world_size)]
        for process in processes:
            process.start()
        return processes

    def _kill(self, folder: Path, processes: list, what: str, num_notes: int, delay_s: float) -> None:
        """Kill a rank, a worker or the job once ``num_notes`` batches were noted and some milliseconds have passed."""
        patience = Patience(self.limit_s)
        while _num_notes(folder) < num_notes and any(process.is_alive() for process in processes) and not patience.is_over():
            time.sleep(0.004)
        time.sleep(delay_s)
        workers = [pid for note in _notes(folder) for pid in note.get("workers", ())]
        ranks = _children(processes[0].pid) if self.launch == "torchrun" else [process.pid for process in processes]
        if what == "worker" and not workers:
            what = "rank"
        for pid in {"rank": ranks[-1:], "worker": workers[-1:], "job": ranks}[what]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # it was quicker

    def _end(self, folder: Path, processes: list, must_succeed: bool) -> None:
        """Wait for the ranks as a launcher does: when one fails the others are killed. All their workers must be gone
        then.
        """
        patience = Patience(self.limit_s)
        while any(process.is_alive() for process in processes):
            failed = any(process.exitcode not in (None, 0) for process in processes)
            if failed or patience.is_over():
                for process in processes:
                    process.kill()
                assert failed, f"the run hangs: {self.log}"
            time.sleep(0.005)
        if self._store is not None:
            self._store.close()
        codes = [process.exitcode for process in processes]
        assert codes == [0] * len(codes) or not must_succeed, f"exit codes {codes}: {self.log} {folder}"
        workers = [pid for note in _notes(folder) for pid in note.get("workers", ())]
        patience = Patience(self.limit_s / 12)
        while left := [pid for pid in workers if _is_running(pid)]:
            assert not patience.is_over(), f"workers {left} outlive their parents: {self.log}"
            time.sleep(0.005)

    def _collect(self, folder: Path, world_size: int, state: dict | None) -> dict | None:
        """Count what was consumed before the newest state of a run, and return that state."""
        if not (folder / "state.json").exists():
            return state
        saved = json.loads((folder / "state.json").read_text())
        assert len(json.dumps(saved["state"])) < 1000 + 300 * len(saved["state"].get("sources", ()))
        for note in _notes(folder):
            if "ids" in note and note["step"] < saved["step"]:
                self.consumed[note["epoch"]].update(note["ids"])
        return saved["state"]


class Patience:
    """Says when ``limit_s`` of waiting are over. Time in which nobody asked doesn't count: all of us may have been
    stopped, jobs too.
    """

    def __init__(self, limit_s: float):
        self._left_s, self._asked = limit_s, time.monotonic()

    def is_over(self) -> bool:
        now = time.monotonic()
        self._left_s, self._asked = self._left_s - min(now - self._asked, 1.0), now
        return self._left_s < 0


class _Command:
    """A subprocess with the interface of a multiprocessing one; killing it kills all that it has started."""

    def __init__(self, process: subprocess.Popen):
        self._process, self.pid = process, process.pid

    def is_alive(self) -> bool:
        return self._process.poll() is None

    @property
    def exitcode(self) -> int | None:
        return self._process.poll()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):  # all of them ended since it was looked at
            os.killpg(self.pid, signal.SIGKILL)


class _Store:
    """The key-value store at which the ranks of one run meet, in a process of its own, as torchrun's agent holds it."""

    def __init__(self, context):
        receiver, sender = context.Pipe(duplex=False)
        with receiver, sender:
            self._process = context.Process(target=_be_a_store, args=(sender, os.getpid()))
            self._process.start()
            self.port = receiver.recv()

    def close(self) -> None:
        self._process.kill()
        self._process.join()


def _be_a_store(sender, parent_pid: int) -> None:
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    sender.send(store.port)
    while os.getppid() == parent_pid:
        time.sleep(1)


def _be_a_rank(spec_path: str, rank: int, world_size: int, store_port: int | None) -> None:
    folder = Path(spec_path).parent
    sys.stderr = open(folder / f"stderr-{rank}", "w")
    if store_port is None:
        trainer.main(spec_path, rank, world_size, f"file://{folder}/store")
        return
    os.environ.update({"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store_port),
                       "TORCHELASTIC_USE_AGENT_STORE": "True"})  # fmt: skip
    trainer.main(spec_path, rank, world_size, "env://")


def _notes(folder: Path) -> list[dict]:
    """Return what all ranks have noted; a line that a killed rank left half written was not noted."""
    lines = [line for path in sorted(folder.glob("rank-*.jsonl")) for line in path.read_text().splitlines(keepends=True)]
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _num_notes(folder: Path) -> int:
    """Return the number of :func:`_notes`, without reading them: this is asked again and again."""
    return sum(path.read_bytes().count(b"\n") for path in folder.glob("rank-*.jsonl"))


def _children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]


def _is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False

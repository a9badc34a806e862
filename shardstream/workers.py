"""The worker processes of a ``StreamLoader``, seen from the process that trains (``Workers``).

No thread of its own: what a worker makes waits in its slots until the training loop asks for the next batch.
Slots are made here and passed as descriptors, so they have no name, and the last process to go takes them along.
"""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import pickle
import select
import signal
import socket
import time
from collections.abc import Iterator
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from typing import Any

import torch

from shardstream import worker as worker_module
from shardstream.buffers import BufferPool
from shardstream.errors import ConfigError, WorkerError
from shardstream.handover import Slot
from shardstream.merge import Part, merge
from shardstream.rowmaker import Loss, Portion, Recipe, Task
from shardstream.source import Source
from shardstream.stats import Stats

NUM_SLOTS = 8  # of each worker: batches made ahead, the one being made and the one being taken
FEW_WORKERS = 16  # more than these have half as many, for each slot is a descriptor here
STOP_S = 1.0  # for all workers together to leave by themselves

# Descriptors of the ends of channels that are this process's; workers made by fork give up what they inherit of them.
_our_ends: set[int] = set()


class Workers:
    """Worker processes that live from the first task to ``stop``.

    Args:
        num_workers: At least 1.
        context: Name of multiprocessing's start method, or such a context.
    """

    def __init__(self, num_workers: int, context: Any):
        self.num_workers = num_workers
        self._context = multiprocessing.get_context(context) if isinstance(context, str) else context
        self._workers: list[_WorkerHandle] = []
        self._source: Source | None = None
        self._generation = 0
        self._pool = BufferPool()
        self.stats = Stats()  #: of all workers, and of taking over what they made
        if self._context.get_start_method() == "forkserver":
            _start_server(self._context)

    def portions(self, task: Task, source: Source, recipe: Recipe) -> Iterator[Portion]:
        """Yield the portion of each batch of a task, merged from the workers' parts.

        Raises:
            WorkerError: A worker was killed or could not start.
            ConfigError: The recipe does not pickle.
            Exception: As a worker met it, at the batch where one process would have met it.
        """
        if source is not self._source:
            self.stop()
            self._start(source, recipe, task.rank)
        self._generation += 1
        generation, finished = self._generation, False
        try:
            for handle in self._workers:
                handle.begin(generation, task, _seed(task, handle.number))
            for t in range(task.plan.num_batches):
                yield self._merged(task, t)
            finished = True
        finally:
            # Left early, by an error or by the loop: nothing stays behind. A newer iterator goes on with the same.
            if not finished and generation == self._generation:
                self.stop()

    def _merged(self, task: Task, t: int) -> Portion:
        loss, parts, slots, begun = Loss(), [], [], time.perf_counter()
        for handle in self._workers:
            if not len(task.plan.positions(t, task.rank, handle.number, self.num_workers)):
                parts.append(Part(None, {}, 0))
                continue
            slot, wires, num_rows, kept, lost, stats = handle.receive(self._generation)
            self.stats.add(**stats)
            parts.append(Part(handle.slots[slot], wires, num_rows, None if kept is None else handle.slots[slot].array(kept)))
            slots.append((handle, slot))
            loss.num_skipped += lost.num_skipped
            loss.num_dropped += lost.num_dropped
            loss.errors += lost.errors
        received = time.perf_counter()
        first = task.plan.first_worker(t, task.rank, self.num_workers)
        portion = merge(parts, first, len(task.plan.positions(t, task.rank)), self._pool)
        for handle, slot in slots:
            handle.free(self._generation, slot)
        portion.loss = loss
        self.stats.add(wait_for_workers=received - begun, hand_over=time.perf_counter() - received)
        return portion

    # -- processes --------------------------------------------------------------------------------

    def _start(self, source: Source, recipe: Recipe, rank: int) -> None:
        method = self._context.get_start_method()
        try:
            with _Luggage(None if method == "fork" else source) as luggage:
                for number in range(self.num_workers):
                    setup = worker_module.Setup(
                        number, self.num_workers, os.getpid(), recipe, source if method == "fork" else None,
                        dict(os.environ) if method == "forkserver" else None)  # fmt: skip
                    self._workers.append(_WorkerHandle(self._context, setup, luggage.fds, rank))
        except BaseException:
            self.stop()
            raise
        self._source = source

    def stop(self) -> None:
        """End all workers and give back all that they used; safe at any time, in any process and repeatedly."""
        workers, self._workers, self._source = self._workers, [], None
        for handle in workers:
            handle.hang_up()
        deadline = time.monotonic() + STOP_S
        for handle in workers:
            handle.close(deadline)


class _Luggage:
    """A memfd with the pickled source, for all workers; no descriptor at all if there is nothing to carry."""

    def __init__(self, source: Source | None):
        self.fds: list[int] = []
        if source is not None:
            self.fds.append(os.memfd_create("shardstream", os.MFD_CLOEXEC))
            with os.fdopen(os.dup(self.fds[0]), "wb") as file:
                pickle.dump(source, file, protocol=5)

    def __enter__(self) -> _Luggage:
        return self

    def __exit__(self, *exception) -> None:
        for fd in self.fds:
            os.close(fd)


class _WorkerHandle:
    """One worker process: its channel, its slots, and how it ends."""

    def __init__(self, context: Any, setup: worker_module.Setup, luggage: list[int], rank: int):
        self.number, self._setup, self._rank = setup.number, setup, rank
        end, their_end = socket.socketpair()
        self._connection = Connection(end.detach())
        self.slots: list[Slot] = []
        self._freed: list[int] = []  # not told yet
        self._process, self._pidfd = None, -1
        try:
            with their_end:
                _our_ends.add(self._connection.fileno())
                self._process = _start_process(context, their_end, setup, f"shardstream-worker-{rank}-{setup.number}")
            self.slots += [Slot.create() for _ in range(NUM_SLOTS if setup.num_workers <= FEW_WORKERS else NUM_SLOTS // 2)]
            with socket.socket(fileno=os.dup(self._connection.fileno())) as end:
                socket.send_fds(end, [b"\0"], [*luggage, *(slot.fd for slot in self.slots)])
            self._poller = select.poll()
            self._poller.register(self._connection.fileno(), select.POLLIN)
            with contextlib.suppress(OSError):  # dead already: then the channel ends, too
                self._pidfd = os.pidfd_open(self._process.pid)
                self._poller.register(self._pidfd, select.POLLIN)
        except BaseException:
            self.hang_up()
            self.close(0.0)
            raise

    def begin(self, generation: int, task: Task, seed: int) -> None:
        """Have it make the rows of a task, with all slots free."""
        self._freed = []
        self.send(("begin", generation, task, seed))

    def send(self, message: tuple) -> None:
        """Send a small message; that a worker is dead is noticed where its rows are missing."""
        with contextlib.suppress(OSError):
            self._connection.send(message)

    def free(self, generation: int, slot: int) -> None:
        """Give a slot back: together with others, since each message wakes the worker up, which on a busy core costs more than a small batch."""
        self._freed.append(slot)
        if len(self._freed) >= (len(self.slots) // 2 if self.slots[slot].nbytes <= worker_module.SMALL_NBYTES else 1):
            self._flush(generation)

    def _flush(self, generation: int) -> None:
        freed, self._freed = self._freed, []
        if freed:
            self.send(("free", generation, freed))

    def receive(self, generation: int) -> tuple:
        """Return the content of the worker's next "rows" message; raise the error it met, or WorkerError if it is dead."""
        while True:
            if not self._poller.poll(0):  # it may be waiting for a slot
                self._flush(generation)
            events = [fd for fd, _ in self._poller.poll()]
            if self._connection.fileno() not in events:
                raise self._death()
            try:
                kind, of_generation, *content = pickle.loads(self._connection.recv_bytes())
            except (EOFError, OSError):
                raise self._death() from None
            if of_generation != generation:
                continue
            if kind == "rows":
                return tuple(content)
            error, cause, text = content
            (cause or error).__cause__ = _RemoteTraceback(text)
            raise error from (cause or error.__cause__)

    def _death(self) -> WorkerError:
        self._process.join(STOP_S)
        code = self._process.exitcode
        if code is not None and code < 0:
            with contextlib.suppress(ValueError):
                code = signal.Signals(-code).name
            how = f"was killed by {code}" + (", as happens when memory runs out" if code == "SIGKILL" else "")
        else:
            how = f"ended with exit code {code}; what it printed says why"
        return WorkerError(f"worker {self.number} of {self._setup.num_workers} on rank {self._rank} (process {self._process.pid}) {how}.")

    def hang_up(self) -> None:
        """Close the channel: the worker leaves at once."""
        if not self._connection.closed:
            _our_ends.discard(self._connection.fileno())
            self._connection.close()

    def close(self, deadline: float) -> None:
        """Give back everything, after ``hang_up``; a worker still there at ``deadline`` (monotonic) is killed."""
        if self._process is not None and os.getpid() == self._setup.parent_pid:
            self._process.join(max(0.0, deadline - time.monotonic()))
            if self._process.exitcode is None:
                self._process.kill()
                self._process.join()
            self._process.close()
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
        while self.slots:
            self.slots.pop().close()


class _RemoteTraceback(Exception):
    """Shows where in the worker an error came from."""

    def __str__(self) -> str:
        return f"in a worker process:\n{self.args[0]}"


def _start_process(context: Any, channel: socket.socket, setup: worker_module.Setup, name: str):
    not_theirs = tuple(_our_ends) if context.get_start_method() == "fork" else ()
    process = context.Process(target=worker_module.run, args=(channel, setup, not_theirs), daemon=True, name=name)
    try:
        process.start()
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ConfigError(f"the stream does not pickle, as its workers need: {error}. Define transform= at the top level of a module, or "
                          "choose multiprocessing_context='fork'.") from error  # fmt: skip
    return process


def _start_server(context: Any) -> None:
    """Have the fork server import torch and this package once, before it makes workers of itself; nothing waits for that here."""
    # What the program itself asked for stays; a server that runs already stays as it is.
    modules = getattr(getattr(forkserver, "_forkserver", None), "_preload_modules", ["__main__"])
    if worker_module.__name__ not in modules:
        context.set_forkserver_preload([*modules, worker_module.__name__])
    with contextlib.suppress(RuntimeError):  # this is the server itself, which imports a program that makes its loader as it is imported
        forkserver.ensure_running()


def _seed(task: Task, number: int) -> int:
    """Return the seed of a worker's generators: another for each worker, rank and epoch, the same in each run of a seeded program."""
    words = torch.initial_seed(), task.state.seed, task.state.epoch, task.plan.start_position, task.rank, number
    return int.from_bytes(hashlib.sha256(repr(words).encode()).digest()[:8], "little") >> 1

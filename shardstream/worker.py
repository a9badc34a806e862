"""A worker process of a ``StreamLoader``: it makes the rows of its positions and hands them over in slots (``run``).

``workers.py`` is the other side. Messages are small pickles over a socket pair; rows travel in shared memory
(``handover.py``):

=====================================================  ====================================================
to the worker                                          from the worker
=====================================================  ====================================================
``("begin", generation, task, seed)``                  ``("rows", generation, slot, wires, num_rows, kept,``
                                                       ``loss, stats)``, one for each batch with positions
``("free", generation, slots)``                        ``("error", generation, error, cause, traceback)``
=====================================================  ====================================================

A worker waits for a free slot before it makes rows, so it is never more than its slots ahead, and no more than ``NUM_LARGE`` if
these are large. It holds nothing that must be put in order at the end: when the socket closes or the parent is gone it leaves at once.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import random
import select
import signal
import socket
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import numpy.ma  # with numpy.random, what numpy imports when they are first used: here once, in the fork server, not in each worker
import numpy.random
import torch

from shardstream.errors import WorkerError
from shardstream.handover import Packer, Slot
from shardstream.reader import BlockReader
from shardstream.rowmaker import Portion, Recipe, RowMaker, Task
from shardstream.source import Source

MAX_FDS = 250  # of one message (SCM_MAX_FD is 253)
SMALL_NBYTES = 2 * 2**20  # of a slot; of larger ones few are used, for they are memory, and slow enough to tell of each that is free
NUM_LARGE = 4


@dataclass(frozen=True)
class Setup:
    """What a worker is told at its start.

    Attributes:
        number, num_workers: Which one it is.
        parent_pid: It leaves when this process is gone.
        recipe: What to make.
        source: What to read; None if it comes pickled in the first descriptor, before those of the slots.
        environment: To take over, where the process does not inherit it; None otherwise.
    """

    number: int
    num_workers: int
    parent_pid: int
    recipe: Recipe
    source: Source | None
    environment: dict[str, str] | None


def run(channel: socket.socket, setup: Setup, not_mine: tuple[int, ...]) -> None:
    """Be a worker until the parent closes the other end of ``channel`` or dies.

    ``not_mine`` are descriptors inherited by fork that are the parent's.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends its workers
    with open(os.devnull, "rb") as nothing:
        for fd in not_mine:
            os.dup2(nothing.fileno(), fd)  # not closed: objects inherited along with it may close it again
    if setup.environment is not None:
        os.environ.clear()
        os.environ.update(setup.environment)
    torch.set_num_threads(1)  # the processes are the parallelism
    _, fds, *_ = socket.recv_fds(channel, 1, MAX_FDS, socket.MSG_CMSG_CLOEXEC)
    connection = Connection(channel.detach())
    messages: queue.SimpleQueue = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, setup.parent_pid, messages), name="shardstream-listen", daemon=True).start()
    source = setup.source
    if source is None:
        with os.fdopen(fds.pop(0), "rb") as luggage:
            source = pickle.loads(os.pread(luggage.fileno(), os.fstat(luggage.fileno()).st_size, 0))
    _Worker(connection, messages, setup, setup.recipe.reader(source), [Slot(fd) for fd in fds]).serve()


def _listen(connection: Connection, parent_pid: int, messages: queue.SimpleQueue) -> None:
    """Pass messages on to the main thread, which may be busy; end the process when there will be no more."""
    poller = select.poll()
    poller.register(connection.fileno(), select.POLLIN)
    with contextlib.suppress(OSError):
        # The socket closes with the parent unless another process inherited it by a fork, which this covers.
        poller.register(os.pidfd_open(parent_pid), select.POLLIN)
    with contextlib.suppress(EOFError, OSError):
        while all(fd == connection.fileno() for fd, _ in poller.poll()):
            messages.put(connection.recv())
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(0)


class _Left(Exception):
    """The parent has begun something else."""


class _Worker:
    def __init__(self, connection: Connection, messages: queue.SimpleQueue, setup: Setup, reader: BlockReader, slots: list[Slot]):
        self._connection, self._messages, self._setup, self._reader, self._slots = connection, messages, setup, reader, slots
        self._packer = Packer()
        self._generation, self._free, self._are_small = 0, [], True
        self._begin: tuple | None = None  # received and not taken up yet

    def serve(self) -> None:
        """Make rows whenever asked, for ever."""
        while True:
            while self._begin is None:
                self._handle(self._messages.get())
            (_, self._generation, task, seed), self._begin = self._begin, None
            self._free = list(range(len(self._slots)))
            _set_seeds(seed)
            try:
                self._make_all(task)
            except _Left:
                continue
            except BaseException as error:  # whatever the user's code raises is the parent's to see
                text = "".join(traceback.format_exception(error))
                self._send("error", _portable(error), error.__cause__ and _portable(error.__cause__), text)

    def _make_all(self, task: Task) -> None:
        which = self._setup.number, self._setup.num_workers
        recipe = self._setup.recipe
        # Rows are gathered, or what a transform made of them is collated, straight into the slot.
        with RowMaker(self._reader, task.order(self._reader.source), task.positions(*which), recipe, self._packer, is_part=True) as maker:
            for num_rows in task.num_rows(*which):
                if num_rows:
                    slot = self._free_slot()
                    self._packer.begin(self._slots[slot])
                    self._hand_over(slot, maker.make(num_rows))

    def _hand_over(self, slot: int, portion: Portion) -> None:
        begun, wires, kept, origins = time.perf_counter(), {}, None, portion.origins or {}
        if portion.num_rows:
            wires = {name: self._packer.pack(column, origins.get(name)) for name, column in portion.columns.items()}
            kept = None if portion.kept is None else self._packer.array(portion.kept)
        self._packer.finish()
        self._are_small = self._slots[slot].nbytes <= SMALL_NBYTES
        self._reader.outside["slots"] = sum(slot.nbytes for slot in self._slots)
        portion.loss.errors = [_portable(error) for error in portion.loss.errors]
        self._reader.stats.add(hand_over=time.perf_counter() - begun)
        self._send("rows", slot, wires, portion.num_rows, kept, portion.loss, self._reader.stats.take())

    def _free_slot(self) -> int:
        """Return the slot that was freed last, which the caches still hold; wait for one."""
        while True:
            with contextlib.suppress(queue.Empty):
                while True:
                    self._handle(self._messages.get_nowait())
            if self._begin is not None:
                raise _Left
            if self._free and (self._are_small or len(self._slots) - len(self._free) < NUM_LARGE):
                return self._free.pop()
            begun = time.perf_counter()
            self._handle(self._messages.get())
            self._reader.stats.add(wait_for_slot=time.perf_counter() - begun)

    def _handle(self, message: tuple) -> None:
        if message[0] == "begin":
            self._begin = message
        elif message[1] == self._generation:
            self._free += message[2]

    def _send(self, kind: str, *content: Any) -> None:
        try:
            self._connection.send_bytes(pickle.dumps((kind, self._generation, *content), protocol=5))
        except OSError:  # the parent has closed the channel: the listener ends the process
            threading.Event().wait()


def _portable(error: BaseException) -> BaseException:
    """Return the error if it survives pickling, otherwise one of ours that says the same."""
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:
        return WorkerError(f"{type(error).__name__}: {error}")


def _set_seeds(seed: int) -> None:
    """Seed the generators that a transform may use: processes forked from one would otherwise all draw the same."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    if torch.version.cuda or torch.version.hip or getattr(torch.version, "xpu", None):
        torch.manual_seed(seed)
    else:  # the same without devices; for each kind of them that call keeps a formatted stack, 4 ms at first
        torch.default_generator.manual_seed(seed)

"""The blocks that a reader holds while it shuffles: which, when, and how many bytes (``WindowReader``).

Positions of the epoch come in *chunks* of whole runs of every lane (``order/``). For each chunk the blocks that
hold its rows are found and, once memory allows, read by a pool of threads. From the first chunk on of which blocks
must be read a planner thread does so, ahead of the consumer, and blocks of the next chunk arrive while this one is
used; before, the consumer's own thread does. A block that two chunks need is read once. What is held: the blocks of
the chunk in use and, as far as ``memory_limit`` allows, those of the next; a chunk is let go of before the next is
waited for, so a batch that lies in two is taken in two pieces. From remote shards blocks come in parts
(``parts.py``): neighbours by one request.

Blocks of an epoch that fits into half of ``memory_limit`` stay for the next ones, which then read and decode nothing.
"""

from __future__ import annotations

import itertools
import math
import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from shardstream._native.gather import NeededBlocks, Rows
from shardstream.budget import MemoryBudget
from shardstream.errors import ConfigError, ShardstreamError
from shardstream.joined import JoinedReader
from shardstream.order.epoch import Chunk, EpochOrder
from shardstream.order.follow import FollowOrder
from shardstream.order.mix_rows import MixRows
from shardstream.parts import PartPlanner
from shardstream.reader import Block, BlockReader

CHUNK_SAMPLES, CHUNK_NBYTES = 4096, 16 * 2**20  # short runs are taken together until a chunk has about either
REST = 16  # of memory_limit a 16th is left to small arrays, to decoders and to what the allocator can't use
FIRST_CHUNK_SAMPLES = 256  # as long as it is not known what a sample takes in memory
CHUNKS_AHEAD, REMOTE_CHUNKS_AHEAD = 2, 8  # remote: enough requests for a link as long as one to S3
SHARD_ROWS = 2**40  # more than a shard has
MAX_TABLE = 2**20  # shards numbered by a table rather than a sort
Key = tuple[int, int]  # (ordinal of the shard in the log, number of the block in it); block -1: the shard's index


@dataclass(frozen=True, eq=False)
class Plan:
    """A chunk's rows of this reader, in position order.

    Attributes:
        keys: The blocks that it needs, in the order in which its rows need them; then those of runs that go on after it.
        places: Of each block, in which lane it is, and where on the epoch line its shard begins; nothing in a mixture.
        rows: Which of the blocks, and which of its rows, each row is.
        num_needed: int64 ``(num_rows,)``: how many of the blocks rows ``0 .. i`` need; they are the first ones.
        failures: The error of each shard whose index could not be read, by its key; its rows stand in that block.
    """

    keys: list[Key]
    places: dict[Key, tuple[int, int]]
    rows: Rows
    num_needed: np.ndarray
    failures: dict[Key, ShardstreamError]


class HeldChunk:
    """A chunk that is being consumed.

    Attributes:
        keys: Its blocks.
        blocks: The first of them, as far as rows that were taken needed them; a failed one is its error.
        num_failed: How many of ``blocks`` are errors.
        nbytes: Memory of ``blocks``.
        table: For whoever consumes it.
    """

    def __init__(self, plan: Plan):
        self.keys, self._rows, self._num_needed, self._next = plan.keys, plan.rows, plan.num_needed, 0
        self.blocks: list[Block | ShardstreamError] = []
        self.num_failed = self.nbytes = 0
        self.table: Any = None

    @property
    def is_used_up(self) -> bool:
        return self._next == self._rows.num_rows

    def take(self, num_rows: int) -> tuple[Rows, int]:
        """Return the next rows, at most ``num_rows``, and how many blocks these and all before need."""
        begin, self._next = self._next, min(self._next + num_rows, self._rows.num_rows)
        return self._rows.part(begin, self._next), int(self._num_needed[self._next - 1])

    def add(self, content: Block | ShardstreamError) -> None:
        """Take in the next block."""
        self.blocks.append(content)
        if isinstance(content, Block):
            self.nbytes += content.nbytes
        else:
            self.num_failed += 1


class WindowReader:
    """Turns ascending ranges of positions into rows of held blocks.

    Args:
        reader: Reads blocks.
        order: The epoch's order: an EpochOrder, or another that has ``chunks``, ``num_samples``, ``lanes`` and ``window``.
        first: First position that this reader owns.
        step: Distance between positions that it owns.
        end: Position to stop before; positions from ``order.num_samples`` on begin the epoch again (padding).
        memory_limit_nbytes: Bound of what is held; what is counted takes at most 15/16 of it.
        num_threads: Threads that read blocks.
    """

    def __init__(self, reader: BlockReader | JoinedReader, order: EpochOrder | FollowOrder | MixRows, first: int, step: int, end: int,
                 memory_limit_nbytes: int, num_threads: int):  # fmt: skip
        self._reader, self._order = reader, order
        self._first, self._step, self._end = first, step, end
        self.budget = MemoryBudget(memory_limit_nbytes - memory_limit_nbytes // REST, reader)
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="shardstream-read")
        self._num_threads, self._num_reading = num_threads, 0
        self._todo: deque[tuple[_Part, dict[Key, _SharedBlock]]] = deque()  # parts to read
        self._shared, reader.kept = reader.kept, {}
        for part, num_blocks in Counter(shared.part for shared in self._shared.values()).items():
            part.num_blocks = num_blocks
            self.budget.adjust(part.nbytes)
        self._keeps = bool(self._shared)
        self._ahead: dict[Key, int] = {}  # blocks that no plan counts on yet, and the position by which one should have
        self._planned: list[Key] = []  # blocks of the newest plan
        self._parts = None
        if reader.source.is_remote and isinstance(order, EpochOrder):  # of local files, neighbours are no cheaper together
            num_lanes = order.lanes // math.gcd(step, order.lanes)
            self._parts = PartPlanner(reader, order, num_lanes, memory_limit_nbytes)
        self._lock = threading.Lock()
        # Queues in C: Ctrl-C in the consumer's thread may leave the lock of a queue.Queue held.
        self._plans: queue.SimpleQueue = queue.SimpleQueue()
        self._room: queue.SimpleQueue = queue.SimpleQueue()  # for so many plans
        for _ in range(REMOTE_CHUNKS_AHEAD if reader.source.is_remote else CHUNKS_AHEAD):
            self._room.put(None)
        self._closed = False
        self._chunk: HeldChunk | None = None  # being consumed
        self._num_taken = 0  # plans
        self._chunks = self._chunks_to_plan()
        self._planner: threading.Thread | None = None  # from when something is to be read

    def take(self, num_rows: int) -> tuple[HeldChunk, Rows]:
        """Return this reader's next rows: at least one and at most ``num_rows``, of one chunk, whose blocks they need are there.

        A chunk's blocks may be let go of when the next rows are asked for.
        """
        self.budget.look()
        if self._chunk is None or self._chunk.is_used_up:
            self._next_chunk()
        chunk = self._chunk
        rows, num_needed = chunk.take(num_rows)
        if num_needed > len(chunk.blocks):
            self._wait_for(chunk, num_needed)
        return chunk, rows

    def close(self) -> None:
        """Stop all threads and let go of all blocks."""
        self._closed = True
        self.budget.close()
        self._room.put(None)  # the planner may wait for it
        if self._planner is not None and self._planner.is_alive():
            self._planner.join()
        self._todo.clear()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._decide_to_keep()
        if self._keeps:
            self._chunk = None
            self._reader.kept = {key: shared for key, shared in self._shared.items() if shared.is_here}
            for shared in self._reader.kept.values():
                shared.num_plans = 0
        # What the next epoch's reader counts begins at 0, so nothing may wait here for a garbage collection, nor this reader itself,
        # to which what makes chunks refers, and an error of the planner.
        self._shared, self._chunk, self._planned, self._ahead = {}, None, [], {}
        self._chunks, self._plans = iter(()), queue.SimpleQueue()

    # -- the consumer's side ----------------------------------------------------------------------

    def _next_chunk(self) -> None:
        if self._chunk is not None:
            with self._lock:
                for key in self._chunk.keys:
                    self._count_off(key)
            self._chunk = None
        begun = time.perf_counter()
        plan = self._plan_here() if self._planner is None else self._planned_ahead()
        self._num_taken += 1
        self._chunk = HeldChunk(plan)
        self._reader.stats.add(wait_for_blocks=time.perf_counter() - begun)

    def _plan_here(self) -> Plan:
        """Plan in the consumer's thread: the first chunk, which it would wait for, and others as long as no block had to be read.

        A thread could then read nothing ahead, and would plan when it gets the interpreter's lock: by C calls as short as those of
        small batches, only every five milliseconds.
        """
        self.budget.wait_for_plan(self._num_taken)
        plan, is_read = self._next_plan()
        if is_read:
            self._planner = threading.Thread(target=self._plan_ahead, args=(plan,), name="shardstream-plan", daemon=True)
            self._planner.start()
        else:
            self.budget.planned += 1
        return plan

    def _planned_ahead(self) -> Plan:
        try:
            plan = self._plans.get_nowait()
        except queue.Empty:
            self.budget.wait_for_plan(self._num_taken)
            plan = self._plans.get()
        if isinstance(plan, BaseException):
            raise plan
        self._room.put(None)
        return plan

    def _wait_for(self, chunk: HeldChunk, num_blocks: int) -> None:
        """Wait for the first blocks of a chunk, as many as are needed now."""
        begun, keys = time.perf_counter(), chunk.keys[len(chunk.blocks) : num_blocks]
        self._shared[keys[-1]].wait()  # the others came before it, mostly: to wake up for each would take the lock from those that read
        for key in keys:
            content = self._shared[key].wait()
            if not isinstance(content, (Block, ShardstreamError)):
                raise content
            chunk.add(content)
        if chunk.nbytes > self.budget.limit_nbytes:  # they were larger than their stored bytes let expect
            raise self._too_large(chunk.nbytes * len(chunk.keys) // len(chunk.blocks), len(chunk.keys))
        self._reader.stats.add(wait_for_blocks=time.perf_counter() - begun)

    def _count_off(self, key: Key) -> None:
        """Note that one less counts on a block; the lock is held."""
        self._shared[key].num_plans -= 1
        if self._shared[key].num_plans == 0 and not self._keeps:
            self._drop(key)

    def _drop(self, key: Key) -> None:
        """Let go of a block; its part's memory is free when all of the part's blocks are let go of."""
        part = self._shared.pop(key).part
        part.num_blocks -= 1
        if part.num_blocks == 0:
            self.budget.adjust(-part.nbytes)

    # -- the planner's side -----------------------------------------------------------------------

    def _next_plan(self) -> tuple[Plan, bool]:
        """Plan the next chunk and have its blocks read; return whether any of them must be."""
        chunk = next(self._chunks, None)
        if chunk is None:
            with self._lock:
                self._let_go()
            raise IndexError(f"there are no positions from {self._end} on.")
        self._decide_to_keep()
        plan = self._plan(chunk)
        return plan, self._request(plan, chunk.epoch_begin + chunk.positions.start)

    def _plan_ahead(self, plan: Plan) -> None:
        """Plan what follows ``plan``, as far as queue and memory allow."""
        try:
            while not self._closed:
                # Local reading has nothing to gain from more requests, and of what only now decodes one knows the size.
                if not self._reader.source.is_remote or not all(self._reader.knows_growth(key[0]) for key in plan.keys if key[1] >= 0):
                    self._wait_until_read(plan)
                self.budget.planned += 1
                plan, _ = self._next_plan()
                self._room.get()
                self._plans.put(plan)
        except BaseException as error:  # handed to the consumer, whose thread raises it
            self._plans.put(error)

    def _decide_to_keep(self) -> None:
        """Keep blocks for the next epoch if all that an epoch holds fits into half of the limit; let go of them if not."""
        if isinstance(self._order, EpochOrder) and self._reader.sample_nbytes is not None:
            keeps = 2 * self._reader.sample_nbytes * self._order.num_samples <= self.budget.limit_nbytes
            has_kept, self._keeps = self._keeps, keeps  # first, so that what the consumer is done with meanwhile goes, too
            if has_kept and not keeps:
                self._drop_kept()

    def _drop_kept(self) -> None:
        with self._lock:
            for key in [key for key, shared in self._shared.items() if shared.num_plans == 0 and key not in self._ahead]:
                self._drop(key)

    def _wait_until_read(self, plan: Plan) -> None:
        with self._lock:
            waiting = [self._shared[key] for key in plan.keys if key in self._shared]
        for shared in reversed(waiting):  # the last one first: to wake up for each would take the interpreter's lock from those that read
            while not self._closed and shared.wait(0.05) is None:
                pass

    def _chunks_to_plan(self) -> Iterator[Chunk]:
        """Yield the order's chunks, of about ``CHUNK_SAMPLES`` or ``CHUNK_NBYTES`` each."""
        nbytes, positions = min(CHUNK_NBYTES, self.budget.limit_nbytes // 8), range(self._first, self._end, self._step)
        stored_nbytes = max(1.0, self._reader.source.mean_sample_nbytes)
        if self._reader.sample_nbytes is None and isinstance(self._order, EpochOrder):
            for chunk in self._order.chunks(positions, min(FIRST_CHUNK_SAMPLES, int(nbytes // stored_nbytes))):
                yield chunk
                positions = positions[len(chunk.positions) :]
                break
        sample_nbytes = max(1.0, self._reader.sample_nbytes or stored_nbytes)
        yield from self._order.chunks(positions, min(CHUNK_SAMPLES, int(nbytes // sample_nbytes)))

    def _plan(self, chunk: Chunk) -> Plan:
        if chunk.shards is not None:
            ordinals, shard_begins, places = chunk.shards[0].tolist(), chunk.shards[1], chunk.line
        else:  # all shards lie end to end, each from a multiple of SHARD_ROWS on, so that no sort is needed
            distinct, number = _numbered(chunk.shard)
            ordinals, shard_begins = distinct.tolist(), np.arange(len(distinct)) * SHARD_ROWS
            places = chunk.row + number * SHARD_ROWS
        starts, failures = self._block_starts([*ordinals, *(span[0] for span in chunk.spans)])
        own = [starts[ordinal] for ordinal in ordinals]
        begins = [of_shard + begin for of_shard, begin in zip(own, shard_begins.tolist())]
        needed = NeededBlocks(np.concatenate([np.empty(0, np.int64), *begins]), places)
        first_block = np.cumsum([0, *map(len, own)])
        shard_of = np.searchsorted(first_block, needed.blocks, "right") - 1
        keys = [(ordinals[shard], block) for shard, block in zip(shard_of.tolist(), (needed.blocks - first_block[shard_of]).tolist())]
        if failures:
            keys = [(ordinal, -1) if (ordinal, -1) in failures else (ordinal, number) for ordinal, number in keys]
        where = {}
        if chunk.shards is not None:
            firsts = needed.first_rows
            lanes = (chunk.positions.start + firsts * chunk.positions.step) % self._order.lanes
            where = dict(zip(keys, zip(lanes.tolist(), shard_begins[shard_of].tolist())))
        keys += _blocks_of([span for span in chunk.spans if (span[0], -1) not in failures], starts, set(keys))
        return Plan(keys, where, needed.rows, needed.num_needed, failures)

    def _block_starts(self, ordinals: list[int]) -> tuple[dict[int, np.ndarray], dict[Key, ShardstreamError]]:
        """Return the rows at which each shard's blocks begin, and errors: a shard without index counts as one block."""
        # All at once: over a network each index is a request, and a window may need a hundred.
        missing = dict.fromkeys(ordinal for ordinal in ordinals if not self._reader.has_index(ordinal))
        indexes = {ordinal: self._pool.submit(self._reader.index, ordinal) for ordinal in missing}
        starts, failures = {}, {}
        for ordinal in dict.fromkeys(ordinals):
            try:
                _, of_blocks = indexes[ordinal].result() if ordinal in indexes else self._reader.index(ordinal)
                starts[ordinal] = of_blocks[:-1]
            except ShardstreamError as error:
                failures[ordinal, -1] = error
                starts[ordinal] = np.zeros(1, np.int64)
        return starts, failures

    def _request(self, plan: Plan, position: int) -> bool:
        """Have the chunk's blocks read, those already here first so that they stay; return whether there are others."""
        with self._lock:
            for key in plan.keys:
                if key in self._shared:
                    self._shared[key].num_plans += 1
                    self._ahead.pop(key, None)
            self._let_go()
            self._drop_ahead(position)
            new = [key for key in plan.keys if key not in self._shared]
        sizes = {key: self._reader.estimate_nbytes(*key) for key in new if key[1] >= 0}
        self._check_limit(plan.keys)
        for key in new:
            if key in plan.failures:
                with self._lock:
                    shared = self._shared[key] = _SharedBlock(_Part(0), 0, 1)
                    shared.set(plan.failures[key])
            elif key not in self._shared:
                self._request_part(key, plan.places.get(key), sizes, position)
        with self._lock:
            for key in plan.keys:
                self._shared[key].num_plans += 1
            self._planned = plan.keys
        return bool(new)

    def _let_go(self) -> None:
        """Let go of the plan before: until the next one has been counted, the planner itself counts on its blocks.

        The consumer may be done with a plan before the next one is made, and blocks of both are not to be read again.
        """
        for key in self._planned:
            self._count_off(key)
        self._planned = []

    def _request_part(self, key: Key, place: tuple[int, int] | None, sizes: dict[Key, int], position: int) -> None:
        """Have a block read by one request with what follows it: all that this chunk needs too, then as far as there is room."""
        followers: list[tuple[Key, int]] = []
        if self._parts is not None and place is not None:
            lane, shard_begin = place
            row_end = int(self._order.lane_begin[lane]) + self._order.lane_length(lane) - shard_begin
            found = [((key[0], block), nbytes) for block, nbytes in self._parts.followers(*key, sizes[key], row_end)]
            followers = list(itertools.takewhile(lambda follower: follower[0] not in self._shared, found))
        needed = list(itertools.takewhile(lambda follower: follower[0] in sizes, followers))
        nbytes = sizes[key] + sum(size for _, size in needed)
        if needed and not self.budget.reserve(nbytes):
            followers, needed, nbytes = [], [], sizes[key]
        if not needed and not self.budget.reserve(nbytes):
            if self._closed:
                raise _Closed
            self._drop_kept()
            with self._lock:
                self._drop_ahead()
            self.budget.expect(nbytes)
        for follower, size in followers[len(needed) :]:
            if not self.budget.has_room(size):
                break
            self.budget.expect(size)
            nbytes += size
            needed.append((follower, size))
            if follower not in sizes:
                pass_begin = position - position % self._order.num_samples
                self._ahead[follower] = pass_begin + self._parts.last_position(shard_begin, lane, *follower)
        part = _Part(nbytes, 1 + len(needed))
        shared = {each: _SharedBlock(part, size, num_plans=int(each in sizes)) for each, size in [(key, sizes[key]), *needed]}
        with self._lock:
            self._shared.update(shared)
        self._have_read(part, shared)

    def _have_read(self, part: _Part, shared: dict[Key, _SharedBlock]) -> None:
        """Have a thread read a part; those that read go on by themselves, so that this costs no Future."""
        self._todo.append((part, shared))
        with self._lock:
            if self._num_reading == self._num_threads:
                return
            self._num_reading += 1
        self._pool.submit(self._read_all)

    def _read_all(self) -> None:
        """Read parts until there are none."""
        while True:
            try:
                todo = self._todo.popleft()
            except IndexError:
                with self._lock:
                    if not self._todo:
                        self._num_reading -= 1
                        return
            else:
                self._read(*todo)

    def _drop_ahead(self, position: int | None = None) -> None:
        """Let go of blocks that no plan counts on: those that should have been needed by ``position``, by default all."""
        for key in [key for key, last in self._ahead.items() if position is None or last <= position]:
            del self._ahead[key]
            self._drop(key)

    def _check_limit(self, keys: list[Key]) -> None:
        needed = sum(self._reader.least_nbytes(*key) for key in keys if key[1] >= 0)
        if needed > self.budget.limit_nbytes:
            raise self._too_large(needed, len(keys))

    def _too_large(self, nbytes: int, num_blocks: int) -> ConfigError:
        what, order, less = "reading in order", "", ""
        if self._order.lanes * self._order.window > 1:
            what, order = "shuffling", f"; {self._order.lanes} lanes, window {self._order.window}"
            less = ", or start with fewer lanes or a smaller window"
        return ConfigError(f"{what} needs {_shown(nbytes)} of blocks at once ({num_blocks} blocks{order}), of memory_limit "
                           f"{_shown(self.budget.limit_nbytes)} are for blocks: raise read=ss.ReadPolicy(memory_limit=...){less}.")  # fmt: skip

    def _read(self, part: _Part, shared: dict[Key, _SharedBlock]) -> None:
        passing = 0
        try:
            passing = sum(self._reader.passing_nbytes(*key) for key in shared)  # may have to load an index once more
            if passing:
                self.budget.expect(passing)
            found = self._reader.read_many(next(iter(shared))[0], [block for _, block in shared])
        except BaseException as error:  # the consumer's thread raises it
            found = [error] * len(shared)
        nbytes = sum(block.nbytes for block in found if isinstance(block, Block))
        self.budget.arrive(part.nbytes + passing, nbytes)
        part.nbytes = nbytes
        for each, block in zip(shared.values(), found):
            if isinstance(block, Block):
                each.nbytes = block.nbytes
            each.set(block)


class _Closed(Exception):
    """The reader was closed while its planner waited for room."""


class _Part:
    """Blocks that came by one request, and are views of one array."""

    def __init__(self, nbytes: int, num_blocks: int = 1):
        self.nbytes, self.num_blocks = nbytes, num_blocks


def _shown(nbytes: int) -> str:
    return f"{nbytes / 1e6:.1f} MB" if nbytes >= 100_000 else f"{nbytes:,} bytes"


def _numbered(shards: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct values, ascending, and which of them each value is."""
    low, high = (int(shards.min()), int(shards.max())) if len(shards) else (0, 0)
    if high - low > MAX_TABLE:
        return np.unique(shards, return_inverse=True)
    is_there = np.zeros(high - low + 1, bool)
    is_there[shards - low] = True
    distinct = np.flatnonzero(is_there)
    number_of = np.zeros(high - low + 1, np.int64)
    number_of[distinct] = np.arange(len(distinct))
    return distinct + low if len(shards) else distinct, number_of[shards - low]


def _blocks_of(spans: Sequence[tuple[int, int, int]], starts: dict[int, np.ndarray], known: set[Key]) -> list[Key]:
    """Return the blocks that overlap the ``spans`` of rows and are not ``known``."""
    found = {}
    for shard, begin, end in spans:
        blocks = range(int(np.searchsorted(starts[shard], begin, "right")) - 1, int(np.searchsorted(starts[shard], end)))
        found.update(dict.fromkeys((shard, block) for block in blocks))
    return [key for key in found if key not in known]


class _SharedBlock:
    """A block on its way or here, and how many chunks count on it."""

    def __init__(self, part: _Part, nbytes: int, num_plans: int):
        self.part, self.nbytes, self.num_plans = part, nbytes, num_plans
        self._content: Block | BaseException | None = None
        self._coming = threading.Lock()  # a Future has a condition and two locks, and blocks come by the thousand
        self._coming.acquire()

    def set(self, content: Block | BaseException) -> None:
        """Let those who wait have what came: the block, or why there is none."""
        self._content = content
        self._coming.release()

    def wait(self, timeout_s: float = -1) -> Block | BaseException | None:
        """Return what came, when it has come; None if it has not within ``timeout_s``."""
        if self._content is None and self._coming.acquire(timeout=timeout_s):
            self._coming.release()
        return self._content

    @property
    def is_here(self) -> bool:
        return isinstance(self._content, Block)

"""The blocks that a reader holds while it shuffles: which, when, and how many bytes (``WindowReader``).

Positions of the epoch come in *chunks* of whole runs of every lane (``order/``). For each chunk a planner
thread finds the blocks that hold its rows, waits until memory allows, and has them read by a pool of threads;
it stays ahead of the consumer, so blocks of the next chunk arrive while this one is used. A block that two
chunks need is read once. What is held: the blocks of the chunk in use and, as far as ``memory_limit`` allows,
those of the next. From remote shards blocks come in parts (``parts.py``): neighbours by one request.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from shardstream.errors import ConfigError, ShardstreamError
from shardstream.order.epoch import Chunk, EpochOrder
from shardstream.order.follow import FollowOrder
from shardstream.order.mix_rows import MixRows
from shardstream.parts import PartPlanner
from shardstream.reader import Block, BlockReader

CHUNK_SAMPLES, CHUNK_NBYTES = 4096, 16 * 2**20  # short runs are taken together until a chunk has about either
CHUNKS_AHEAD = 2
Key = tuple[int, int]  # (ordinal of the shard in the log, number of the block in it); block -1: the shard's index


@dataclass(frozen=True, eq=False)
class Plan:
    """A chunk's rows of this reader, in position order: row ``i`` is row ``row[i]`` of block ``keys[block[i]]``.

    ``failures`` has the error of each shard whose index could not be read, by its key; its rows stand in that block.
    ``places`` says, of each block, in which lane it is, and where on the epoch line its shard begins; nothing in a mixture.
    """

    keys: list[Key]
    places: dict[Key, tuple[int, int]]
    block: np.ndarray
    row: np.ndarray
    failures: dict[Key, ShardstreamError]


class BlockTable:
    """The blocks held, one a slot; slots are reused. Owned by the consumer's thread."""

    def __init__(self):
        self.blocks: list[Block | ShardstreamError | None] = []
        self.keys: list[Key] = []  #: which block is, or was last, in each slot
        self.num_failed = 0  #: slots that hold an error
        self._slot_of: dict[Key, int] = {}
        self._uses: dict[Key, int] = {}
        self._free: list[int] = []
        self.generation = 0  #: changes whenever a slot's content does

    def acquire(self, key: Key, content: Block | ShardstreamError) -> int:
        """Return the slot of a block, putting it there if it is new, and count one more use."""
        if key not in self._slot_of:
            slot = self._free.pop() if self._free else len(self.blocks)
            if slot == len(self.blocks):
                self.blocks.append(None)
                self.keys.append(key)
            self._slot_of[key], self.blocks[slot], self.keys[slot] = slot, content, key
            self.num_failed += not isinstance(content, Block)
            self.generation += 1
        self._uses[key] = self._uses.get(key, 0) + 1
        return self._slot_of[key]

    def release(self, key: Key) -> None:
        """Count one use less; the last one empties the slot."""
        self._uses[key] -= 1
        if self._uses[key] == 0:
            slot = self._slot_of.pop(key)
            del self._uses[key]
            self.num_failed -= not isinstance(self.blocks[slot], Block)
            self.blocks[slot] = None
            self._free.append(slot)
            self.generation += 1


class MemoryBudget:
    """Bytes held by blocks, against a limit; waits in the planner until there is room."""

    def __init__(self, limit_nbytes: int):
        self.limit_nbytes = limit_nbytes
        self.held_nbytes = 0
        self.peak_nbytes = 0
        self._changed = threading.Condition()
        self._is_awaited = False
        self._closed = False

    def reserve(self, nbytes: int) -> bool:
        """Wait until ``nbytes`` more fit, or waiting can't make room; False if the reader was closed meanwhile."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._is_awaited or not self.held_nbytes
                                   or self.held_nbytes + nbytes <= self.limit_nbytes)  # fmt: skip
            self._add(nbytes)
            return not self._closed

    def has_room(self, nbytes: int) -> bool:
        """Return whether ``nbytes`` that are not needed yet may be held: half of the limit is for those that are."""
        return 2 * (self.held_nbytes + nbytes) <= self.limit_nbytes

    def set_awaited(self, is_awaited: bool) -> None:
        """Say whether the consumer is waiting for what is being reserved: then it lets go of nothing before that is there."""
        with self._changed:
            self._is_awaited = is_awaited
            self._changed.notify_all()

    def adjust(self, nbytes: int) -> None:
        """Count ``nbytes`` more (or, negative, less) as held."""
        with self._changed:
            self._add(nbytes)
            self._changed.notify_all()

    def _add(self, nbytes: int) -> None:
        self.held_nbytes += nbytes
        self.peak_nbytes = max(self.peak_nbytes, self.held_nbytes)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class WindowReader:
    """Turns ascending ranges of positions into (slots, rows) of held blocks.

    Args:
        reader: Reads blocks.
        order: The epoch's order: an EpochOrder, or another that has ``chunks``, ``num_samples``, ``lanes`` and ``window``.
        first: First position that this reader owns.
        step: Distance between positions that it owns.
        end: Position to stop before; positions from ``order.num_samples`` on begin the epoch again (padding).
        memory_limit_nbytes: Bound of block data held.
        num_threads: Threads that read blocks.
    """

    def __init__(self, reader: BlockReader, order: EpochOrder | FollowOrder | MixRows, first: int, step: int, end: int,
                 memory_limit_nbytes: int, num_threads: int):  # fmt: skip
        self._reader, self._order = reader, order
        self._first, self._step, self._end = first, step, end
        self.table = BlockTable()
        self.budget = MemoryBudget(memory_limit_nbytes)
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="shardstream-read")
        self._shared: dict[Key, _SharedBlock] = {}
        self._ahead: dict[Key, int] = {}  # blocks that no plan counts on yet, and the position by which one should have
        self._planned: list[Key] = []  # blocks of the newest plan
        self._parts = None
        if reader.source.is_remote and isinstance(order, EpochOrder):  # of local files, neighbours are no cheaper together
            num_lanes = order.lanes // math.gcd(step, order.lanes)
            self._parts = PartPlanner(reader, order, num_lanes, memory_limit_nbytes)
        self._lock = threading.Lock()
        self._plans: queue.Queue = queue.Queue(CHUNKS_AHEAD)
        self._closed = False
        self._chunks: list[_OpenChunk] = []  # being consumed, oldest first
        self._planner = threading.Thread(target=self._plan_all, name="shardstream-plan", daemon=True)
        self._planner.start()

    def take(self, num_rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Return uint32 ``slot`` and ``row`` of this reader's next rows; valid until the next call.

        Slots index ``table.blocks``; a slot may hold the error with which its block failed.
        """
        self._chunks = [chunk for chunk in self._chunks if not self._release_if_done(chunk)]
        slots, rows = [], []
        while num_rows:
            if not self._chunks or self._chunks[-1].num_left == 0:
                self._chunks.append(self._next_chunk())
            slot, row = self._chunks[-1].take(num_rows)
            slots.append(slot)
            rows.append(row)
            num_rows -= len(slot)
        if len(slots) == 1:
            return slots[0], rows[0]
        empty = np.empty(0, np.uint32)
        return np.concatenate([empty, *slots]), np.concatenate([empty, *rows])

    def close(self) -> None:
        """Stop all threads and let go of all blocks."""
        self._closed = True
        self.budget.close()
        while True:  # the planner may wait for room in the queue
            try:
                self._plans.get_nowait()
            except queue.Empty:
                if not self._planner.is_alive():
                    break
                self._planner.join(0.01)
        self._pool.shutdown(wait=True, cancel_futures=True)

    # -- the consumer's side ----------------------------------------------------------------------

    def _next_chunk(self) -> _OpenChunk:
        begun = time.perf_counter()
        try:
            plan = self._plans.get_nowait()
        except queue.Empty:  # rows of the chunks before may still be in the batch being taken, so those stay held
            self.budget.set_awaited(True)
            plan = self._plans.get()
            self.budget.set_awaited(False)
        if isinstance(plan, BaseException):
            raise plan
        slots = np.array([self.table.acquire(key, self._result(key)) for key in plan.keys], np.uint32)
        self._reader.stats.add(wait_for_blocks=time.perf_counter() - begun)
        return _OpenChunk(plan.keys, slots[plan.block], plan.row)

    def _result(self, key: Key) -> Block | ShardstreamError:
        try:
            return self._shared[key].future.result()
        except ShardstreamError as error:
            return error

    def _release_if_done(self, chunk: _OpenChunk) -> bool:
        if chunk.num_left:
            return False
        for key in chunk.keys:
            self.table.release(key)
            with self._lock:
                self._count_off(key)
        return True

    def _count_off(self, key: Key) -> None:
        """Note that one less counts on a block; the lock is held."""
        self._shared[key].num_plans -= 1
        if self._shared[key].num_plans == 0:
            self._drop(key)

    def _drop(self, key: Key) -> None:
        """Let go of a block; its part's memory is free when all of the part's blocks are let go of."""
        part = self._shared.pop(key).part
        part.num_blocks -= 1
        if part.num_blocks == 0:
            self.budget.adjust(-part.nbytes)

    # -- the planner's side -----------------------------------------------------------------------

    def _plan_all(self) -> None:
        try:
            for chunk in self._chunks_to_plan():
                if self._closed:
                    return
                plan = self._plan(chunk)
                if not self._request(plan, chunk.epoch_begin + chunk.positions.start):
                    return
                self._plans.put(plan)
            with self._lock:
                self._let_go()
            self._plans.put(IndexError(f"there are no positions from {self._end} on."))
        except BaseException as error:  # handed to the consumer, whose thread raises it
            self._plans.put(error)

    def _chunks_to_plan(self) -> Iterator[Chunk]:
        """Yield the order's chunks, of about ``CHUNK_SAMPLES`` or ``CHUNK_NBYTES`` each."""
        nbytes = min(CHUNK_NBYTES, self.budget.limit_nbytes // 8)
        by_nbytes = nbytes // max(1, int(self._reader.source.mean_sample_nbytes))
        yield from self._order.chunks(range(self._first, self._end, self._step), min(CHUNK_SAMPLES, by_nbytes))

    def _plan(self, chunk: Chunk) -> Plan:
        shard, row = chunk.shard, chunk.row
        shard_begin = None if chunk.line is None else chunk.line - row
        block, failures = np.empty(len(row), np.int64), {}
        by_shard = np.argsort(shard, kind="stable")
        ordinals, begins = np.unique(shard[by_shard], return_index=True)
        # All at once: over a network each index is a request, and a window may need a hundred.
        indexes = {ordinal: self._pool.submit(self._reader.index, ordinal)
                   for ordinal in dict.fromkeys([*ordinals.tolist(), *(span[0] for span in chunk.spans)])}  # fmt: skip
        for ordinal, mine in zip(ordinals.tolist(), np.split(by_shard, begins[1:])):
            try:
                _, starts = indexes[ordinal].result()
            except ShardstreamError as error:
                failures[ordinal, -1] = error
                block[mine] = -1
                continue
            block[mine] = np.searchsorted(starts, row[mine], "right") - 1
            row[mine] -= starts[block[mine]]
        codes, firsts, inverse = np.unique(shard << 32 | (block + 1), return_index=True, return_inverse=True)
        by_need = np.argsort(firsts)
        rank = np.empty(len(codes), np.int64)
        rank[by_need] = np.arange(len(codes))
        keys = [(code >> 32, (code & 0xFFFFFFFF) - 1) for code in codes[by_need].tolist()]
        places = {}
        if shard_begin is not None:
            lanes = np.array(chunk.positions)[firsts[by_need]] % self._order.lanes
            places = dict(zip(keys, zip(lanes.tolist(), shard_begin[firsts[by_need]].tolist())))
        keys += _blocks_of(chunk.spans, indexes, set(keys))
        return Plan(keys, places, rank[inverse.reshape(-1)], row.astype(np.uint32), failures)

    def _request(self, plan: Plan, position: int) -> bool:
        """Have the chunk's blocks read, those already here first so that they stay; False when closed."""
        with self._lock:
            for key in plan.keys:
                if key in self._shared:
                    self._shared[key].num_plans += 1
                    self._ahead.pop(key, None)
            self._let_go()
            for key in [key for key, last in self._ahead.items() if last <= position]:
                del self._ahead[key]
                self._drop(key)
            new = [key for key in plan.keys if key not in self._shared]
        sizes = {key: self._reader.estimate_nbytes(*key) for key in new if key[1] >= 0}
        self._check_limit(plan.keys, sizes)
        for key in new:
            if key in plan.failures:
                with self._lock:
                    shared = self._shared[key] = _SharedBlock(_Part(0), 0, 1)
                    shared.future.set_exception(plan.failures[key])
            elif key not in self._shared and not self._request_part(key, plan.places.get(key), sizes, position):
                return False
        with self._lock:
            for key in plan.keys:
                self._shared[key].num_plans += 1
            self._planned = plan.keys
        return True

    def _let_go(self) -> None:
        """Let go of the plan before: until the next one has been counted, the planner itself counts on its blocks.

        The consumer may be done with a plan before the next one is made, and blocks of both are not to be read again.
        """
        for key in self._planned:
            self._count_off(key)
        self._planned = []

    def _request_part(self, key: Key, place: tuple[int, int] | None, sizes: dict[Key, int], position: int) -> bool:
        """Have a block read, and what follows it: as far as this chunk needs it too, or there is room."""
        if not self.budget.reserve(sizes[key]):
            return False
        part, shared, followers = _Part(sizes[key]), {}, ()
        shared[key] = _SharedBlock(part, sizes[key], 1)
        if self._parts is not None and place is not None:
            lane, shard_begin = place
            row_end = int(self._order.lane_begin[lane]) + self._order.lane_length(lane) - shard_begin
            followers = self._parts.followers(*key, sizes[key], row_end)
        for block, nbytes in followers:
            follower = (key[0], block)
            if follower in self._shared or not self.budget.has_room(nbytes):
                break
            self.budget.adjust(nbytes)
            part.nbytes += nbytes
            part.num_blocks += 1
            shared[follower] = _SharedBlock(part, nbytes, num_plans=int(follower in sizes))
            if follower not in sizes:
                pass_begin = position - position % self._order.num_samples
                self._ahead[follower] = pass_begin + self._parts.last_position(shard_begin, lane, *follower)
        with self._lock:
            self._shared.update(shared)
        self._pool.submit(self._read, part, shared)
        return True

    def _check_limit(self, keys: list[Key], new: dict[Key, int]) -> None:
        with self._lock:
            needed = sum(new.values()) + sum(self._shared[key].nbytes for key in keys if key in self._shared)
        if needed > self.budget.limit_nbytes:
            raise ConfigError(
                f"shuffling needs {needed / 1e6:.0f} MB of blocks at once ({len(keys)} blocks; {self._order.lanes} lanes, window "
                f"{self._order.window}), memory_limit is {self.budget.limit_nbytes / 1e6:.0f} MB: raise "
                "read=ss.ReadPolicy(memory_limit=...), or start with fewer lanes or a smaller window.")  # fmt: skip

    def _read(self, part: _Part, shared: dict[Key, _SharedBlock]) -> None:
        try:
            found = self._reader.read_many(next(iter(shared))[0], [block for _, block in shared])
        except BaseException as error:  # the consumer's thread raises it
            found = [error] * len(shared)
        nbytes = sum(block.nbytes for block in found if isinstance(block, Block))
        self.budget.adjust(nbytes - part.nbytes)
        part.nbytes = nbytes
        for each, block in zip(shared.values(), found):
            if isinstance(block, Block):
                each.nbytes = block.nbytes
                each.future.set_result(block)
            else:
                each.future.set_exception(block)


class _Part:
    """Blocks that came by one request, and are views of one array."""

    def __init__(self, nbytes: int):
        self.nbytes, self.num_blocks = nbytes, 1


def _blocks_of(spans: Sequence[tuple[int, int, int]], indexes: dict[int, Future], known: set[Key]) -> list[Key]:
    """Return the blocks that overlap the ``spans`` of rows and are not ``known``; a shard whose index failed has none."""
    found = {}
    for shard, begin, end in spans:
        if indexes[shard].exception() is None:
            _, starts = indexes[shard].result()
            blocks = range(int(np.searchsorted(starts, begin, "right")) - 1, int(np.searchsorted(starts, end)))
            found.update(dict.fromkeys((shard, block) for block in blocks))
    return [key for key in found if key not in known]


class _SharedBlock:
    """A block on its way or here, and how many chunks count on it."""

    def __init__(self, part: _Part, nbytes: int, num_plans: int):
        self.part, self.nbytes, self.num_plans = part, nbytes, num_plans
        self.future: Future = Future()


class _OpenChunk:
    """A chunk's rows that are still to be taken."""

    def __init__(self, keys: list[Key], slot: np.ndarray, row: np.ndarray):
        self.keys, self._slot, self._row, self._next = keys, slot, row, 0

    @property
    def num_left(self) -> int:
        return len(self._row) - self._next

    def take(self, num_rows: int) -> tuple[np.ndarray, np.ndarray]:
        begin, self._next = self._next, min(self._next + num_rows, len(self._row))
        return self._slot[begin : self._next], self._row[begin : self._next]

"""The commit rule under every interleaving of writers, lost requests and replies, late requests and crashes.

What runs is :func:`shardstream.log.commit.commit` itself: a generator that asks for puts and gets. The
model answers it in every way that a store and a network can, and follows each answer. Every reachable state
is visited once and checked: some ten thousand in each scenario below.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import cache

import pytest

from shardstream.errors import Conflict
from shardstream.log import ShardRecord, entries, proposals
from shardstream.log.commit import Get, Outcome, Put, commit, create
from shardstream.log.opening import Head
from shardstream.log.state import State, Step, fold
from shardstream.schema import Dense, Schema

UNKNOWN, EXISTS, CREATED = Outcome.UNKNOWN, Outcome.EXISTS, Outcome.CREATED


def uuid(number: int) -> str:
    return f"01890000-0000-7000-8000-{number:012x}"


def record(number: int) -> ShardRecord:
    return ShardRecord(sid=uuid(number), num_samples=1, nbytes=1, index_offset=0, index_nbytes=1, index_crc32c=0)


def fixed(propose, commit_number: int):
    """Return a proposal whose entry is the same in every run: its commit id and time given."""

    def proposed(state: State):
        entry = propose(state)
        fields = {name: getattr(entry, name) for name in entry.__struct_fields__}
        return entries.Entry(**{**fields, "commit": uuid(commit_number), "time": float(entry.version)})

    return proposed


def new_dataset(number: int, schema: Schema | None = None) -> entries.Entry:
    return entries.Entry(format=1, version=0, dataset=uuid(number), commit=uuid(number), time=0.0, kind="create",
                         schema=None if schema is None else schema.to_json())  # fmt: skip


ENTRY_0 = new_dataset(0)
HEAD_0 = Head(fold(None, [Step.of(ENTRY_0)]), (Step.of(ENTRY_0),))
Program = Callable[[], Generator]


def appender(*numbers: int) -> Program:
    """A writer without a producer: commits each shard by itself."""

    def run():
        head = HEAD_0
        for number in numbers:
            propose = proposals.append([record(number)], None, None, None, proposals.UNCHANGED)
            head = yield from commit(head, fixed(propose, number))

    return run


def producer(instance: int, last: int) -> Program:
    """An instance of producer "p": claims, goes on after the last source, and commits records up to ``last``."""

    def run():
        incarnation = uuid(instance)
        head = yield from commit(HEAD_0, fixed(proposals.claim("p", incarnation), instance))
        for number in range((head.state.producers["p"].source or 0) + 1, last + 1):
            propose = proposals.append([record(number)], "p", incarnation, number, proposals.UNCHANGED)
            head = yield from commit(head, fixed(propose, instance + number))

    return run


def compactor(number: int, remove: int) -> Program:
    """Replaces one shard, once it has seen it, by another."""

    def run():
        head = yield from commit(HEAD_0, fixed(proposals.append([], None, None, None, proposals.UNCHANGED), number + 1))
        yield from commit(head, fixed(proposals.replace([uuid(remove)], [record(number)]), number))

    return run


def tagger(number: int, version: int) -> Program:
    """Names a version, once it stands."""

    def run():
        yield from commit(HEAD_0, fixed(proposals.tag("t", version), number))

    return run


def expirer(number: int, below: int) -> Program:
    def run():
        yield from commit(HEAD_0, fixed(proposals.expire(below), number))

    return run


def ender(number: int) -> Program:
    def run():
        yield from commit(HEAD_0, fixed(proposals.end(), number))

    return run


OLD, NEW = Schema(y=Dense("int64")), Schema(y=Dense("int64"), z=Dense("int64", default=0))


def schema_writer(number: int, schema: Schema, *shards: int) -> Program:
    """Commits shards that were written under a schema."""

    def run():
        entry = new_dataset(0, OLD)
        head = Head(fold(None, [Step.of(entry)]), (Step.of(entry),))
        for shard in shards:
            head = yield from commit(head, fixed(proposals.append([record(shard)], None, None, None, schema), number + shard))

    return run


def creator(number: int) -> Program:
    def run():
        yield from create(new_dataset(number))

    return run


# -- one writer as an automaton ------------------------------------------------------------------


@dataclass(frozen=True)
class Writer:
    """A writer waiting for the answer to ``request``; None when it has ended, as ``ended`` says."""

    program: Program
    answers: tuple  # what it has been told, without what leads back to where it was
    request: Put | Get | None
    ended: str = ""


@cache
def step(writer: Writer | Program, answer: Outcome | bytes | None) -> Writer:
    """Return the writer after an answer, by running its code through all of them; a program's first step takes None."""
    if not isinstance(writer, Writer):
        return _run(writer, ())
    answers = (*writer.answers, answer)
    # "Unknown, absent" leads to the same put as before, so told twice it is as good as told once.
    if answers[-4:] == (UNKNOWN, None, UNKNOWN, None) or answers[-3:] == (UNKNOWN, None, UNKNOWN):
        answers = answers[:-2]
    return _run(writer.program, answers)


def _run(program: Program, answers: tuple) -> Writer:
    generator, request, ended = program(), None, ""
    try:
        request = next(generator)
        for answer in answers:
            request = generator.send(answer)
    except StopIteration:
        request, ended = None, "done"
    except Conflict as error:
        request, ended = None, type(error).__name__
    return Writer(program, answers, request, ended)


# -- the world -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class World:
    log: tuple[bytes, ...]
    late: frozenset[tuple[int, bytes]]  # requests that a network still holds
    writers: tuple[Writer | None, ...]  # None has crashed
    faults: int
    crashes: int


def arrived(log: tuple[bytes, ...], put: Put | tuple) -> tuple[bytes, ...]:
    version, data = (put.version, put.data) if isinstance(put, Put) else put
    assert version <= len(log), "a put that would leave a gap"
    return (*log, data) if version == len(log) else log


def successors(world: World):
    for index, writer in enumerate(world.writers):
        if writer is None or writer.request is None:
            continue

        def moved(answer, log=world.log, late=world.late, faults=0, index=index, writer=writer):
            writers = (*world.writers[:index], step(writer, answer), *world.writers[index + 1 :])
            return World(log, late, writers, world.faults - faults, world.crashes)

        request = writer.request
        if isinstance(request, Get):
            yield moved(world.log[request.version] if request.version < len(world.log) else None)
        else:
            yield moved(CREATED if request.version == len(world.log) else EXISTS, arrived(world.log, request))
            if world.faults:
                yield moved(UNKNOWN, faults=1)  # the request is lost, or answered 409, 500, 503
                yield moved(UNKNOWN, arrived(world.log, request), faults=1)  # the reply is lost
                yield moved(UNKNOWN, late=world.late | {(request.version, request.data)}, faults=1)
        if world.crashes:
            writers = (*world.writers[:index], None, *world.writers[index + 1 :])
            sent = {(request.version, request.data)} if isinstance(request, Put) else set()
            for late in {world.late, world.late | sent}:
                yield World(world.log, frozenset(late), writers, world.faults, world.crashes - 1)
    for put in world.late:
        yield World(arrived(world.log, put), world.late - {put}, world.writers, world.faults, world.crashes)


def explore(programs: list[Program], log: tuple[bytes, ...], faults: int, crashes: int):
    """Yield every reachable world once."""
    start = World(log, frozenset(), tuple(step(program, None) for program in programs), faults, crashes)
    seen, stack = {start}, [start]
    while stack:
        world = stack.pop()
        assert len(seen) < 200_000 and len(world.log) < 12, "a writer goes on for ever"
        yield world
        for following in successors(world):
            if following not in seen:
                seen.add(following)
                stack.append(following)


@cache
def worlds(name: str) -> list[World]:
    """Return all reachable worlds of a scenario."""
    programs, faults, crashes = SCENARIOS[name]
    log = (entries.encode(new_dataset(0, OLD)),) if "schema" in name else LOG_0
    return list(explore(programs, log, faults, crashes))


@cache
def decoded(version: int, data: bytes) -> entries.Entry:
    return entries.decode(data, version)


def log_of(world: World) -> list[entries.Entry]:
    return [decoded(version, data) for version, data in enumerate(world.log)]


def is_final(world: World) -> bool:
    return not world.late and all(writer is None or writer.request is None for writer in world.writers)


LOG_0 = (entries.encode(ENTRY_0),)
SCENARIOS = {
    "three writers": ([appender(1), appender(2), appender(3)], 1, 1),
    "two writers, two commits each": ([appender(1, 2), appender(3, 4)], 2, 0),
    "a producer and its successor": ([producer(16, 2), producer(32, 2)], 1, 1),
    "a producer, its successor, and a stranger": ([producer(16, 1), producer(32, 1), appender(64)], 1, 0),
    "three instances of a producer": ([producer(16, 1), producer(32, 1), producer(48, 1)], 0, 1),
    "an end, a producer and an append": ([ender(16), producer(32, 1), appender(1)], 1, 1),
    "an expiry, a tag and an append": ([expirer(16, 1), tagger(32, 0), appender(1)], 1, 1),
    "two tags and an expiry of an appended version": ([appender(1, 2), tagger(32, 1), expirer(16, 2)], 1, 1),
    "a compaction, a tag and an append": ([compactor(16, 1), tagger(32, 1), appender(1)], 1, 1),
    "a schema that grows under two writers": ([schema_writer(16, OLD, 1, 2), schema_writer(32, NEW, 3), schema_writer(64, OLD, 4)], 1, 0),
    "two compactions of one shard": ([appender(1), compactor(16, 1), compactor(32, 1)], 1, 0),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_commit_once_and_no_gap(name):
    """In every reachable state the log has no gap, and each commit at most once."""
    for world in worlds(name):
        commits = [entry.commit for entry in log_of(world)]
        assert len(set(commits)) == len(commits)
    assert len(worlds(name)) > 100


@pytest.mark.parametrize("name", ["three writers", "two writers, two commits each"])
def test_writers_that_finish_are_in_the_log(name):
    """When all is quiet, the log has every shard of the writers that did not crash."""
    shards = {"three writers": [{1}, {2}, {3}], "two writers, two commits each": [{1, 2}, {3, 4}]}[name]
    num_final = 0
    for world in worlds(name):
        if is_final(world):
            num_final += 1
            there = {int(entry.add[0].sid[-12:], 16) for entry in log_of(world)[1:]}
            alive = [wanted for wanted, writer in zip(shards, world.writers, strict=True) if writer is not None]
            assert set().union(*alive) <= there <= set().union(*shards)
            assert all(writer is None or writer.ended == "done" for writer in world.writers)
    assert num_final > 10


@pytest.mark.parametrize("name", ["a producer and its successor", "a producer, its successor, and a stranger"])
def test_a_producer_writes_each_record_once(name):
    """Whatever instances crash, hang, or come back as zombies, a producer's records are in the log once, in order."""
    fenced = 0
    for world in worlds(name):
        log = log_of(world)
        sources = [entry.source for entry in log if entry.producer == "p" and entry.kind == "append"]
        assert sources == list(range(1, len(sources) + 1))
        newest_claim = None
        for entry in log:
            if entry.producer == "p":
                newest_claim = entry.incarnation if entry.kind == "claim" else newest_claim
                assert entry.incarnation == newest_claim, "an append by an instance that was fenced"
        if is_final(world):
            ends = [writer.ended for writer in world.writers[:2] if writer is not None]
            fenced += "ProducerFenced" in ends
            if "done" in ends:
                assert len(sources) == (2 if name == "a producer and its successor" else 1)
    assert fenced


def test_one_of_two_compactions_wins():
    """A shard is replaced once: the other compaction ends in a conflict and writes nothing."""
    for world in worlds("two compactions of one shard"):
        replaced = [entry for entry in log_of(world) if entry.kind == "replace"]
        assert len(replaced) <= 1
        fold(None, [Step.of(entry) for entry in log_of(world)]).shards  # noqa: B018 (raises on a dead shard)


def applied(world: World) -> State:
    return fold(None, [Step.of(entry) for entry in log_of(world)])


def test_three_instances_write_each_record_once():
    """Of three instances that claim and write one record, whatever happens to them, the record is there once at most.
    """
    for world in worlds("three instances of a producer"):
        log = log_of(world)
        assert sum(entry.kind == "append" for entry in log) <= 1
        ends = [writer.ended for writer in world.writers if writer is not None]
        assert ("done" not in ends) or any(entry.kind == "append" for entry in log)


def test_nothing_is_added_after_the_end():
    """Whoever races with the end, no claim and no append stands behind it; those that lost end in a conflict."""
    refused = 0
    for world in worlds("an end, a producer and an append"):
        log = log_of(world)
        ends = [entry.version for entry in log if entry.kind == "end"]
        assert len(ends) <= 1
        for end in ends:
            assert all(entry.kind not in ("claim", "append") for entry in log[end + 1 :])
        if is_final(world):
            refused += sum(writer is not None and writer.ended == "Conflict" for writer in world.writers)
    assert refused


@pytest.mark.parametrize("name", ["an expiry, a tag and an append", "two tags and an expiry of an appended version"])
def test_a_tag_is_kept_or_refused(name):
    """A tagged version never expires, and an expired one is never tagged, in whatever order the two come."""
    outcomes = set()
    for world in worlds(name):
        state = applied(world)
        assert not any(state.expired(version) for version in state.tags.values())
        if is_final(world) and world.writers[1] is not None:
            outcomes.add((world.writers[1].ended, bool(state.kept)))
    assert outcomes >= {("done", True), ("Conflict", False)}


def test_compactions_and_tags_do_not_disturb_each_other():
    """Version 1 names the same shards for ever, whatever is compacted before or after it was tagged."""
    for world in worlds("a compaction, a tag and an append"):
        log = log_of(world)
        state = applied(world)
        if state.tags:
            assert state.tags == {"t": 1} and len(log) > 1
        live = {state.shards.sid(row) for row in range(len(state.shards))}
        added = {shard.sid for entry in log for shard in entry.add}
        assert live == added - {sid for entry in log for sid in entry.remove}


def test_no_shard_of_an_older_schema_follows_a_newer_one():
    """Once fields were added, an append under the old schema is a conflict: its shards would lack them."""
    refused = 0
    for world in worlds("a schema that grows under two writers"):
        grown = False
        for entry in log_of(world)[1:]:
            is_new = entry.commit == uuid(32 + 3)
            assert is_new or not grown
            grown = grown or is_new
        if is_final(world):
            refused += sum(writer is not None and writer.ended == "Conflict" for writer in world.writers)
    assert refused


def test_racing_creators_end_with_one_dataset():
    """Of three creators one makes the dataset, and all of them know it."""
    creators = [creator(1), creator(2), creator(3)]
    for world in explore(creators, (), 2, 1):
        assert len(world.log) <= 1
        for writer in world.writers:
            if writer is not None and writer.ended:
                assert writer.ended == "done" and len(world.log) == 1

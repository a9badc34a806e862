"""Logs made without writing their shards: for tests of opening and folding at any length."""

from __future__ import annotations

import numpy as np

from shardstream.log import ShardRecord, ShardTable, entries, folds, new_id
from shardstream.log.entries import Entry
from shardstream.log.opening import HINT, HINT_ALL
from shardstream.log.state import State, Step, fold

DATASET = "01890000-0000-7000-8000-000000000000"


def record(num_samples: int = 100, **fields) -> ShardRecord:
    """Return a shard's record of plausible numbers and a new sid."""
    numbers = {"nbytes": 64_000_000, "index_offset": 63_990_000, "index_nbytes": 8000, "index_crc32c": 7, **fields}
    return ShardRecord(sid=new_id(), num_samples=num_samples, **numbers)


def entry(version: int, kind: str = "append", **fields) -> Entry:
    """Return an entry of a log of dataset ``DATASET``; appends add one shard unless told otherwise."""
    if kind == "append" and "add" not in fields:
        fields["add"] = (record(),)
    return Entry(format=entries.FORMAT, version=version, dataset=DATASET, commit=new_id(), time=1e9 + version,
                 kind="create" if version == 0 else kind, **({} if version == 0 else fields))  # fmt: skip


def objects(log: list[Entry], with_folds: bool = True) -> dict[str, bytes]:
    """Return the objects that the writers of ``log`` leave, by name."""
    found = {entries.name(each.version): entries.encode(each) for each in log}
    if not with_folds:
        return found
    steps, state = [Step.of(each) for each in log], None
    for version, step in enumerate(steps):
        state = fold(state, [step])
        if version and version % folds.FINE == 0:
            begin, name = folds.piece(version)
            found[name] = folds.encode_all(state) if begin < 0 else folds.encode_tail(DATASET, begin, steps[begin + 1 : version + 1])
            found[HINT] = b"%d" % version
            if begin < 0:
                found[HINT_ALL] = found[HINT]
    return found


def large_state(num_shards: int, version: int, seed: int = 0) -> State:
    """Return the state of a dataset of ``num_shards`` shards, added evenly by entries 1 to ``version``."""
    generator = np.random.default_rng(seed)
    nbytes = generator.integers(60_000_000, 68_000_000, num_shards)
    table = ShardTable({
        "sid": generator.integers(0, 2**64, (num_shards, 2), np.uint64),
        "num_samples": generator.integers(8000, 12000, num_shards),
        "nbytes": nbytes, "index_offset": nbytes - 10_000,
        "index_nbytes": generator.integers(7000, 9000, num_shards),
        "index_crc32c": generator.integers(0, 2**32, num_shards, np.uint32),
        "entry": np.sort(generator.integers(1, version + 1, num_shards)),
    })  # fmt: skip
    return State(DATASET, version, 1e9 + version, None, (table,))


def large_objects(num_shards: int, version: int) -> dict[str, bytes]:
    """Return entry 0, the folds and the last entries of a log of ``version`` entries: enough to open its newest version."""
    base = version // folds.ALL * folds.ALL
    log = [entry(number) for number in range(base + 1, version + 1)]
    steps = [Step.of(each) for each in log]
    found = {entries.name(0): entries.encode(entry(0)), entries.name(base, "all"): folds.encode_all(large_state(num_shards, base))}
    found.update((entries.name(each.version), entries.encode(each)) for each in log)
    for number in range(base + folds.FINE, version + 1, folds.FINE):
        begin, name = folds.piece(number)
        found[name] = folds.encode_tail(DATASET, begin, steps[begin - base : number - base])
        found[HINT] = b"%d" % number
    found.setdefault(HINT, b"%d" % base)
    found[HINT_ALL] = b"%d" % base
    for number in (1, 2):
        found.setdefault(entries.name(number), entries.encode(entry(number)))
    return found

"""Opening a log: few requests whatever its length, and never wrong, whatever is lost beside the entries."""

import time
import tracemalloc
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardstream.errors import Conflict, DatasetError, DatasetNotFoundError
from shardstream.log import entries, folds, proposals
from shardstream.log.opening import HINT, HINT_ALL, Head, Opening, beside
from shardstream.log.state import Step, fold
from shardstream.schema import Dense, Schema
from tests.synthetic_log import SyntheticLog, record
from tests.twins import log as twin

LENGTHS = [0, 1, 2, 3, 4, 5, 15, 16, 63, 64, 67, 99_999, 100_000, 1023, 1024, 1027, 2048, 99_327, 99_391]


def opened(log, version=None):
    opening = Opening(log.read_many, "here")
    return opening.newest() if version is None else opening.at(version)


def summary(state) -> dict:
    """Return a state as the twin writes it."""
    shards = []
    for row in range(len(state.shards)):
        shard = state.shards.record(row)
        fields = {name: getattr(shard, name) for name in shard.__struct_fields__ if getattr(shard, name) is not None}
        shards.append({**fields, "entry": int(state.shards.entry[row])})
    producers = {name: (each.incarnation, each.source, each.version) for name, each in state.producers.items()}
    return {"version": state.version, "shards": shards, "producers": producers, "tags": dict(state.tags), "schema": state.schema,
            "time": state.time, "expired": (state.expired_below, list(state.kept)), "ended": state.ended}  # fmt: skip


@pytest.mark.parametrize("length", LENGTHS)
def test_at_most_14_requests_in_2_rounds(length):
    """The newest version of a log of any length costs at most 14 requests in 2 rounds."""
    log = SyntheticLog(length)
    head = opened(log)
    assert head.state.version == length and len(head.state.shards) == length
    assert log.num_requests <= 14 and len(log.rounds) <= 2


@pytest.mark.parametrize("length", [0, 1])
def test_a_small_dataset_costs_one_round(length):
    """A dataset of one or two entries, the usual fixed dataset, is open after a single round."""
    log = SyntheticLog(length)
    opened(log)
    assert len(log.rounds) == 1


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("gone", ["hint", "all", "coarse", "fine"])
def test_at_most_19_requests_with_one_thing_lost(length, gone):
    """Without the hint, or without any one of the folds that would be read, at most 19 requests."""
    log = SyntheticLog(length)
    lost = {"hint": HINT, "all": entries.name(length // 1024 * 1024, "all"),
            "coarse": entries.name(length // 64 * 64, "tail"), "fine": entries.name(length // 4 * 4, "tail")}[gone]  # fmt: skip
    log.changed[lost] = None
    head = opened(log)
    assert head.state.version == length and len(head.state.shards) == length
    assert log.num_requests <= 19


@pytest.mark.parametrize("length", [5000, 100_000])
@pytest.mark.parametrize("hints", [(None, None), (b"64", b"0"), (b"4", None), (b"", b"junk"), (b"99999999", None), (b"5004", b"5120")])
def test_wrong_hints_cost_requests_only(length, hints):
    """Hints that are absent, stale, too high or junk lead to the same newest version, in at most 100 requests."""
    log = SyntheticLog(length)
    log.changed[HINT], log.changed[HINT_ALL] = hints
    assert opened(log).state.version == length
    assert log.num_requests <= 100


@pytest.mark.parametrize("behind", [0, 1, 3, 4, 5, 60, 70, 400, 3000])
def test_stale_hint(behind):
    """A hint that a slow writer put back is as good as a search."""
    log = SyntheticLog(9999)
    log.changed[HINT] = b"%d" % ((9999 - behind) // 4 * 4)
    assert opened(log).state.version == 9999
    assert log.num_requests <= 130


@pytest.mark.parametrize("version", [0, 1, 5, 64, 1023, 1024, 99_999])
def test_a_pinned_version_costs_one_round(version):
    """Any past version opens in one round of at most 8 requests."""
    log = SyntheticLog(100_000)
    state = opened(log, version).state
    assert (state.version, len(state.shards)) == (version, version)
    assert len(log.rounds) == 1 and log.num_requests <= 8


def test_a_million_shards_open_fast():
    """A million shards load in a fraction of a second's work, at 100 bytes a shard or less, with lazy URLs."""
    log = SyntheticLog(100_000, num_added=10)
    names = [HINT, *(name for _, _, name in folds.cover(100_000)), *(entries.name(v) for v in (0, 1, 2))]
    log.changed.update({name: log.get(name) for name in names})
    tracemalloc.start()
    shards = opened(log).state.shards
    assert len(shards) == 1_000_000
    assert tracemalloc.get_traced_memory()[0] < 100 * 1_000_000
    tracemalloc.stop()
    assert "urls" not in shards.__dict__
    assert shards.sid(999_999) == "01890000-0000-7000-8000-0000000f423f"


def test_a_gap_is_an_error():
    """An entry missing below others, and no fold over it, is no dataset that ends there: it is malformed or absent."""
    log = SyntheticLog(12)
    log.changed[entries.name(5)] = None
    log.changed[entries.name(8, "tail")] = log.changed[entries.name(12, "tail")] = None
    with pytest.raises(DatasetNotFoundError):
        opened(log, 7)


def test_folds_of_a_former_dataset_are_ignored():
    """Folds and hints left from a dataset that stood here before do not mix into the present one."""
    old, log = SyntheticLog(2000), SyntheticLog(40)
    with mock.patch("tests.synthetic_log.DATASET", "01890000-0000-7000-8000-00000000beef"):
        for version in (1024, 1984, 2000, 40):
            name = folds.piece(version)[1]
            log.changed[name] = old.get(name)
    log.changed[HINT], log.changed[HINT_ALL] = b"2000", b"1024"
    assert opened(log).state.version == 40


SCHEMAS = [Schema(x=Dense("int64")), Schema(x=Dense("int64"), y=Dense("int8", default=0))]


@st.composite
def logs(draw):
    """Return the entries of a valid log of all kinds, made by the proposals themselves."""
    found = [proposals.first(SCHEMAS[0])]
    state = fold(None, [Step.of(found[0])])
    for _ in range(draw(st.integers(0, 40))):
        kind = draw(st.sampled_from(["append"] * 6 + ["claim", "produce", "replace", "tag", "untag", "expire", "evolve", "adopt"]))
        number = draw(st.integers(0, 3))
        producer = f"p{number % 2}"
        standing = state.producers.get(producer)
        if kind == "claim":
            propose = proposals.claim(producer, record().sid)
        elif kind == "produce" and standing:
            propose = proposals.append([record()], producer, standing.incarnation, {"at": number}, proposals.UNCHANGED)
        elif kind == "replace" and len(state.shards) > number:
            propose = proposals.replace([state.shards.sid(number)], [record()] * (number % 2))
        elif kind in ("tag", "untag"):
            propose = proposals.tag(f"t{number}", state.version // (number + 1) if kind == "tag" else None)
        elif kind == "expire":
            propose = proposals.expire(max(state.expired_below, state.version - number))
        elif kind == "evolve":
            propose = proposals.append([], None, None, None, SCHEMAS[1])
        else:
            url = "s3://elsewhere/x.tar" if kind == "adopt" else None
            propose = proposals.append([record(url=url) for _ in range(number)], None, None, None, proposals.UNCHANGED)
        try:
            entry = propose(state)
        except Conflict:
            continue
        found.append(entry)
        state = fold(state, [Step.of(entry)])
    return found


def objects(log) -> dict[str, bytes]:
    """Return the objects that the writers of ``log`` leave, by name."""
    found = {entries.name(each.version): entries.encode(each) for each in log}
    head = Head(fold(None, [Step.of(log[0])]), (Step.of(log[0]),))
    for each in log[1:]:
        head = head.after([Step.of(each)])
        found.update(beside(head))
    return found


@settings(max_examples=80, deadline=None)
@given(log=logs(), data=st.data())
def test_opening_equals_reading_every_entry(log, data):
    """Whatever is lost, cut, flipped or stale among folds and hints, opening gives what reading all entries gives."""
    with mock.patch.multiple(folds, ALL=16, COARSE=4, FINE=2):
        store = objects(log)
        for name in sorted(store):
            if not name.endswith(".json"):
                _spoil(store, name, data)
        expected = twin.opened(store.get)
        state = Opening(lambda names: [store.get(name) for name in names], "here").newest().state
        assert summary(state) == expected


PLACES = st.integers(0, 1 << 20)  # taken modulo the length, which differs by a digit of a time stamp


def _spoil(store: dict[str, bytes], name: str, data) -> None:
    spoilt, old = data.draw(st.sampled_from(["whole", "whole", "lost", "cut", "flip", "swap"])), store[name]
    if spoilt == "lost":
        del store[name]
    elif spoilt == "cut":
        store[name] = old[: data.draw(PLACES) % len(old)]
    elif spoilt == "flip":
        place = data.draw(PLACES) % len(old)
        store[name] = old[:place] + bytes([old[place] ^ 1 << data.draw(st.integers(0, 7))]) + old[place + 1 :]
    elif spoilt == "swap":
        store[name] = store[data.draw(st.sampled_from(sorted(store)))]


@settings(max_examples=40, deadline=None)
@given(log=logs(), version=st.integers(0, 40))
def test_every_version_equals_reading_up_to_it(log, version):
    """A pinned version is what reading the entries up to it gives."""
    version = min(version, len(log) - 1)
    with mock.patch.multiple(folds, ALL=16, COARSE=4, FINE=2):
        store = objects(log)
        state = Opening(lambda names: [store.get(name) for name in names], "here").at(version).state
    below = {name: data for name, data in store.items() if name <= entries.name(version)}
    assert summary(state) == twin.opened(below.get)


def test_folds_have_no_time_in_them():
    """Two writers that race to put a fold put the same bytes, whenever and wherever they do."""
    state = SyntheticLog(1024).state(1024)
    first = folds.encode_all(state)
    with mock.patch("time.time", lambda: 0), mock.patch("time.localtime", lambda *_: time.gmtime(0)):
        assert folds.encode_all(state) == first


def test_folds_are_plain_npz(tmp_path):
    """numpy alone reads a fold's columns."""
    (tmp_path / "x.npz").write_bytes(folds.encode_all(SyntheticLog(1024).state(1024)))
    with np.load(tmp_path / "x.npz") as arrays:
        assert arrays["sid"].shape == (1024, 2) and arrays["num_samples"].shape == (1024,)


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=400))
def test_entry_decoding_is_total(data):
    """Any bytes are an entry or a DatasetError that names the entry."""
    with pytest.raises(DatasetError, match="0000000007"):
        entries.decode(data, 7)


ENTRY = entries.encode(SyntheticLog(3).entry(3))


@settings(max_examples=300, deadline=None)
@given(place=st.integers(0, 10_000), value=st.integers(0, 255))
def test_a_changed_byte_in_an_entry_is_contained(place, value):
    """An entry with a changed byte is a DatasetError, or an entry where its checksum was changed with it."""
    data = bytearray(ENTRY)
    data[place % len(data)] = value
    if data != ENTRY:
        with pytest.raises(DatasetError):
            entries.decode(bytes(data), 3)
    try:
        entries.decode(entries.sealed(bytes(data[: -entries.SEAL_NBYTES]) + b"}"), 3)
    except DatasetError:
        pass


@pytest.mark.parametrize("text, message", [
    (b'{"format": 2}', "format 2; this shardstream reads up to 1"),
    (b'{"format":2,"version":7,"kind":"brand new"}', "format 2"),
    (b"[" * 100_000, "not a log entry"),
    (entries.sealed(b'{"format":1,"version":7}'), "dataset"),
    (b'{"format":1,"version":7}', "checksum"),
    (entries.sealed(b'{"format":2,"version":7}'), "format 2"),
])  # fmt: skip
def test_malformed_entries_say_what_is_wrong(text, message):
    """A newer format asks for an upgrade; anything else says which rule it breaks."""
    with pytest.raises(DatasetError, match=message):
        entries.decode(text, 7)


@pytest.mark.parametrize("fields, message", [
    ({"version": 6}, "says that it is entry 6"), ({"kind": "create"}, "entry 0, and no other"),
    ({"kind": "tag"}, "has no 'tag'"), ({"kind": "end", "remove": ["01890000-0000-7000-8000-000000000000"]}, "must not have 'remove'"),
    ({"schema": [{"name": "X", "kind": "text"}]}, "field name"), ({"dataset": "x"}, "dataset"), ({"time": -1.0}, "time"),
])  # fmt: skip
def test_entries_that_break_a_rule(fields, message):
    """Each rule of docs/FORMAT.md about an entry's fields is checked."""
    good = {"format": 1, "version": 7, "dataset": "01890000-0000-7000-8000-000000000000", "time": 1.0,
            "commit": "01890000-0000-7000-8000-000000000000", "kind": "append"}  # fmt: skip
    assert entries.decode(entries.sealed(entries.ENCODER.encode(good)), 7).kind == "append"
    with pytest.raises(DatasetError, match=message):
        entries.decode(entries.sealed(entries.ENCODER.encode({**good, **fields})), 7)

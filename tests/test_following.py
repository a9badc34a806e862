"""Streams that follow: every sample once, in an order that depends on the log alone, whoever reads when."""

import json
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import shardstream as ss
from shardstream import following
from shardstream.log import EntryFeed, Log
from shardstream.storage import Store
from tests.follow_lineage import FollowLineage
from tests.growing_log import SCHEMA, GrowingLog
from tests.test_exactly_once import WorkersHere
from tests.twins import follow as twin


@pytest.fixture(scope="module")
def growing(tmp_path_factory):
    """A log of 30 entries of all kinds."""
    return GrowingLog(tmp_path_factory.mktemp("growing") / "whole", 30, most=40)


@pytest.fixture
def grows_when_read(monkeypatch):
    """Return a function: whenever somebody looks for new entries, the log given to it may have grown by some."""

    def grow(shown, choose: random.Random) -> None:
        def read(feed):
            shown.show(choose.choice([0, 0, 1, 4]))
            return plain(feed)

        monkeypatch.setattr(EntryFeed, "read", read)

    plain = EntryFeed.read
    return grow


@pytest.fixture(autouse=True)
def quick_polls(monkeypatch):
    """Look at the log every few milliseconds, so that no test waits."""
    monkeypatch.setattr(following, "POLL_S", 0.002)


def ids_of(batches) -> list[int]:
    return [int(i) for batch in batches for i in batch["y"]]


# -- every sample once, whatever happens --------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:each block is fetched", "ignore:version")
@pytest.mark.parametrize("seed", range(16))
def test_lineages_deliver_the_twins_sequence(growing, tmp_path, grows_when_read, seed):
    """Ranks follow a growing log, crash and go on in other topologies: together they get the twin's sequence, once."""
    choose = random.Random(seed)
    order = {"shuffle": True, "seed": choose.randrange(100), "lanes": (lanes := choose.choice([1, 3, 12, 96])),
             "window": choose.choice([lanes, 60, 1000])}  # fmt: skip
    if choose.random() < 0.2:
        order = {}
    start, group, until = choose.choice([None, "beginning", "end", 7]), choose.choice([1, 1, 2, 5]), choose.choice([None, None, 24])
    shown = growing.shown(tmp_path / "shown", choose.randint(8, 15))
    expected = _expected(growing, shown.num_entries - 1, start, order, group, until)
    state = before = ss.ShardStream(shown.url, follow=True, rank=0, world_size=1, **order, start=start,
                                    follow_group=group).state_dict()  # fmt: skip
    grows_when_read(shown, random.Random(seed))
    consumed = []
    for _ in range(100):
        world_size, num_workers = choose.choice([1, 1, 2, 3, 4]), choose.choice([0, 0, 1, 2])
        options = {"batch_size": choose.choice([1, 4, 11, 40]), **order, "start": start, "until": until,
                   "follow_group": group}  # fmt: skip
        state, got, is_over = _run(shown, state, world_size, num_workers, options, choose)
        if choose.random() < 0.2 and not is_over:
            state = before  # it crashed before this state was saved
            continue
        consumed, before = consumed + got, state
        if is_over:
            break
    assert consumed == expected
    assert state["position"] == len(expected)


def _expected(growing, version, start, order, group, until) -> list[int]:
    at = {None: version, "end": version, "beginning": 0}.get(start, start)
    whole = None if start in ("beginning", "end") else growing.shards_at(at)
    return twin.sequence(growing.entries, start=at, whole=whole, group=group, until=until,
                         **{"shuffle": False, **order, "window": max(order.get("window", 1) // order.get("lanes", 1), 1) * order.get("lanes", 1)})  # fmt: skip


def _run(shown, state, world_size, num_workers, options, choose):
    """One run of the job, its ranks in turn; returns the state at its end, what it consumed, and whether the log was
    over.
    """
    limit, saved, parts, is_over = choose.choice([0, 1, 3, 10**9]), [], [], False
    for rank in range(world_size):
        stream = ss.ShardStream(shown.url, follow=True, rank=rank, world_size=world_size, **options)
        stream.load_state_dict(state)
        iterator = stream.iterate(WorkersHere(num_workers, stream).portions if num_workers else stream.portions)
        batches = []
        for _ in range(limit):
            batch = next(iterator, None)
            if batch is None:
                is_over = True
                break
            batches.append(batch["y"].tolist())
        saved.append(stream.state_dict())
        iterator.close()
        parts.append(batches)
    assert all(other == saved[0] for other in saved)
    assert len(json.dumps(saved[0])) < 1000 and len({len(batches) for batches in parts}) == 1
    got = []
    for batch in zip(*parts, strict=True):  # position p is row p div world_size of rank p mod world_size
        position = state["position"] + len(got)
        ranks = [iter(batch[rank]) for rank in range(world_size)]
        got += [next(ranks[(position + i) % world_size]) for i in range(sum(map(len, batch)))]
    return saved[0], got, is_over




@pytest.mark.parametrize("num_workers", [1, 3])
def test_worker_processes_are_told_of_new_segments(growing, tmp_path, grows_when_read, num_workers):
    """Real worker processes give the batches of one process, over a log that grows while they read."""
    options = {"follow": True, "start": "beginning", "batch_size": 17, "shuffle": True, "seed": 5, "lanes": 12,
               "window": 60}  # fmt: skip
    expected = [batch["t"].offsets.tolist() + batch["y"].tolist() for batch in ss.ShardStream(str(growing.folder), sparse="jagged", **options)]
    shown = growing.shown(tmp_path / "shown", 3)
    grows_when_read(shown, random.Random(0))
    stream = ss.ShardStream(shown.url, sparse="jagged", **options)
    loader = ss.StreamLoader(stream, num_workers, multiprocessing_context="fork")
    assert [batch["t"].offsets.tolist() + batch["y"].tolist() for batch in loader] == expected


def test_samples_one_by_one_and_dropped_rows(growing):
    """Without a batch size samples come one by one; those that a transform drops are consumed all the same."""
    options = {"follow": True, "start": "beginning", "shuffle": True, "seed": 1, "lanes": 3, "window": 60}
    whole = [int(sample["y"]) for sample in ss.ShardStream(str(growing.folder), **options)]
    assert sorted(whole) == list(range(growing.num_samples))
    stream = ss.ShardStream(str(growing.folder), transform=lambda sample: sample if sample["y"] % 3 == 0 else None, **options)
    assert [int(sample["y"]) for sample in stream] == [i for i in whole if i % 3 == 0]
    assert stream.state_dict()["position"] == growing.num_samples


# -- entries to segments ------------------------------------------------------------------------------


def segments_of(growing, **options) -> list[following.Segment]:
    """Return the segments of the whole log from its beginning."""
    segmenter = following.Segmenter("/d", following.FollowOptions(**options), 0, 0)
    steps = Log(Store(str(growing.folder))).feed(growing.dataset, 0)
    segments = []
    while found := steps.read():
        segments += [segment for step in found if not segmenter.is_over and (segment := segmenter.add(step)) is not None]
    return segments


def test_an_entry_that_adds_is_a_segment_and_all_others_are_passed_over(growing):
    """Claims, tags and replacements are in no segment; what replacements removed still comes where it was added."""
    adding = [(version, sum(map(len, shards))) for version, kind, shards in growing.entries if kind == "append"]
    assert {kind for _, kind, _ in growing.entries} == {"create", "append", "claim", "tag", "replace", "end"}
    assert [(segment.version, segment.end - segment.base) for segment in segments_of(growing)] == adding


@pytest.mark.parametrize("group", [2, 3, 7, 1000])
def test_groups_are_whole_but_for_the_last(growing, group):
    """A segment is so many entries that add; the last one ends with the log, or with ``until``."""
    adding = [version for version, kind, _ in growing.entries if kind == "append"]
    ends = [segment.version for segment in segments_of(growing, group=group)]
    whole = adding[group - 1 :: group]
    assert ends == whole + ([len(growing.entries) - 1] if len(adding) % group else [])
    until = adding[10]
    assert segments_of(growing, group=group, until=until)[-1].version == until


def test_a_group_that_until_cut_stays_cut(growing):
    """A state whose last segment was ended by ``until`` goes on behind it, whatever ``until`` is next."""
    options = {"follow": True, "start": "beginning", "batch_size": 7, "follow_group": 5, "shuffle": True, "lanes": 4,
               "window": 40}  # fmt: skip
    first = ss.ShardStream(str(growing.folder), until=8, **options)
    got = ids_of(first)
    second = ss.ShardStream(str(growing.folder), **options)
    second.load_state_dict(first.state_dict())
    assert sorted(got + ids_of(second)) == list(range(growing.num_samples))
    with pytest.raises(ss.ConfigError, match="until=5 has passed: the run stands at version"):
        again = ss.ShardStream(str(growing.folder), until=5, **options)
        again.load_state_dict(second.state_dict())
        list(again)


# -- waiting, and what can be seen of it ------------------------------------------------------------


def test_idle_polls_are_one_request_each(growing, tmp_path, monkeypatch):
    """While nothing comes, a look at the log is one GET of the next number, and the wait doubles up to a second."""
    monkeypatch.setattr(following, "IDLE_AFTER_S", 0.0)
    monkeypatch.setattr(following, "IDLE_POLL_S", 0.016)
    shown, names = growing.shown(tmp_path / "shown", 6), []
    stream = ss.ShardStream(shown.url, follow=True, batch_size=10**6, idle_timeout=0.4)
    stream.state_dict()
    plain = Store.read
    monkeypatch.setattr(Store, "read", lambda store, name, *rest: names.append((name, time.monotonic())) or plain(store, name, *rest))
    assert list(stream) == []
    polls = [(name, when) for name, when in names if name == "_log/00000000000000000006.json"]
    opening = [name for name, _ in names if name != "_log/00000000000000000006.json"]
    assert 5 <= len(polls) and len(opening) <= 9  # the version that it begins with is opened once
    assert names[-1] == polls[-1] and [when for _, when in polls[-2:]] == sorted(when for _, when in polls[-2:])
    gaps = [later - earlier for (_, earlier), (_, later) in zip(polls, polls[1:])]
    assert all(gap >= wait for gap, wait in zip(gaps, [0.004, 0.008] + [0.016] * len(gaps)))


def test_workers_never_look_at_the_log(growing, tmp_path, monkeypatch):
    """Only the process of the loader polls: in its workers, reading the log would be an error."""
    import os

    mine, plain = os.getpid(), Log._read_many

    def read_many(log, names):
        assert os.getpid() == mine, "a worker reads the log"
        return plain(log, names)

    monkeypatch.setattr(Log, "_read_many", read_many)
    stream = ss.ShardStream(str(growing.folder), follow=True, start="beginning", batch_size=50, shuffle=True)
    assert sorted(ids_of(ss.StreamLoader(stream, 2, multiprocessing_context="fork"))) == list(range(growing.num_samples))


def test_freshness_and_lag(tmp_path):
    """Freshness is the age of the newest consumed sample's commit; lag is what is committed and not consumed."""
    url = str(tmp_path / "d")
    with ss.ShardWriter(url, schema=SCHEMA, producer="p") as writer:
        for i in range(50):
            writer.write({"y": i, "t": []})
            if i % 10 == 9:
                writer.flush()
    stream = ss.ShardStream(url, follow=True, start="beginning", batch_size=10)
    assert stream.freshness is None and stream.lag is None
    iterator = iter(stream)
    next(iterator)
    next(iterator)
    now, times = time.time(), [Log(Store(url)).entry(version).time for version in range(2, 7)]
    assert now - times[1] <= stream.freshness <= time.time() - times[1]
    while stream.lag < 30:
        time.sleep(0.005)  # the follower's thread is still reading
    assert stream.lag == 30
    stream.stop()
    assert next(iterator, None) is None
    assert ss.ShardStream(url).lag is None


def test_lag_counts_what_is_too_far_ahead_to_be_known(growing, monkeypatch):
    """A run that is further behind than it reads ahead counts the rest when asked, without keeping it."""
    monkeypatch.setattr(following, "MAX_SEGMENTS", 2)
    monkeypatch.setattr(following, "SEGMENTS_AT_ONCE", 1)
    stream = ss.ShardStream(str(growing.folder), follow=True, start="beginning", batch_size=1)
    for num, _ in enumerate(stream, 1):
        follower = stream._follower
        if num % 40 == 1:
            while len(follower._segments) < 2 and not follower._segmenter.is_over:
                time.sleep(0.001)  # its thread is still reading
            assert stream.lag == growing.num_samples - num
        assert len(follower._segments) <= 1 + 16  # what one look brings
    assert num == growing.num_samples


def test_lag_may_be_asked_by_several_threads(growing, monkeypatch):
    """A monitor beside the loop: entries that two threads count at once are counted once."""
    monkeypatch.setattr(following, "MAX_SEGMENTS", 2)
    monkeypatch.setattr(following, "SEGMENTS_AT_ONCE", 1)
    stream = ss.ShardStream(str(growing.folder), follow=True, start="beginning", batch_size=1)
    iterator, plain, meet = iter(stream), EntryFeed.read, threading.Barrier(2)
    next(iterator)
    while len(stream._follower._segments) < 2:
        time.sleep(0.001)

    def slow(feed):
        if feed is stream._follower._counter:
            time.sleep(0.01)  # the other thread comes meanwhile
        return plain(feed)

    def ask():
        meet.wait()
        return stream.lag

    monkeypatch.setattr(EntryFeed, "read", slow)
    with ThreadPoolExecutor(2) as pool:
        assert [future.result() for future in [pool.submit(ask), pool.submit(ask)]] == [growing.num_samples - 1] * 2
    assert stream.lag == growing.num_samples - 1
    iterator.close()


def test_a_run_keeps_the_columns_it_began_with(tmp_path):
    """Fields that a writer adds while a run follows come with its next start, which has them of all samples."""
    url, old = str(tmp_path / "d"), ss.Schema(y=ss.Dense("int64"))
    new = ss.Schema(y=ss.Dense("int64"), z=ss.Dense("float32", default=-1.0))
    with ss.ShardWriter(url, schema=old) as writer:
        writer.write_batch({"y": np.arange(4)})
    stream = ss.ShardStream(url, follow=True, start="beginning", batch_size=2, until=2)
    iterator = iter(stream)
    assert list(next(iterator)) == ["y"]
    state = stream.state_dict()
    with ss.ShardWriter(url, schema=new) as writer:
        writer.write_batch({"y": np.arange(4, 8), "z": np.ones(4, np.float32)})
    assert [{name: column.tolist() for name, column in batch.items()} for batch in iterator] == [{"y": [2, 3]}, {"y": [4, 5]}, {"y": [6, 7]}]
    again = ss.ShardStream(url, follow=True, batch_size=2, until=2)
    again.load_state_dict(state)
    assert [(batch["y"].tolist(), batch["z"].tolist()) for batch in again] == [([2, 3], [-1, -1]), ([4, 5], [1, 1]), ([6, 7], [1, 1])]


def test_stop_ends_a_wait_at_once_and_leaves_a_whole_state(growing, tmp_path):
    """stop() from another thread ends a loop that waits; a resume has the rest, the left over rows included."""
    shown = growing.shown(tmp_path / "shown", 8)
    stream = ss.ShardStream(shown.url, follow=True, start="beginning", batch_size=9)
    threading.Timer(0.2, stream.stop).start()
    begin, got = time.monotonic(), ids_of(stream)
    assert time.monotonic() - begin < 30 and len(got) % 9 == 0
    shown.show(100)
    again = ss.ShardStream(shown.url, follow=True, batch_size=4)
    again.load_state_dict(stream.state_dict())
    assert got + ids_of(again) == list(range(growing.num_samples))


def test_idle_timeout_never_cuts_a_batch(growing, tmp_path):
    """After the timeout the iterator ends with whole batches; a new one goes on with what was left over."""
    shown = growing.shown(tmp_path / "shown", 8)
    stream = ss.ShardStream(shown.url, follow=True, start="beginning", batch_size=9, idle_timeout="50ms")
    sizes = [len(batch["y"]) for batch in stream]
    assert set(sizes) == {9} and 0 < stream.lag < 9
    shown.show(100)
    sizes += [len(batch["y"]) for batch in stream]
    assert sum(sizes) == growing.num_samples and set(sizes[:-1]) == {9}


def test_a_timeout_of_nothing_takes_what_stands(growing, tmp_path):
    """The timeout counts from when the log has been read to its end, so even 0 s brings all whole batches that are
    there.
    """
    shown = growing.shown(tmp_path / "shown", 20)
    stream = ss.ShardStream(shown.url, follow=True, start="beginning", batch_size=9, idle_timeout=0)
    num_there = sum(len(shard) for _, kind, shards in growing.entries[:20] if kind == "append" for shard in shards)
    assert len(ids_of(stream)) == num_there // 9 * 9


def test_an_iterator_left_early_ends_its_thread(growing):
    """Nothing polls on after a loop was left, by break or by an error."""
    stream = ss.ShardStream(str(growing.folder), follow=True, start="beginning", batch_size=9)
    for _ in stream:
        break
    iterator = iter(stream)
    next(iterator)
    iterator.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "shardstream-follow"]


# -- errors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options, match", [
    ({"version": 3}, "start="), ({"epochs": 2}, "one epoch"), ({"drop_last": "pad"}, "pad"), ({"until": -1}, "until"),
    ({"until": True}, "until"), ({"follow_group": 0}, "follow_group"), ({"idle_timeout": "soon"}, "idle_timeout"),
    ({"start": ""}, "version"), ({"follow": 1}, "follow=1"), ({"follow": False, "until": 3}, "need follow=True"),
    ({"follow": False, "start": "end"}, "need follow=True")])  # fmt: skip
def test_bad_arguments_are_config_errors(growing, options, match):
    with pytest.raises(ss.ConfigError, match=match):
        ss.ShardStream(str(growing.folder), **{"follow": True, **options})


def test_what_only_one_process_may_do(growing):
    """Several ranks end at the same batch, so only by the log; a plain DataLoader's workers can't follow."""
    from torch.utils.data import DataLoader

    url = str(growing.folder)
    with pytest.raises(ss.ConfigError, match="2 ranks"):
        ss.ShardStream(url, follow=True, start=3, rank=0, world_size=2, idle_timeout=1).state_dict()
    stream = ss.ShardStream(url, follow=True, start=3, rank=0, world_size=2)
    with pytest.raises(ss.ConfigError, match="until="):
        stream.stop()
    with pytest.raises(ss.ConfigError, match="StreamLoader"):
        list(DataLoader(ss.ShardStream(url, follow=True), batch_size=None, num_workers=1, multiprocessing_context="fork"))
    with pytest.raises(TypeError, match="no length"):
        len(ss.ShardStream(url, follow=True))
    with pytest.raises(ss.ConfigError, match="one epoch"):
        ss.ShardStream(url, follow=True).set_epoch(1)
    with pytest.raises(ss.ConfigError, match="names shards"):
        list(ss.ShardStream([*map(str, Path(url).glob("*.tar"))], follow=True))
    with pytest.raises(ss.DatasetNotFoundError):
        list(ss.ShardStream(f"{url}-none", follow=True))
    with pytest.raises(ss.DatasetNotFoundError, match="no version 99"):
        list(ss.ShardStream(url, follow=True, start=99))


def test_states_of_another_kind_are_refused(growing):
    """A state says whether it follows, and in which groups."""
    url = str(growing.folder)
    following_, plain = ss.ShardStream(url, follow=True, follow_group=3), ss.ShardStream(url)
    with pytest.raises(ss.StateError, match="with follow=True, but this one is without"):
        ss.ShardStream(url).load_state_dict(following_.state_dict())
    with pytest.raises(ss.StateError, match="without follow=True, but this one is with"):
        ss.ShardStream(url, follow=True).load_state_dict(plain.state_dict())
    with pytest.raises(ss.StateError, match="follow_group=3"):
        ss.ShardStream(url, follow=True, follow_group=2).load_state_dict(following_.state_dict())
    ss.ShardStream(url, follow=True).load_state_dict(following_.state_dict())


def test_a_shard_that_gc_took_is_explained(growing, tmp_path):
    """A follower that comes too late for what gc gave up says so, and how to go on."""
    shown = growing.shown(tmp_path / "shown", len(growing.entries) - 1)
    version = Log(Store(shown.url)).expire(len(growing.entries) - 2)
    Store(shown.url).put_bytes("_log/expired", b"%d" % version)  # as gc does, before it deletes
    live = {Path(url).name for url in ss.Dataset(shown.url).shards}
    for shard in Path(shown.url).glob("*.tar"):
        if shard.name not in live:
            shard.unlink()
    with pytest.raises(ss.DatasetNotFoundError, match="version 1 .*has expired"):
        list(ss.ShardStream(shown.url, follow=True, start=1, batch_size=10))
    with pytest.raises(ss.ShardNotFoundError, match=r"has expired.*start=.*start='end'.*\.tar"):
        list(ss.ShardStream(shown.url, follow=True, start="beginning", batch_size=10))


def test_a_broken_entry_is_raised_once_what_came_before_is_used_up(growing, tmp_path):
    """An entry that is no entry stops the run there, not before, and by name."""
    shown = growing.shown(tmp_path / "shown", 10)
    stream, got = ss.ShardStream(shown.url, follow=True, start="beginning", batch_size=1), []
    stream.state_dict()
    (Path(shown.url) / "_log/00000000000000000010.json").write_text("{}")
    with pytest.raises(ss.DatasetError, match="00010.json"):
        for batch in stream:
            got += ids_of([batch])
    assert got == [i for _, kind, shards in growing.entries[:10] if kind == "append" for shard in shards for i in shard]


# -- real processes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("is_mixed", [False, True])
def test_killed_jobs_and_producers(tmp_path, is_mixed):
    """Producers and ranks killed at random: every sample is in the log once and reaches the loop once, in the order of
    the finished log.
    """
    lineage = FollowLineage(tmp_path, seed=1, count=60 if is_mixed else 100, is_mixed=is_mixed)
    lineage.run()
    assert lineage.producers.num_kills > 0

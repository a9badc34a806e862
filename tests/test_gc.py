"""gc: what no kept version needs goes, and nothing else; whoever crashes, and whoever writes meanwhile."""

import functools
import os
import time
from pathlib import Path

import pytest

import shardstream as ss
from shardstream import publish
from shardstream.errors import Conflict, DatasetNotFoundError, StorageError
from shardstream.log import Log, ShardRecord, new_id
from shardstream.packing.journal import Journal
from shardstream.storage import Store
from shardstream.storage.dates import dated, modified_s, now_s
from shardstream.upkeep import collect, compact, drop, end, gc, ids, tag, untag
from tests.test_compact import append, killed_at, medium_shards, samples, small_shards

DAY = 86400.0


def age(url, days: float) -> None:
    """Let everything in a local dataset have happened so many days earlier, by its writers' clocks and the store's."""
    for path in Path(url).rglob("*"):
        if path.is_file():
            os.utime(path, (path.stat().st_atime, path.stat().st_mtime - days * DAY))


class OldClock:
    """Writers whose clock shows what it was some days ago."""

    def __init__(self, monkeypatch, days: float):
        self._patch, self._days = monkeypatch, days

    def __enter__(self):
        real = time.time
        self._patch.setattr(time, "time", lambda: real() - self._days * DAY)

    def __exit__(self, *exception):
        self._patch.undo()


@pytest.fixture
def url(tmp_path, monkeypatch):
    """A dataset of 30 days ago: six small shards (versions 1 to 6), merged as version 7, version 3 tagged."""
    url = str(tmp_path / "d")
    with OldClock(monkeypatch, 30):
        small_shards(url, 6)
        compact(url)
        tag(url, "paper", 3)
    age(url, 30)
    return url


def objects(url) -> set[str]:
    return {each.name for each in dated(Store(url)) if not each.name.startswith("_")}


def test_dry_run_changes_nothing(url):
    """By default gc says what would go, and nothing is written or deleted."""
    before, version = objects(url), ss.Dataset(url).version
    found = gc(url)
    assert (found.dry_run, found.version, found.below, found.kept) == (True, None, 8, (3,))
    assert (found.num_shards, len(found.names), found.nbytes) == (3, 3, 3 * 10_240)
    assert objects(url) == before and ss.Dataset(url).version == version


def test_kept_versions_stay_whole(url):
    """The newest and the tagged version keep every sample; what only others had is deleted, and they say that they
    expired.
    """
    expected, tagged = samples(url), samples(url, 3)
    planned = gc(url)
    found = gc(url, dry_run=False)
    assert (found.names, found.below, found.kept) == (planned.names, 8, (3,)) and found.version == 9
    assert samples(url).keys() == expected.keys() and samples(url, "paper").keys() == tagged.keys()
    assert len(objects(url)) == 4  # the merged shard and the three of version 3
    for version in (0, 2, 6, 7):
        with pytest.raises(DatasetNotFoundError, match="has expired"):
            ss.Dataset(url, version=version)
    assert gc(url, dry_run=False).names == []
    untag(url, "paper")
    assert gc(url, dry_run=False).num_shards == 3 and len(objects(url)) == 1
    assert samples(url).keys() == expected.keys()


def test_what_was_the_newest_lately_stays(url):
    """A version is as old as the entry that followed it: what was current within keep is not given up."""
    expected = samples(url)
    gone = next(ids(url))
    drop(url, [gone])  # today; the version before it is 30 days old, and was the newest until now
    assert gc(url, dry_run=False).below == 8
    assert samples(url, 8).keys() == expected.keys()
    assert gc(url, keep="0s", dry_run=False).num_shards == 1
    with pytest.raises(DatasetNotFoundError, match="has expired"):
        ss.Dataset(url, version=8)
    assert samples(url).keys() == expected.keys() - {gone}


def test_young_versions_stay(tmp_path):
    """Nothing of a dataset younger than keep goes."""
    small_shards(tmp_path / "d", 4)
    compact(tmp_path / "d")
    found = gc(str(tmp_path / "d"), dry_run=False)
    assert (found.version, found.names, found.below) == (None, [], 0)


def test_a_slow_clock_of_a_writer_expires_nothing_early(tmp_path, monkeypatch):
    """Entries that a writer with a wrong clock dated back are judged by the store's clock."""
    with OldClock(monkeypatch, 30):
        small_shards(tmp_path / "d", 4)
        compact(tmp_path / "d")
    assert gc(str(tmp_path / "d"), dry_run=False).names == []
    assert len(samples(tmp_path / "d", 4)) == 10


def test_orphans_and_unfinished_files(url):
    """Shards that no entry names and files of killed writers go once they are old, by the store's clock; other files
    never.
    """
    names = [f"{new_id()}.tar", f".{new_id()}.tar.tmp", ".tmp-17-abc", "_log/.tmp-17-abc"]
    strangers = ["readme.txt", "images.tar", "_pack.json", f"{new_id()}.tar.bak", "x.tmp"]
    for name in [*names, *strangers]:
        Path(url, name).write_bytes(b"12345")
    assert gc(url).num_orphans == 0
    for name in [*names, *strangers]:
        os.utime(Path(url, name), (0, time.time() - 8 * DAY))
    found = gc(url, dry_run=False)
    assert (found.num_orphans, found.nbytes_orphans, found.num_unfinished, found.nbytes_unfinished) == (1, 5, 3, 15)
    assert not any(Path(url, name).exists() for name in names) and all(Path(url, name).exists() for name in strangers)


def test_a_young_orphan_goes_when_asked(url):
    """Who knows that no writer is at work may have orphans deleted at once."""
    Path(url, f"{new_id()}.tar").write_bytes(b"12345")
    time.sleep(0.01)
    assert gc(url, orphans=0, dry_run=False).num_orphans == 1


def test_a_shard_put_long_ago_is_not_committed(tmp_path, monkeypatch):
    """A writer that slept until gc might take its shard gives up with an error, and commits nothing."""
    writer = ss.ShardWriter(str(tmp_path / "d"), schema=ss.Schema(y=ss.Dense("int64")), shard_nbytes="1kB")
    writer.write_batch({"y": range(1000)})
    writer._uploads.wait()
    clock = time.clock_gettime
    monkeypatch.setattr(publish.time, "clock_gettime", lambda which: clock(which) + 3.6 * DAY)
    with pytest.raises(StorageError, match="put 86 hours ago"):
        writer.close()
    assert not (tmp_path / "d/_log/00000000000000000001.json").exists()


def test_shards_put_by_others_must_still_be_there(tmp_path):
    """Who commits shards that another process put long ago looks first whether gc has taken them, or may be about to.
    """
    append(tmp_path / "d", range(3))
    store, records = Store(tmp_path / "d"), [Log(Store(tmp_path / "d")).snapshot().shards.record(0)]
    publish.check_present(store, records)
    path = tmp_path / "d" / f"{records[0].sid}.tar"
    os.utime(path, (0, time.time() - 6.1 * DAY))
    with pytest.raises(StorageError, match="put more than 6 days ago"):
        publish.check_present(store, records)
    path.unlink()
    with pytest.raises(StorageError, match="is missing"):
        publish.check_present(store, records)


def test_shards_of_a_packing_job_at_work_stay(tmp_path):
    """What its journal names is no orphan while the job comes on, in none of its datasets; once it has stood still for
    a week it is.
    """
    stores, noted = [Store(tmp_path / name) for name in ("train", "test")], []
    journal = Journal(stores[0], "a job", stores[1:])
    journal.begin()
    for store in stores:
        append(store.url, range(3))
        noted.append((Path(store.url).name, ShardRecord(sid=new_id(), num_samples=5, nbytes=3, index_offset=0, index_nbytes=0, index_crc32c=0)))
        Path(store.url, f"{noted[-1][1].sid}.tar").write_bytes(b"old")
        Path(store.url, f"{new_id()}.tar").write_bytes(b"orphan")
        age(store.url, 8)
    journal.append(positions={}, shards=noted)
    for store, (_, record) in zip(stores, noted):
        found = gc(store.url, dry_run=False)
        assert found.num_orphans == 1 and Path(store.url, f"{record.sid}.tar").exists()
        publish.check_present(store, [record], journal.newest_s())
    age(tmp_path / "train", 8)
    for store, (_, record) in zip(stores, noted):
        with pytest.raises(StorageError, match="put more than 6 days ago"):
            publish.check_present(store, [record], journal.newest_s())
        assert gc(store.url, dry_run=False).num_orphans == 1 and not Path(store.url, f"{record.sid}.tar").exists()
    journal.delete()
    assert not any(path.is_file() for store in stores for path in Path(store.url, "_pack").iterdir())


def noted_shard(url, journal: Journal) -> ShardRecord:
    """Put a shard of 8 days ago that the journal has just noted."""
    record = ShardRecord(sid=new_id(), num_samples=5, nbytes=3, index_offset=0, index_nbytes=0, index_crc32c=0)
    Path(url, f"{record.sid}.tar").write_bytes(b"old")
    age(url, 8)
    journal.append(positions={}, shards=[(Path(url).name, record)])
    return record


def test_a_packing_job_may_commit_while_gc_looks(tmp_path, monkeypatch):
    """A job that commits its old shards and lets go of its journal in the middle of gc loses none of them."""
    store = Store(tmp_path / "train")
    append(store.url, range(3))
    journal = Journal(store, "a job")
    record, real = noted_shard(store.url, journal), collect.dated

    def listed(asked, *folder):
        if not folder and journal.steps:
            Log(store).append([record])
            journal.delete()
        return real(asked, *folder)

    monkeypatch.setattr(collect, "dated", listed)
    assert gc(store.url, dry_run=False).num_orphans == 0 and not journal.steps
    assert Path(store.url, f"{record.sid}.tar").exists()


def test_what_one_job_left_hides_no_other_jobs_journal(tmp_path):
    """A killed job says that its journal is elsewhere; that of a later job, which is here, counts, too."""
    first, second = (Store(tmp_path / name) for name in ("first", "second"))
    append(second.url, range(3))
    Journal(first, "a job", [second]).begin()
    record = noted_shard(second.url, Journal(second, "another job"))
    assert gc(second.url, dry_run=False).num_orphans == 0 and Path(second.url, f"{record.sid}.tar").exists()


@pytest.mark.parametrize("content, error, message", [
    ('{"journal": "bogus://gone/x"}', ss.ConfigError, "is at bogus://gone/x, but that can't be read"),
    ('{"journal": "http://me:hunter2@127.0.0.1:9/x"}', ss.StorageError, "is at http://127.0.0.1:9/x, but that can't be read"),
    ('{"journal": 5}', ss.DatasetError, "does not say where"), ("[" * 10**5, ss.DatasetError, "does not say where"),
    ("[]", ss.DatasetError, "does not say where"), ("\xff", ss.DatasetError, "does not say where"),
])  # fmt: skip
def test_a_journal_that_is_nowhere_stops_gc_and_says_which_file_to_delete(tmp_path, monkeypatch, content, error, message):
    """gc must not guess that a job is over; whoever knows it is can go on."""
    append(tmp_path, range(3))
    monkeypatch.setattr(Store, "__init__", functools.partialmethod(Store.__init__, retry=ss.RetryPolicy(max_attempts=1)))
    path = tmp_path / "_pack" / "elsewhere.json"
    path.parent.mkdir()
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(error, match=rf"(?s)_pack/elsewhere.json .*{message}.*delete that file and run gc again") as caught:
        gc(tmp_path, dry_run=False)
    assert "hunter2" not in str(caught.value)
    path.unlink()
    gc(tmp_path, dry_run=False)


def test_adopted_shards_are_never_deleted(tmp_path, monkeypatch):
    """A tar of somebody else stays, even beside the log and under a name like ours; its index goes with its last
    version.
    """
    append(tmp_path / "other", range(3))
    [theirs] = (tmp_path / "other").glob("*.tar")
    url = tmp_path / "d"
    url.mkdir()
    theirs.rename(url / theirs.name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    from shardstream.adopt import adopt

    adopt(str(url / theirs.name), str(url))
    log = Log(Store(url))
    log.replace([log.snapshot().shards.sid(0)], [])
    append(url, range(4))
    age(url, 30)
    found = gc(str(url), keep=0, orphans=0, dry_run=False)
    assert [name.endswith(".index.json") for name in found.names] == [True]
    assert (url / theirs.name).exists() and len(samples(url)) == 4


def test_killed_at_every_step(tmp_path, monkeypatch):
    """Killed before or after any of its writes, gc leaves the kept versions whole, and a second run finishes."""
    for step in range(1, 10):
        finished = []
        for before in (True, False):
            url = str(tmp_path / f"{step}-{before}")
            medium_shards(url, 3)
            tag(url, "two", 2)
            compact(url)
            expected = samples(url), samples(url, "two")
            undo, left = killed_at(monkeypatch, step, before)
            try:
                gc(url, keep=0, orphans=DAY, dry_run=False)
            except BaseException as error:
                assert type(error).__name__ == "Killed"
            finally:
                undo()
            finished.append(left[0] > 0)
            for _ in range(2):
                assert samples(url).keys() == expected[0].keys() and samples(url, "two").keys() == expected[1].keys()
                gc(url, keep=0, dry_run=False)
            assert len([name for name in objects(url) if name.endswith(".tar")]) == 3
        if all(finished):
            return
    raise AssertionError("it never ended")


def test_tag_untag_end(url):
    """Tags name the newest version by default, move, and go; after the end nothing is added, but upkeep goes on."""
    assert tag(url, "now") == 8 and tag(url, "paper", "now") == 8
    assert ss.Dataset(url, version="paper").version == 8
    untag(url, "now")
    with pytest.raises(Conflict, match="no tag 'now'"):
        untag(url, "now")
    assert end(url) == ss.Dataset(url).version
    for fail in (lambda: end(url), lambda: append(url, [1])):
        with pytest.raises(Conflict, match="was ended"):
            fail()
    gc(url, keep=0, dry_run=False)
    tag(url, "last")


@pytest.mark.parametrize("place", ["local", "memory", "s3"])
def test_the_clock_of_the_store(request, tmp_path, place):
    """Objects are dated by the store, and its clock is read by an object that leaves no trace."""
    url = str(tmp_path) if place == "local" else f"memory://{tmp_path.name}" if place == "memory" else request.getfixturevalue("s3").url
    store = Store(url)
    assert dated(store) == []
    before = now_s(store)
    store.put_bytes("a.tar", b"123")
    store.put_bytes("_log/b", b"")
    [each] = dated(store)
    assert (each.name, each.nbytes) == ("a.tar", 3) and before - 2 <= each.modified_s <= now_s(store) + 2
    assert abs(modified_s(store, "a.tar") - each.modified_s) < 1  # S3 answers in whole seconds or finer
    assert abs(before - time.time()) < 60
    with pytest.raises(FileNotFoundError):
        modified_s(store, "none")


def test_gc_on_s3(s3):
    """On an object store, too, replaced shards and orphans go, and unfinished uploads in parts are aborted."""
    import boto3

    small_shards(s3.url, 3)
    expected = samples(s3.url)
    compact(s3.url)
    store = Store(s3.url)
    store.put_bytes(f"{new_id()}.tar", b"orphan")
    time.sleep(2)  # the store's dates are whole seconds
    assert gc(s3.url, dry_run=False).names == []
    bucket, _, prefix = s3.url.removeprefix("s3://").partition("/")
    boto3.client("s3").create_multipart_upload(Bucket=bucket, Key=f"{prefix}/{new_id()}.tar")
    time.sleep(1.1)
    assert gc(s3.url, keep=0, orphans=0).num_uploads == 1
    found = gc(s3.url, keep=0, orphans=0, dry_run=False)
    assert (found.num_shards, found.num_orphans, found.num_uploads) == (3, 1, 1)
    assert gc(s3.url, keep=0, orphans=0).num_uploads == 0
    assert samples(s3.url).keys() == expected.keys() and len([n for n in objects(s3.url) if n.endswith(".tar")]) == 1

"""Compaction and row removal: the same samples under the same ids, whoever crashes, races or looks at older versions.
"""

import glob
import sys

import numpy as np
import pytest

import shardstream as ss
from shardstream.codecs.shard import ShardIndex
from shardstream.errors import ConfigError, ShardError, ShardNotFoundError
from shardstream.log import Log
from shardstream.storage import Store
from shardstream.upkeep import compact, drop, ids
from tests.columns import assert_same
from tests.test_schema_evolution import NEW, OLD, write

SCHEMA = ss.Schema(y=ss.Dense("int64"), x=ss.Sparse(64), text=ss.Text())


def append(url, ys, filler: str = "", **options) -> None:
    with ss.ShardWriter(str(url), schema=SCHEMA, **options) as writer:
        ys = list(ys)
        writer.write_batch({"y": ys, "x": (np.array(ys) % 64, range(len(ys) + 1)), "text": ["é" * (y % 5) + filler for y in ys]})


def small_shards(url, count: int = 12, **options) -> None:
    """Write ``count`` shards of 1, 2, 3, ... samples."""
    begin = 0
    for number in range(1, count + 1):
        append(url, range(begin, begin + number), **options)
        begin += number


def medium_shards(url, count: int = 9) -> None:
    """Write shards of three samples and 20 kB each, of which compact(url, "42kB") makes one commit for about five."""
    for number in range(count):
        append(url, range(3 * number, 3 * number + 3), filler="x" * 2500)


def samples(url, version=None) -> dict:
    """Return every sample by its id."""
    form = "dense" if ss.Dataset(str(url), version).schema is None else "indices"
    rows = list(ss.ShardStream(str(url), version=version, sparse=form))
    names = list(ids(str(url), version))
    assert len(set(names)) == len(names) == len(rows)
    return dict(zip(names, rows, strict=True))


def assert_same_samples(left: dict, right: dict) -> None:
    assert left.keys() == right.keys()
    for id, sample in left.items():
        assert_same(sample, right[id])


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_samples_keep_their_ids(tmp_path, compression):
    """Merged, and merged again with what came since, samples are the same under the same ids; older versions are
    untouched.
    """
    small_shards(tmp_path / "d", compression=compression)
    before, version = samples(tmp_path / "d"), ss.Dataset(tmp_path / "d").version
    done = compact(tmp_path / "d", "60kB")
    assert done.num_shards_removed == 12 and 1 <= done.num_shards_added < 12 and done.num_conflicts == 0
    assert_same_samples(samples(tmp_path / "d"), before)
    append(tmp_path / "d", range(1000, 1010))
    wider = samples(tmp_path / "d")
    assert compact(tmp_path / "d").num_shards_removed >= 2
    assert len(ss.Dataset(tmp_path / "d").shards) == 1
    assert_same_samples(samples(tmp_path / "d"), wider)
    assert_same_samples(samples(tmp_path / "d", version), before)
    assert [sample["y"].item() for sample in samples(tmp_path / "d", version).values()] == list(range(78))


def test_the_order_of_merged_samples_is_that_of_the_log(tmp_path):
    """A dataset of small shards alone reads in the same order as before."""
    small_shards(tmp_path / "d")
    compact(tmp_path / "d")
    assert [row["y"].item() for row in ss.ShardStream(str(tmp_path / "d"))] == list(range(78))


def test_large_shards_stay(tmp_path):
    """Only shards below half of shard_nbytes are merged, and one alone is left as it is."""
    append(tmp_path / "d", range(30_000))
    append(tmp_path / "d", range(5))
    large = ss.Dataset(tmp_path / "d").shards[0]
    assert compact(tmp_path / "d", "100kB").version is None
    append(tmp_path / "d", range(5, 9))
    assert compact(tmp_path / "d", "100kB").num_shards_removed == 2
    assert ss.Dataset(tmp_path / "d").shards[0] == large


def test_blocks_are_filled(tmp_path):
    """Merging makes full blocks of many stumps, closed at 8,192 samples."""
    for begin in range(0, 20_000, 5000):
        append(tmp_path / "d", range(begin, begin + 5000))
    compact(tmp_path / "d")
    [url] = ss.Dataset(tmp_path / "d").shards
    assert index_of(url).num_samples.tolist() == [8192, 8192, 3616]
    assert [row["y"].item() for row in ss.ShardStream(str(tmp_path / "d"))] == list(range(20_000))


def index_of(url) -> ShardIndex:
    from shardstream.adopt import index_shards

    return index_shards(url)[0].index


def test_shards_from_before_a_field_get_its_default(tmp_path):
    """Shards of an older schema are merged with newer ones under the dataset's schema."""
    write(tmp_path / "d", OLD, range(5))
    write(tmp_path / "d", NEW, range(5, 8))
    before = samples(tmp_path / "d")
    compact(tmp_path / "d")
    assert len(ss.Dataset(tmp_path / "d").shards) == 1
    assert_same_samples(samples(tmp_path / "d"), before)


def test_files_layout(tmp_path):
    """Samples of tar members keep key, fields and bytes; a key that two shards have stays two samples."""
    for number in range(4):
        with ss.ShardWriter(str(tmp_path / "d")) as writer:
            for key in ("a", "b", f"c{number}"):
                writer.write({"__key__": key, "txt": f"{key} of {number}", "bin": bytes(number)})
    before = samples(tmp_path / "d")
    done = compact(tmp_path / "d")
    assert (done.num_shards_removed, done.num_shards_added) == (4, 4)  # every shard has the keys a and b
    assert_same_samples(samples(tmp_path / "d"), before)
    dropped = drop(tmp_path / "d", [id for id, sample in before.items() if sample["__key__"] == "a"])
    assert dropped.num_samples_dropped == 4
    left = {id: sample for id, sample in before.items() if sample["__key__"] != "a"}
    assert_same_samples(samples(tmp_path / "d"), left)


class Killed(BaseException):
    """What ends a process at this point, as far as the dataset can tell."""


def killed_at(monkeypatch, count: int, before: bool):
    """Let the ``count``-th change of the store be the last, made or not; returns the function that lifts this."""
    left = [count]
    patch = pytest.MonkeyPatch()
    for method in ("put_file", "put_bytes", "put_if_absent"):
        real = getattr(Store, method)

        def change(self, *arguments, real=real, **options):
            left[0] -= 1
            if left[0] < 0 or (left[0] == 0 and before):
                raise Killed
            result = real(self, *arguments, **options)
            if left[0] == 0:
                raise Killed
            return result

        patch.setattr(Store, method, change)
    patch.setattr(Store, "delete", lambda self, names: None)  # the dead tidy nothing up
    return patch.undo, left


@pytest.mark.parametrize("work", ["compact", "drop"])
def test_killed_at_every_step(tmp_path, monkeypatch, work):
    """Killed before or after any of its writes, the dataset has all samples once; done again, it is as if never killed.
    """
    for step in range(1, 30):
        finished = []
        for before in (True, False):
            url = tmp_path / f"{step}-{before}"
            medium_shards(url)
            expected = samples(url)
            gone = list(expected)[1::3]
            left = {id: sample for id, sample in expected.items() if id not in gone}
            run = (lambda url=url: compact(url, "42kB")) if work == "compact" else (lambda url=url, gone=gone: drop(url, gone))
            undo, steps = killed_at(monkeypatch, step, before)
            try:
                run()
            except Killed:
                pass
            finally:
                undo()
            finished.append(steps[0] > 0)
            now = samples(url)
            if work == "drop":
                assert now.keys() in (expected.keys(), left.keys())
                if now.keys() == expected.keys():
                    run()
                assert_same_samples(samples(url), left)
            else:
                assert_same_samples(now, expected)
                run()
                assert_same_samples(samples(url), expected)
        if all(finished):
            assert work == "drop" or step >= 5, "all of it was one commit"
            return
    raise AssertionError("it never ended")


def interrupted(monkeypatch, *interventions) -> None:
    """Before the n-th replace entry is committed, let the n-th intervention happen."""
    waiting = list(interventions)

    def replace(self, remove, records, real=Log.replace):
        if waiting:
            waiting.pop(0)()
        return real(self, remove, records)

    monkeypatch.setattr(Log, "replace", replace)


def test_a_race_of_compactions_loses_nothing(tmp_path, monkeypatch):
    """Whoever comes second meets a conflict, takes its shards away, and begins again with what is live now."""
    url = tmp_path / "d"
    medium_shards(url)

    def other():
        compact(url)
        append(url, range(100, 103))

    interrupted(monkeypatch, other)
    done = compact(url)
    assert done.num_conflicts == 1
    assert sorted(row["y"].item() for row in samples(url).values()) == [*range(27), 100, 101, 102]
    named = set(ss.Dataset(url).shards).union(*(ss.Dataset(url, version=v).shards for v in range(ss.Dataset(url).version)))
    assert set(glob.glob(f"{url}/*.tar")) == named, "the loser left shards behind"


def test_appends_and_drops_during_a_compaction(tmp_path, monkeypatch):
    """An append in between is kept; rows dropped in between stay dropped."""
    url = tmp_path / "d"
    medium_shards(url)
    before = samples(url)
    interrupted(monkeypatch, lambda: append(url, [500]), lambda: drop(url, list(before)[:2]))
    compact(url, "42kB")
    expected = {id for id in before if id not in list(before)[:2]}
    assert expected < samples(url).keys() and len(samples(url)) == len(expected) + 1


def test_a_shard_that_is_gone_is_an_error(tmp_path):
    """A live shard that is missing ends compaction with its name; nothing is committed."""
    url = tmp_path / "d"
    small_shards(url, 4)
    missing = ss.Dataset(url).shards[2]
    Store(url).delete([missing.rpartition("/")[2]])
    with pytest.raises(ShardNotFoundError, match=missing):
        compact(url)
    assert ss.Dataset(url).version == 4


def test_drop(tmp_path):
    """Rows go whatever shard they are in now, by one commit; older versions have them; a shard left empty goes, too."""
    url = tmp_path / "d"
    medium_shards(url)
    compact(url, "42kB")
    append(url, range(100, 103))
    before, version = samples(url), ss.Dataset(url).version
    last = list(before)[-3:]
    done = drop(url, [*list(before)[:5], *last])
    assert (done.version, done.num_samples_dropped) == (version + 1, 8)
    assert_same_samples(samples(url), {id: before[id] for id in before if id not in [*list(before)[:5], *last]})
    assert_same_samples(samples(url, version), before)


def test_drop_looks_at_each_shard_once(tmp_path, monkeypatch):
    """First at those that the ids name, then at the others until all samples are found."""
    url = tmp_path / "d"
    small_shards(url, 6)
    before = list(samples(url))
    compact(url)
    append(url, range(100, 103))
    looked, module = [], sys.modules["shardstream.upkeep.compact"]  # the package has the function under this name
    runs_of = module.runs_of
    monkeypatch.setattr(module, "runs_of", lambda source, shard, index: looked.append(shard) or runs_of(source, shard, index))
    last = list(samples(url))[-1]
    assert drop(url, [before[0], before[3], last]).num_samples_dropped == 3
    assert looked == [1, 0]


@pytest.mark.parametrize("wrong", ["7", "", "not:1", "01890a5d-ac96-774b-bcce-b302099a8057:0", "SID:99", "SID:-1", 7])
def test_drop_of_an_unknown_id_drops_nothing(tmp_path, wrong):
    """What is no id, or nobody's, is an error that names it; the good ones beside it stay."""
    url = tmp_path / "d"
    append(url, range(3))
    good = next(ids(str(url)))
    wrong = wrong.replace("SID", good[:36]) if isinstance(wrong, str) else wrong
    with pytest.raises(ConfigError, match="id"):
        drop(url, [good, wrong])
    assert len(samples(url)) == 3 and drop(url, []).version is None


def test_a_dropped_id_is_unknown_afterwards(tmp_path):
    """An id names a live sample or none: a second drop says so."""
    url = tmp_path / "d"
    small_shards(url, 3)
    id = list(samples(url))[2]
    drop(url, [id])
    with pytest.raises(ConfigError, match=f"no sample of version 4 has the id {id}"):
        drop(url, [id])


def test_samples_are_found_by_their_ids_after_merging(tmp_path):
    """Looking at samples shows the ids that ids() gives, and finds them, wherever they are now."""
    from shardstream.look import Looker

    url = tmp_path / "d"
    small_shards(url, 4)
    before = samples(url)
    compact(url)
    drop(url, [list(before)[2]])
    append(url, [77])
    looker = Looker(str(url))
    names = list(ids(str(url)))
    assert [looker.sample(row).id for row in range(len(looker))] == names
    assert [looker.row_of(id) for id in names] == list(range(10))
    with pytest.raises(ConfigError, match="has the sample"):
        looker.row_of(list(before)[2])


@pytest.mark.parametrize("runs", [
    [["01890a5d-ac96-774b-bcce-b302099a8057", 0, 2]],
    [["01890a5d-ac96-774b-bcce-b302099a8057", 0, 2], ["01890a5d-ac96-774b-bcce-b302099a8057", 2, 2]],
    [["01890a5d-ac96-774b-bcce-b302099a8057", -1, 3]],
    [["01890a5d-ac96-774b-bcce-b302099a8057", 0, 4], ["01890a5d-ac96-774b-bcce-b302099a8057", 0, -1]],
    [["x", 0, 3]],
    [["01890a5d-ac96-774b-bcce-b302099a8057", 2**70, 3]],
    [[]],
    "runs",
])  # fmt: skip
def test_runs_that_are_none_are_refused(runs):
    """An index whose runs are malformed, or do not add up to its samples, is an error whatever its checksum says."""
    index = ShardIndex("blocks", ("y.npy",), np.array([3]), np.array([[[512, 152]]]), np.zeros((1, 1), np.uint32), "s",
                       0, runs)  # fmt: skip
    with pytest.raises(ShardError):
        ShardIndex.decode(index.encode())


@pytest.mark.s3
def test_compact_on_s3(s3):
    """Merged and dropped on an object store as on disk, with nothing left over."""
    for begin in range(0, 15, 3):
        append(s3.url, range(begin, begin + 3))
    before = samples(s3.url)
    assert compact(s3.url).num_shards_removed == 5
    assert_same_samples(samples(s3.url), before)
    drop(s3.url, list(before)[:1])
    assert len(samples(s3.url)) == 14
    assert len([name for name, _ in Store(s3.url).list() if name.endswith(".tar")]) == 7

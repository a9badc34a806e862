"""A dataset that gains fields: older samples are read with the default; anything but adding such a field is an error.
"""

import numpy as np
import pytest

import shardstream as ss
from shardstream.errors import ConfigError, Conflict, SchemaError, ShardError
from shardstream.log import Log
from shardstream.reader import BlockReader
from shardstream.source import open_source
from shardstream.storage import Fetcher, Store
from tests.columns import assert_same

OLD = ss.Schema(y=ss.Dense("int64"), z=ss.Text())
ADDED = {
    "scalar": (ss.Dense("float32", default=0.5), 1.5, 0.5),
    "flag": (ss.Dense("bool", default=False), True, False),
    "array": (ss.Dense("uint8", (2, 3), default=[[1, 2, 3], [4, 5, 6]]), np.zeros((2, 3), "uint8"), [[1, 2, 3], [4, 5, 6]]),
    "big": (ss.Dense("uint64", default=2**53 + 1), 1, 2**53 + 1),
    "tokens": (ss.Ragged("uint16", default=[7, 65535]), [1], [7, 65535]),
    "nothing": (ss.Ragged("float64", default=[]), [0.5], []),
    "bag": (ss.Sparse(8, default=[1, 6]), [0], [1, 6]),
    "empty_bag": (ss.Sparse(8, default=[]), [0], []),
    "weights": (ss.Sparse(8, "float32", default=([2, 3], [0.5, -1.0])), ([0], [9.0]), ([2, 3], [0.5, -1.0])),
    "text": (ss.Text(default="⊂ none"), "some", "⊂ none"),
    "raw": (ss.Bytes(default=b"\0\xff"), b"", b"\0\xff"),
}
NEW = ss.Schema(y=OLD["y"], **{name: field for name, (field, _, _) in ADDED.items()}, z=OLD["z"])


def write(url, schema, ys, explicit_defaults=False, **options) -> None:
    """Write a sample for each y; fields that ``schema`` adds hold their second or third column of ADDED."""
    with ss.ShardWriter(str(url), schema=schema, **options) as writer:
        for y in ys:
            sample = {"y": y, "z": str(y)}
            for name, (_, value, default) in ADDED.items():
                if name in schema:
                    sample[name] = default if explicit_defaults else value
            writer.write(sample)


@pytest.fixture
def url(tmp_path):
    write(tmp_path / "d", OLD, range(5))
    write(tmp_path / "d", NEW, range(5, 8))
    return str(tmp_path / "d")


@pytest.fixture
def twin(tmp_path):
    """The same samples, all written under the new schema, the defaults spelt out."""
    write(tmp_path / "twin", NEW, range(5), explicit_defaults=True)
    write(tmp_path / "twin", NEW, range(5, 8))
    return str(tmp_path / "twin")


@pytest.mark.parametrize("sparse", ["dense", "csr", "jagged", "indices"])
@pytest.mark.parametrize("shuffle", [False, True])
def test_older_samples_have_the_default(url, twin, sparse, shuffle):
    """Every kind of field, in batches that span old and new shards, is what writing the default would have given."""
    options = {"batch_size": 4, "sparse": sparse, "shuffle": shuffle, "seed": 3}
    for one, other in zip(ss.ShardStream(url, **options), ss.ShardStream(twin, **options), strict=True):
        assert_same(one, other)


def test_defaults_that_are_filled_in_count_as_memory(tmp_path):
    """A block holds its rows of them, though no byte of them is stored."""
    old, new = ss.Schema(y=ss.Dense("int8")), ss.Schema(y=ss.Dense("int8"), a=ss.Dense("float32", (1000,), default=[0.5] * 1000))
    for schema in (old, new):
        with ss.ShardWriter(str(tmp_path), schema=schema) as writer:
            writer.write_batch({"y": np.arange(100), "a": np.ones((100, 1000))} if "a" in schema else {"y": np.arange(100)})
    reader = BlockReader(open_source(str(tmp_path)), None, Fetcher())
    assert 400_000 <= reader.read(0, 0).nbytes < 410_000 and reader.estimate_nbytes(0, 0) >= 400_000


def test_worker_processes_fill_in_the_default(url, twin):
    """Batches of two worker processes are the same."""
    loaders = [ss.StreamLoader(ss.ShardStream(each, batch_size=3, shuffle=True), num_workers=2) for each in (url, twin)]
    for one, other in zip(*loaders, strict=True):
        assert_same(one, other)


def test_only_added_fields_can_be_read(url):
    """A block none of whose stored columns are wanted is not fetched, and still has its rows."""
    stream = ss.ShardStream(url, batch_size=8, fields=["tokens", "scalar"])
    [batch] = stream
    assert batch["scalar"].tolist() == [0.5] * 5 + [1.5] * 3
    assert batch["tokens"].offsets.tolist() == [0, 2, 4, 6, 8, 10, 11, 12, 13]


def test_older_versions_keep_their_schema(url):
    """A version pinned before the change reads as ever."""
    assert ss.Dataset(url, version=1).schema == OLD and ss.Dataset(url).schema == NEW
    assert list(next(iter(ss.ShardStream(url, version=1)))) == ["y", "z"]
    with pytest.raises(ConfigError, match="scalar"):
        next(iter(ss.ShardStream(url, version=1, fields=["scalar"])))


@pytest.mark.parametrize("schema", [
    ss.Schema(y=ss.Dense("int64")),
    ss.Schema(z=ss.Text(), y=ss.Dense("int64")),
    ss.Schema(y=ss.Dense("int32"), z=ss.Text()),
    ss.Schema(y=ss.Dense("int64", default=0), z=ss.Text()),
    ss.Schema(y=ss.Dense("int64"), z=ss.Text(), a=ss.Bytes()),
    None,
])  # fmt: skip
def test_any_other_change_is_refused(url, schema):
    """A field taken away, reordered, of another dtype or default, or added without one: SchemaError, and nothing is
    written.
    """
    before = sorted(ss.Dataset(url).shards)
    with pytest.raises(SchemaError):
        ss.ShardWriter(url, schema=schema)
    assert sorted(ss.Dataset(url).shards) == before


def test_a_writer_of_the_old_schema_stops(tmp_path):
    """Whose dataset gained fields under its hands gets a conflict that says to open again, and commits nothing more."""
    url = str(tmp_path / "d")
    old = ss.ShardWriter(url, schema=OLD, producer="old")
    old.write({"y": 0, "z": ""})
    old.flush()
    write(url, NEW, [1], producer="new")
    old.write({"y": 2, "z": ""})
    with pytest.raises(Conflict, match="gained fields"):
        old.close()
    assert [int(row["y"]) for row in ss.ShardStream(url)] == [0, 1]


def test_a_stored_column_is_never_replaced_by_its_default(tmp_path):
    """A shard that has part of a field's members is damaged, not old."""
    from shardstream.reader import BlockReader
    from shardstream.source import open_source
    from shardstream.storage import Fetcher

    schema = ss.Schema(tokens=ss.Ragged("uint16", default=[]))
    with ss.ShardWriter(str(tmp_path / "d"), schema=schema) as writer:
        writer.write({"tokens": [1, 2]})
    source = open_source(str(tmp_path / "d"))
    index = source.load_index(0, Fetcher())
    object.__setattr__(index, "columns", ("tokens.values.npy", "other.npy"))
    object.__setattr__(source, "_load_index", lambda shard, fetcher: index)
    with pytest.raises(ShardError, match="no column 'tokens'"):
        BlockReader(source, None, Fetcher()).read(0, 0)


def test_a_default_must_be_a_number_that_json_has():
    """NaN and infinity would be lost in the log."""
    for value in (float("nan"), float("inf")):
        with pytest.raises(SchemaError, match="finite"):
            ss.Dense("float32", default=value)


def test_commits_do_not_open_the_dataset_again(tmp_path, monkeypatch):
    """After its first commit a writer appends without looking whether there is a dataset."""
    looked = []
    monkeypatch.setattr(Log, "open_or_create", lambda self, schema, real=Log.open_or_create: looked.append(1) or real(self, schema))
    with ss.ShardWriter(str(tmp_path / "d"), schema=OLD, producer="p") as writer:
        for y in range(4):
            writer.write({"y": y, "z": ""})
            writer.flush()
    assert len(looked) == 2 and Log(Store(tmp_path / "d")).snapshot().version == 5

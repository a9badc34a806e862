"""Padded ragged rows and keyed columns, wherever batches are made: streams, workers, mixtures, map-style datasets, in
memory.
"""

from __future__ import annotations

import itertools
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import shardstream as ss
from shardstream.buffers import BufferPool
from shardstream.collate import collate_rows, concatenate, empty_like, take_rows
from shardstream.schema import DENSE_DTYPES
from tests.tiers import SCHEMA, assert_same, samples

NUM_SAMPLES = 700
FORMS = {"ragged": ss.Padded(3, value=-1, mask="mask"), "keyed": {"ids": ["x", "v"]},
         "fields": ["x", "v", "tokens", "y"]}  # fmt: skip


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> SimpleNamespace:
    """The same samples in one dataset of several shards, in one shard, and as mapped columns."""
    folder = tmp_path_factory.mktemp("forms")
    many, one, mapped = (str(folder / name) for name in ("many", "one", "mapped"))
    with (ss.ShardWriter(many, schema=SCHEMA, shard_nbytes="30kB") as a, ss.ShardWriter(one, schema=SCHEMA) as b,
          ss.MemmapWriter(mapped, SCHEMA) as c):  # fmt: skip
        for row in samples(NUM_SAMPLES):
            for writer in (a, b, c):
                writer.write(row)
    return SimpleNamespace(many=many, one=one, mapped=mapped)


def expected_batch(rows: list[dict]) -> dict:
    """Return what ``FORMS`` make of samples as they were written, by plain Python."""
    tokens = [[*row["tokens"].tolist(), -1, -1, -1][:3] for row in rows]
    mask = [[place < len(row["tokens"]) for place in range(3)] for row in rows]
    x, v = [row["x"].tolist() for row in rows], [row["v"][0].tolist() for row in rows]
    weights = [1.0] * sum(map(len, x)) + [value for row in rows for value in row["v"][1].tolist()]
    lengths = [*map(len, x), *map(len, v)]
    ids = ss.KeyedJagged(["x", "v"], torch.tensor(sum(x + v, []), dtype=torch.int64), torch.tensor([0, *itertools.accumulate(lengths)]),
                         torch.tensor(weights, dtype=torch.float32))  # fmt: skip
    return {"tokens": torch.tensor(tokens, dtype=torch.int64).reshape(-1, 3), "mask": torch.tensor(mask, dtype=torch.bool).reshape(-1, 3),
            "y": torch.tensor([row["y"] for row in rows], dtype=torch.int64), "ids": ids}  # fmt: skip


def assert_is_batch(got: dict, written: list[dict]) -> None:
    assert_same(got, expected_batch([written[number] for number in got["y"].tolist()]))


def pass_on(sample: dict) -> dict:
    return sample


@pytest.mark.parametrize("num_workers, transform", [(0, None), (1, None), (3, None), (0, pass_on), (2, pass_on)])
def test_batches_are_the_same_for_every_number_of_workers(places, num_workers, transform):
    """Padded and keyed columns are those of the written rows whoever made them, also through a row-wise transform, and
    with a short last batch.
    """
    stream = ss.ShardStream(places.many, batch_size=60, shuffle=True, seed=3, transform=transform, **FORMS)
    batches = list(ss.StreamLoader(stream, num_workers=num_workers, multiprocessing_context="fork"))
    written = samples(NUM_SAMPLES)
    for batch in batches:
        assert_is_batch(batch, written)
    assert sorted(y for batch in batches for y in batch["y"].tolist()) == list(range(NUM_SAMPLES)) and len(batches[-1]["y"]) == 40


@pytest.mark.parametrize("fields, forms", [
    (["x", "v", "tokens", "y"], FORMS), (["x", "v", "tokens"], {"sparse": {"x": "dense", "v": "csr"}}), (["tokens", "v"], {"ragged": ss.Padded(2)})])
def test_a_batch_of_several_chunks_is_that_of_one(places, fields, forms, monkeypatch):
    """Wherever chunks end, batches are those of one chunk: rows of one size stand in their place at once, others are joined."""
    for name in ("CHUNK_SAMPLES", "FIRST_CHUNK_SAMPLES"):
        monkeypatch.setattr(f"shardstream.window.{name}", 1)  # so that a chunk is a window
    forms = {**forms, "fields": fields}
    for window, batch_size in ((7, 20), (96, 64), (300, 700)):
        got = list(ss.ShardStream(places.many, batch_size=batch_size, shuffle=True, lanes=1, window=window, seed=5, **forms))
        rows = list(ss.ShardStream(places.many, batch_size=1, shuffle=True, lanes=1, window=window, seed=5, **forms))
        for number, batch in enumerate(got):
            assert_same(batch, concatenate(rows[number * batch_size :][:batch_size], BufferPool()))


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("window, batch_size", [(7, 20), (96, 64), (300, 700)])
def test_rows_that_are_skipped_leave_the_others_as_they_are(places, tmp_path, monkeypatch, window, batch_size, num_workers):
    """Whether a batch loses some rows of a chunk, or all that it has of one."""
    for name in ("CHUNK_SAMPLES", "FIRST_CHUNK_SAMPLES"):
        monkeypatch.setattr(f"shardstream.window.{name}", 1)  # so that a chunk is a window
    shutil.copytree(places.many, tmp_path / "d")
    for shard in ss.Dataset(str(tmp_path / "d")).shards[1:3]:
        with open(shard, "r+b") as file:
            file.seek(3000)
            byte = file.read(1)
            file.seek(3000)
            file.write(bytes([byte[0] ^ 1]))
    stream = ss.ShardStream(str(tmp_path / "d"), batch_size=batch_size, shuffle=True, lanes=1, window=window, seed=5, on_error="skip",
                            read=ss.ReadPolicy(max_skipped=NUM_SAMPLES), **FORMS)  # fmt: skip
    batches, written = list(ss.StreamLoader(stream, num_workers, multiprocessing_context="fork")), samples(NUM_SAMPLES)
    for batch in batches:
        assert_is_batch(batch, written)
    ys = [y for batch in batches for y in batch["y"].tolist()]
    assert len(batches) == len(stream) and len(set(ys)) == len(ys) == NUM_SAMPLES - stream.report.num_skipped
    assert 0 < stream.report.num_skipped < NUM_SAMPLES


def test_single_samples_are_rows_of_batches(places):
    """Without a batch size a padded field is one row, and a keyed column is one of one row."""
    written = samples(NUM_SAMPLES)
    for got, row in zip(ss.ShardStream(places.one, **FORMS), written, strict=True):
        wanted = expected_batch([row])
        assert_same(got, {**{name: column[0] for name, column in wanted.items() if name != "ids"}, "ids": wanted["ids"]})


@pytest.mark.filterwarnings("ignore:each block is fetched")
def test_ranks_with_nothing_left_get_columns_without_rows(places):
    """The short last batch has no rows on some ranks, and still the right columns; "pad" fills it up."""
    last = [list(ss.ShardStream(places.one, batch_size=1, version=1, rank=rank, world_size=690, **FORMS))[-1] for rank in (9, 10)]
    assert_same(last[0], expected_batch(samples(NUM_SAMPLES)[699:]))
    assert_same(last[1], expected_batch([]))
    padded = list(ss.ShardStream(places.one, batch_size=300, drop_last="pad", **FORMS))[-1]
    flags = padded.pop("__pad__")
    assert len(flags) == 300 and int(flags.sum()) == 200
    assert_is_batch(padded, samples(NUM_SAMPLES))


def test_map_style_datasets_give_the_same_batches(places):
    """A shard in memory and mapped columns give what a stream gives, by batch and by row."""
    written = samples(NUM_SAMPLES)
    for dataset in (ss.ShardDataset(ss.Dataset(places.one).shards[0], **FORMS),
                    ss.MemmapDataset(places.mapped, **FORMS)):  # fmt: skip
        assert_is_batch(dataset[[5, 0, 699, 5]], written)
        assert_is_batch(dataset[3:3], written)
        assert_same(dataset[7]["ids"], expected_batch([written[7]])["ids"])
        loader = torch.utils.data.DataLoader(dataset, batch_size=64, collate_fn=collate_of_rows)
        assert sum(len(batch["y"]) for batch in loader) == NUM_SAMPLES


def collate_of_rows(rows: list[dict]) -> dict:
    batch = collate_rows(rows)[0]
    assert_is_batch(batch, samples(NUM_SAMPLES))
    return batch


def test_a_mapped_index_beyond_dim_is_found_in_a_keyed_column(tmp_path):
    """Mapped files are not checked when they are opened, so a batch is, whatever form its sets have."""
    schema = ss.Schema(x=ss.Sparse(10), z=ss.Sparse(5))
    with ss.MemmapWriter(str(tmp_path / "m"), schema) as writer:
        writer.write({"x": [9], "z": [4]})
    [path] = (tmp_path / "m").rglob("z.indices.npy")
    path.write_bytes(path.read_bytes()[:-4] + (5).to_bytes(4, "little"))
    with pytest.raises(ss.DatasetError, match="not below dim=5"):
        ss.MemmapDataset(str(tmp_path / "m"), keyed={"ids": ["x", "z"]})[[0]]


def test_mixtures_give_them(places):
    """A mixture, and one with a stream that follows, delivers padded and keyed columns as its sources do."""
    written = samples(NUM_SAMPLES)
    sources = [ss.ShardStream(url, batch_size=50, shuffle=True, seed=seed, lanes=4, **FORMS) for seed, url in enumerate((places.many, places.one))]
    for batch in itertools.islice(ss.mix(sources, [0.5, 0.5]), 8):
        assert_is_batch(batch, written)
    following = ss.ShardStream(places.many, batch_size=50, shuffle=True, lanes=4, follow=True, start="beginning",
                               until=ss.Dataset(places.many).version, **FORMS)  # fmt: skip
    batches = list(ss.mix([following, sources[1]], [0.5, 0.5]))
    for batch in batches:
        assert_is_batch(batch, written)
    assert len(batches) == NUM_SAMPLES / 25
    other = ss.ShardStream(places.one, batch_size=50, **{**FORMS, "ragged": ss.Padded(4)})
    with pytest.raises(ss.ConfigError, match="same forms"):
        ss.mix([ss.ShardStream(places.many, batch_size=50, **FORMS), other], [1, 1])


def test_in_memory_they_are_columns_like_any_other():
    """MemoryDataset takes KeyedJagged and padded tensors, and gives rows and batches of them."""
    jagged = ss.Jagged(torch.arange(6), torch.tensor([0, 2, 2, 6]))
    keyed = ss.KeyedJagged.of({"a": jagged, "b": ss.Jagged(torch.tensor([7, 8, 9]), torch.tensor([0, 1, 2, 3]), torch.tensor([0.5, 1.5, 2.5]))})
    ds = ss.MemoryDataset({"ids": keyed, "tokens": jagged.to_padded(3)}, [0, 1, 2])
    (batch, targets) = ds[[2, 0]]
    assert targets == [2, 0] and batch["tokens"].tolist() == [[2, 3, 4], [0, 1, 0]]
    assert batch["ids"].values.tolist() == [2, 3, 4, 5, 0, 1, 9, 7] and batch["ids"].weights.tolist() == [1] * 6 + [2.5, 0.5]
    assert ds[1][0]["ids"].lengths.tolist() == [0, 1] and len(ds) == 3


# -- KeyedJagged -------------------------------------------------------------------------------------


def test_the_layout_is_that_of_torchrec():
    """The example of KeyedJaggedTensor's own documentation (torchrec.sparse.jagged_tensor): three rows of two features,
    with weights.
    """
    rows = [([0, 1], [3]), ([], [4]), ([2], [5, 6, 7])]  # V0 ... V7 of the example
    feature0, feature1 = ([row[place] for row in rows] for place in (0, 1))
    columns = {name: ss.Jagged(torch.tensor(sum(of, [])), torch.tensor([0, *itertools.accumulate(map(len, of))]), torch.tensor(sum(of, [])) / 2)
               for name, of in (("Feature0", feature0), ("Feature1", feature1))}  # fmt: skip
    keyed = ss.KeyedJagged.of(columns)
    assert keyed.keys == ["Feature0", "Feature1"]
    assert keyed.values.tolist() == [0, 1, 2, 3, 4, 5, 6, 7] and keyed.weights.tolist() == [value / 2 for value in range(8)]
    assert keyed.lengths.tolist() == [2, 0, 1, 1, 1, 3] and keyed.offsets.tolist() == [0, 2, 2, 3, 4, 5, 8]
    assert keyed.offsets.dtype == keyed.lengths.dtype == torch.int64 and keyed.num_rows == 3
    assert keyed.offsets[:: keyed.num_rows].tolist() == [0, 3, 8]  # offset_per_key
    assert_same(keyed.to_dict(), columns)


def random_keyed(rng, num_rows: int, has_weights: bool) -> ss.KeyedJagged:
    columns = {}
    for key in ("a", "b", "c"):
        lengths = rng.integers(0, 4, num_rows)
        values = torch.from_numpy(rng.integers(0, 100, lengths.sum()))
        columns[key] = ss.Jagged(values, torch.from_numpy(np.cumsum([0, *lengths])),
                                 values / 3 if has_weights else None)  # fmt: skip
    return ss.KeyedJagged.of(columns)


@pytest.mark.parametrize("has_weights", [False, True])
def test_rows_of_keyed_columns_are_rows_of_each_field(has_weights):
    """Taking, joining, splitting and emptying a keyed column does to each field what it does to its own column."""
    rng = np.random.default_rng(5)
    for num_rows in (0, 1, 2, 13):
        keyed, other = (random_keyed(rng, count, has_weights) for count in (num_rows, 4))
        chosen = rng.integers(0, max(num_rows, 1), 9 if num_rows else 0)
        taken, joined = take_rows(keyed, chosen), concatenate([{"k": keyed}, {"k": other}], BufferPool())["k"]
        for key, column in keyed.to_dict().items():
            assert_same(taken.to_dict()[key], take_rows(column, chosen))
            assert_same(joined.to_dict()[key],
                        concatenate([{"k": column}, {"k": other.to_dict()[key]}], BufferPool())["k"])  # fmt: skip
        assert_same(empty_like({"k": keyed})["k"].to_dict()["b"],
                    take_rows(keyed.to_dict()["b"], np.empty(0, np.int64)))  # fmt: skip


def test_columns_of_different_numbers_of_rows_are_no_keyed_column():
    with pytest.raises(ss.ConfigError, match=r"not of \[1, 2\]"):
        ss.KeyedJagged.of({"a": ss.Jagged(torch.arange(2), torch.tensor([0, 1, 2])), "b": ss.Jagged(torch.arange(1), torch.tensor([0, 1]))})
    with pytest.raises(ss.ConfigError, match="not of none"):
        ss.KeyedJagged.of({})


# -- dtypes ------------------------------------------------------------------------------------------


def test_what_each_dtype_comes_out_as(tmp_path):
    """Unsigned integers beyond uint8 as int64, all others as they are stored; of dense, ragged and padded columns alike, and whoever made the rows."""
    dtypes = list(DENSE_DTYPES)
    schema = ss.Schema(**{f"d_{name}": ss.Dense(name, (2,)) for name in dtypes}, **{f"r_{name}": ss.Ragged(name) for name in dtypes})
    with ss.ShardWriter(str(tmp_path), schema=schema) as writer:
        rows = np.arange(40).reshape(20, 2)
        writer.write_batch({**{f"d_{name}": rows.astype(name) for name in dtypes},
                            **{f"r_{name}": (rows.ravel().astype(name), np.arange(21) * 2) for name in dtypes}})  # fmt: skip
    for num_workers, form in ((0, "jagged"), (0, ss.Padded(2)), (1, "jagged")):
        stream = ss.ShardStream(str(tmp_path), batch_size=20, ragged=form)
        [batch] = ss.StreamLoader(stream, num_workers, multiprocessing_context="fork")
        for name in dtypes:
            expected = rows.astype(name).astype("int64" if name in ("uint16", "uint32", "uint64") else name)
            ragged = batch[f"r_{name}"] if form != "jagged" else batch[f"r_{name}"].values.reshape(20, 2)
            for column in (batch[f"d_{name}"], ragged):
                assert str(column.dtype) == f"torch.{expected.dtype}" and np.array_equal(column.numpy(), expected), name


@pytest.mark.parametrize("dtype", [None, "float64", "float16", "int32", "bool"])
def test_sets_have_ones_of_the_dtype_asked_for(places, dtype):
    """Dense and as CSR, which say the same; float32 if nothing is asked for."""
    dense, csr = (next(iter(ss.ShardStream(places.one, batch_size=50, fields=["x"], sparse=form, dtypes={} if dtype is None else {"x": dtype})))["x"]
                  for form in ("dense", "csr"))  # fmt: skip
    assert str(dense.dtype) == str(csr.dtype) == f"torch.{dtype or 'float32'}" and (csr.values() == 1).all()
    rows = torch.arange(50).repeat_interleave(csr.crow_indices().diff())
    assert torch.stack([rows, csr.col_indices()], 1).tolist() == dense.nonzero().tolist()


def test_a_dense_form_that_no_memory_holds_is_named(tmp_path):
    """The form that a sparse field has by default may be larger than any machine, and so may padding; the error says what else there is."""
    one_each = np.arange(5000, dtype=np.uint32), np.arange(5001)
    with ss.ShardWriter(str(tmp_path), schema=ss.Schema(x=ss.Sparse(2**32), t=ss.Ragged("uint32"))) as writer:
        writer.write_batch({"x": one_each, "t": one_each})
    for field, options, message in (("x", {}, r"5000 dense rows of 4294967296 take 85,899.3 GB.*csr"),
                                    ("t", {"ragged": ss.Padded(2**31)}, r"5000 dense rows of 2147483648 take 85,899.3 GB.*pad")):
        with pytest.raises(ss.ConfigError, match=message) as error:
            next(iter(ss.ShardStream(str(tmp_path), batch_size=5000, fields=[field], **options)))
        assert error.value.field == field
    assert next(iter(ss.ShardStream(str(tmp_path), batch_size=5000, fields=["x"], sparse="csr")))["x"].shape == (5000, 2**32)


# -- padding -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep, pad, expected", [
    ("start", "right", [[1, 2, 3], [0, 0, 0], [5, 6, 0]]), ("end", "right", [[2, 3, 4], [0, 0, 0], [5, 6, 0]]),
    ("start", "left", [[1, 2, 3], [0, 0, 0], [0, 5, 6]]), ("end", "left", [[2, 3, 4], [0, 0, 0], [0, 5, 6]]),
])  # fmt: skip
def test_a_jagged_is_padded_either_way(keep, pad, expected):
    jagged = ss.Jagged(torch.tensor([1, 2, 3, 4, 5, 6], dtype=torch.int32), torch.tensor([0, 4, 4, 6]))
    padded = jagged.to_padded(3, keep=keep, pad=pad)
    assert padded.tolist() == expected and padded.dtype == torch.int32
    assert jagged.to_padded(value=9).tolist() == [[1, 2, 3, 4], [9] * 4, [5, 6, 9, 9]] and jagged.lengths.tolist() == [4, 0, 2]
    assert ss.Jagged(torch.empty(0), torch.zeros(1, dtype=torch.int64)).to_padded().shape == (0, 1)


@pytest.mark.parametrize("offsets", [[[0, 2], [2, 4]], 0, [0, 8, 2, 10], [0, 8, 2], [-5, 3], [0, 11], [0, 10**6, 5], [], [0.0, 10.0]])
def test_jagged_to_padded_reads_no_memory_beyond_its_values(offsets):
    with pytest.raises(ss.ConfigError, match="offsets must be integers that ascend"):
        ss.Jagged(torch.arange(10), torch.tensor(offsets)).to_padded(4)


@pytest.mark.parametrize("values", [torch.zeros(10, 3), torch.zeros(10, dtype=torch.bfloat16), torch.zeros(10, dtype=torch.complex64)])
def test_jagged_to_padded_refuses_values_that_no_column_has(values):
    with pytest.raises(ss.ConfigError, match="to_padded: values are"):
        ss.Jagged(values, torch.tensor([0, 10])).to_padded()


def test_padded_rows_are_cast_like_all_others(places):
    """dtypes= holds for padded fields, too, and the value is one of that dtype."""
    for dtype, value in (("int32", -100), ("uint16", 65535), ("float32", float("nan")), ("float16", 0.5), ("bool", 1)):
        stream = ss.ShardStream(places.one, batch_size=7, fields=["tokens"], ragged={"tokens": ss.Padded(8, value)},
                                dtypes={"tokens": dtype})  # fmt: skip
        [row] = itertools.islice(stream, 1)
        assert str(row["tokens"].dtype) == f"torch.{dtype}"
        assert np.array_equal(row["tokens"][0].numpy(), np.full(8, value, dtype), equal_nan=dtype == "float32")


@pytest.mark.parametrize("arguments, message", [
    ({"ragged": "padded"}, "neither 'jagged' nor an ss.Padded"), ({"ragged": {"text": ss.Padded(3)}}, "is not a ragged field"),
    ({"ragged": {"tokens": 3}}, "neither 'jagged' nor an ss.Padded"), ({"ragged": ss.Padded(3, mask="y")}, "named 'y'"),
    ({"ragged": ss.Padded(3, 0.5)}, "no number of int64"), ({"ragged": ss.Padded(3, 256), "dtypes": {"tokens": "uint8"}}, "no number of uint8"),
    ({"ragged": ss.Padded(3, 1e6), "dtypes": {"tokens": "float16"}}, "no number of float16"), ({"ragged": ss.Padded(3, 2**80)}, "no number of int64"),
    ({"sparse": {"tokens": "csr"}}, "is not a sparse field"), ({"sparse": "keyed"}, "neither one of"), ({"sparse": {"x": "keyed"}}, "is not one of"), ({"dtypes": ["y"]}, "not a dict"),
    ({"keyed": {"ids": "x"}}, "must be a dict"), ({"keyed": ["x"]}, "must be a dict"), ({"keyed": {"ids": ["y"]}}, r"fields of ids are \['x', 'v', 'tokens'\]"),
    ({"keyed": {"ids": []}}, "no field"), ({"keyed": {"ids": ["x", "x"]}}, "twice"), ({"keyed": {"ids": ["x"], "more": ["x"]}}, "twice"),
    ({"keyed": {"y": ["x"]}}, "named 'y'"), ({"keyed": {"IDs": ["x"]}}, "lower-case"), ({"keyed": {"ids": ["nope"]}}, "fields of ids are"),
    ({"keyed": {"ids": ["x"]}, "sparse": {"x": "csr"}}, "with a column of its own"), ({"keyed": {"ids": ["x"]}, "dtypes": {"x": "int32"}}, "fields with a dtype"),
    # a set has an order of its own in each process
    *(({"keyed": {"ids": ids}}, "must be a dict") for ids in ({"x", "v"}, iter(["x"]), None, 3)),
    ({"dtypes": {"y": "bfloat16"}}, "not a dtype"), ({"dtypes": {"y": None}}, "gives None"), ({"dtypes": {"y": torch.bfloat16}}, "can't come out as bfloat16"),
])  # fmt: skip
def test_mistakes_are_named(places, arguments, message):
    with pytest.raises(ss.ConfigError, match=message):
        next(iter(ss.ShardStream(places.one, batch_size=2, **arguments)))


@pytest.mark.parametrize("arguments, message", [
    ({"length": 0}, "from 1 to"), ({"length": True}, "from 1 to"), ({"length": 2.5}, "from 1 to"), ({"length": 2, "keep": "right"}, "keep='right'"),
    ({"length": 2, "pad": "start"}, "pad='start'"), ({"length": 2, "mask": "__pad__"}, "mask='__pad__'"), ({"length": 2, "mask": True}, "mask=True"),
    *(({"length": 2, "value": value}, "must be a number") for value in ("a", None, [1, 2], 1j)),
])  # fmt: skip
def test_mistakes_of_padded_are_named_at_once(arguments, message):
    with pytest.raises(ss.ConfigError, match=message):
        ss.Padded(**arguments)

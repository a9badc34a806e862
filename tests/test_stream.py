"""Streams: every sample once, in an order that is a function of the seed, in the forms that were asked for."""

import gc
import threading
import types
import warnings

import numpy as np
import pytest
import torch

import shardstream as ss
from shardstream.order.epoch import EpochOrder
from shardstream.reader import BlockReader
from shardstream.source import Source
from shardstream.verify import verify
from shardstream.window import WindowReader, _blocks_of, _numbered

NUM = 5000
DIM = 64


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """A dataset of 5,000 samples in several shards of blocks of 101 samples."""
    url = str(tmp_path_factory.mktemp("stream") / "d")
    schema = ss.Schema(x=ss.Sparse(DIM), w=ss.Sparse(DIM, "float32"), t=ss.Ragged("uint16"), a=ss.Dense("float32", (3,)),
                       s=ss.Text(), y=ss.Dense("uint32"))  # fmt: skip
    generator = np.random.default_rng(0)
    with ss.ShardWriter(url, schema=schema, shard_nbytes="60kB") as writer:
        for i in range(NUM):
            indices = generator.choice(DIM, generator.integers(0, 9), replace=False)
            writer.write({"x": indices, "w": (indices, indices + 0.5), "t": np.arange(i % 7), "a": [i, i + 1, i + 2], "s": str(i), "y": i})
            if i % 101 == 0:
                writer._close_block()
                writer._roll(False)
    return url


def test_in_order_without_shuffle(url):
    """Without shuffle samples come in the order in which they were written."""
    assert [int(one["y"]) for one in ss.ShardStream(url)] == list(range(NUM))
    assert len(ss.Dataset(url).shards) > 2


@pytest.mark.parametrize("lanes, window", [(None, None), (1, 1), (7, 100), (96, 96), (NUM, NUM), (3, 10**9)])
def test_shuffled_epochs_have_every_sample_once(url, lanes, window):
    """For any lanes and window an epoch is a permutation, and the next epoch another one."""
    stream = ss.ShardStream(url, batch_size=64, shuffle=True, seed=3, lanes=lanes, window=window, fields=["y"])
    first, second = ([y for batch in stream for y in batch["y"].tolist()] for _ in range(2))
    assert sorted(first) == sorted(second) == list(range(NUM))
    assert (lanes, window) == (1, 1) or first != second


def test_order_is_that_of_the_pure_function(url):
    """A stream delivers exactly what order.EpochOrder says, position by position."""
    stream = ss.ShardStream(url, batch_size=100, shuffle=True, seed=11, lanes=10, window=500, fields=["y"])
    counts = stream.source.num_samples
    order = EpochOrder(counts, seed=11, epoch=0, lanes=10, window=500, shuffle=True)
    shard, row = order.locate(order.line(0, NUM))
    expected = (np.concatenate([[0], np.cumsum(counts)])[shard] + row).tolist()
    assert [y for batch in stream for y in batch["y"].tolist()] == expected


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_ranks_share_the_epoch(url, world_size):
    """The ranks' batches are the same in number, disjoint, and together the global batches of one rank."""
    whole = list(ss.ShardStream(url, batch_size=30, shuffle=True, fields=["y"], lanes=30, window=600))
    ranks = [list(ss.ShardStream(url, batch_size=30 // world_size, shuffle=True, fields=["y"], lanes=30, window=600, rank=r,
                                 world_size=world_size, version=1)) for r in range(world_size)]  # fmt: skip
    assert {len(batches) for batches in ranks} == {len(whole)}
    for t, batch in enumerate(whole):
        together = torch.stack([ranks[r][t]["y"] for r in range(world_size)], 1).flatten() if len(batch["y"]) == 30 else torch.cat(
            [ranks[r][t]["y"] for r in range(world_size)])  # fmt: skip
        assert sorted(together.tolist()) == sorted(batch["y"].tolist())
        assert len(batch["y"]) < 30 or together.tolist() == batch["y"].tolist()


def test_length_is_known(url):
    """len() is the number of batches, and of samples, that come."""
    for batch_size, drop_last in [(None, False), (64, False), (64, True), (64, "pad"), (NUM, False), (NUM + 1, True)]:
        stream = ss.ShardStream(url, batch_size=batch_size, drop_last=drop_last, fields=["y"])
        assert len(stream) == sum(1 for _ in stream)


def test_pad_fills_from_the_start(url):
    """drop_last="pad" makes the last batch full with the epoch's first samples, marked in __pad__."""
    batches = list(ss.ShardStream(url, batch_size=512, drop_last="pad", fields=["y"], shuffle=True))
    last, first = batches[-1], batches[0]
    num_pad = len(batches) * 512 - NUM
    assert len(last["y"]) == 512 and last["__pad__"].sum() == num_pad and last["__pad__"][-num_pad:].all()
    assert last["y"][-num_pad:].tolist() == first["y"][:num_pad].tolist() and not first["__pad__"].any()
    real = torch.cat([b["y"][~b["__pad__"]] for b in batches])
    assert sorted(real.tolist()) == list(range(NUM))


def test_pad_of_a_tiny_epoch(tmp_path):
    """Padding goes round a dataset smaller than the batch as often as it must."""
    with ss.ShardWriter(str(tmp_path / "d"), schema=ss.Schema(y=ss.Dense("int64"))) as writer:
        writer.write_batch({"y": np.arange(3)})
    [batch] = ss.ShardStream(str(tmp_path / "d"), batch_size=8, drop_last="pad")
    assert batch["y"].tolist() == [0, 1, 2, 0, 1, 2, 0, 1] and batch["__pad__"].sum() == 5


@pytest.mark.parametrize("cut", [0, 1, 17, 155, 156])
def test_resume_goes_on_exactly(url, cut):
    """A state taken after any batch, through JSON, continues with exactly the batches that were missing."""
    import json

    options = {"batch_size": 32, "shuffle": True, "seed": 5, "fields": ["y"]}
    stream = ss.ShardStream(url, **options)
    whole = [batch["y"].tolist() for batch in stream]
    stream = ss.ShardStream(url, **options)
    iterator = iter(stream)
    for _ in range(cut):
        next(iterator)
    state = json.loads(json.dumps(stream.state_dict()))
    assert len(json.dumps(state)) < 1000
    resumed = ss.ShardStream(url, **options)
    resumed.load_state_dict(state)
    assert [batch["y"].tolist() for batch in resumed] == whole[cut:]


def test_resume_on_another_topology(url):
    """One state, other batch size and world size: together every sample exactly once."""
    stream = ss.ShardStream(url, batch_size=33, shuffle=True, fields=["y"])
    seen, iterator = [], iter(stream)
    for _ in range(20):
        seen += next(iterator)["y"].tolist()
    state = stream.state_dict()
    for rank in range(4):
        resumed = ss.ShardStream(url, batch_size=7, shuffle=True, fields=["y"], rank=rank, world_size=4, version=1)
        resumed.load_state_dict(state)
        seen += [y for batch in resumed for y in batch["y"].tolist()]
    assert sorted(seen) == list(range(NUM))


def test_state_at_the_ends(url):
    """Inside the loop after the last batch a state ends at once on resume; after the loop it is the next epoch."""
    stream = ss.ShardStream(url, batch_size=1000, fields=["y"])
    for batch in stream:
        inside = stream.state_dict()
    after = stream.state_dict()
    assert (inside["epoch"], inside["position"]) == (0, NUM) and (after["epoch"], after["position"]) == (1, 0)
    resumed = ss.ShardStream(url, batch_size=1000, fields=["y"])
    resumed.load_state_dict(inside)
    assert list(resumed) == [] and resumed.state_dict() == after


def test_states_of_others_are_refused(url, tmp_path):
    """A state of another dataset, a broken one, or one against explicit arguments is a StateError."""
    with ss.ShardWriter(str(tmp_path / "d"), schema=ss.Schema(y=ss.Dense("int64"))) as writer:
        writer.write({"y": 1})
    state = ss.ShardStream(str(tmp_path / "d"), shuffle=True, seed=4).state_dict()
    for bad in (state, {**state, "version": 99}, {}, {**state, "position": -1}, {**state, "format": 99},
                {**state, "extra": 1}, []):  # fmt: skip
        with pytest.raises(ss.StateError):
            ss.ShardStream(url, shuffle=True).load_state_dict(bad)
    ss.ShardStream(str(tmp_path / "d"), shuffle=True).load_state_dict({**state, "position": 1})
    with pytest.raises(ss.StateError, match="position 2 is past the 1 samples"):
        ss.ShardStream(str(tmp_path / "d"), shuffle=True).load_state_dict({**state, "position": 2})
    with pytest.raises(ss.StateError, match="seed"):
        ss.ShardStream(str(tmp_path / "d"), shuffle=True, seed=5).load_state_dict(state)
    with pytest.raises(ss.StateError, match="lanes"):
        ss.ShardStream(str(tmp_path / "d"), shuffle=True, lanes=5).load_state_dict(state)


def test_sparse_forms_agree(url):
    """dense, csr, jagged and indices are the same rows."""
    forms = {form: next(iter(ss.ShardStream(url, batch_size=200, sparse=form))) for form in ("dense", "csr", "jagged", "indices")}
    for name in ("x", "w"):
        dense = forms["dense"][name]
        assert dense.dtype == torch.float32 and dense.shape == (200, DIM)
        assert torch.equal(forms["csr"][name].to_dense(), dense)
        jagged, rows = forms["jagged"][name], forms["indices"][name]
        table = torch.eye(DIM)
        summed = torch.nn.functional.embedding_bag(jagged.values, table, jagged.offsets, mode="sum", include_last_offset=True,
                                                   per_sample_weights=jagged.weights)  # fmt: skip
        assert torch.allclose(summed, dense)
        for i, row in enumerate(rows):
            indices, weights = row if name == "w" else (row, torch.ones(len(row)))
            assert torch.equal(dense[i].nonzero().flatten(), indices) and torch.equal(dense[i][indices], weights)


def test_sparse_forms_by_field(url):
    """sparse= may differ by field; others stay dense."""
    batch = next(iter(ss.ShardStream(url, batch_size=5, sparse={"x": "jagged"})))
    assert isinstance(batch["x"], ss.Jagged) and batch["w"].shape == (5, DIM)


def test_dtypes(url):
    """Wide unsigned integers come as int64; dtypes= casts dense, ragged and sparse values."""
    batch = next(iter(ss.ShardStream(url, batch_size=5)))
    assert batch["y"].dtype == torch.int64 and batch["t"].values.dtype == torch.int64 and batch["a"].dtype == torch.float32
    batch = next(iter(ss.ShardStream(url, batch_size=5, dtypes={"y": "int32", "t": torch.float32, "x": np.float16, "a": "float64"})))
    assert [batch["y"].dtype, batch["t"].values.dtype, batch["x"].dtype, batch["a"].dtype] == [
        torch.int32, torch.float32, torch.float16, torch.float64]  # fmt: skip


@pytest.mark.parametrize("options", [
    {"batch_size": 0}, {"batch_size": 1.5}, {"on_error": "ignore"}, {"epochs": 0}, {"rank": 1}, {"rank": 2, "world_size": 2},
    {"fields": ["nope"]}, {"fields": []}, {"fields": "y"}, {"sparse": "coo"}, {"sparse": {"y": "csr"}}, {"dtypes": {"nope": "int64"}}, {"dtypes": {"s": "int64"}},
    {"dtypes": {"y": "quaternion"}}, {"drop_last": "fill"}, {"lanes": 0, "shuffle": True}, {"window": 0, "shuffle": True},
    {"lanes": 4}, {"version": 99}, {"epochs": True}, {"epochs": 1.0}, {"epochs": "2"}, {"epochs": 1.5}, {"cache_dir": "c", "cache_limit": 0},
    {"transform": "upper"}, {"shuffle": "no"}, {"allow_unsafe": "no"}, {"rank": "0", "world_size": 2}, {"read": "1GB"},
])  # fmt: skip
def test_bad_arguments_are_config_errors(url, options):
    """Every illegal argument is a ConfigError or StateError before any sample comes."""
    with pytest.raises((ss.ConfigError, ss.DatasetNotFoundError)):
        next(iter(ss.ShardStream(url, **options)))


@pytest.mark.parametrize("wrong, message", [
    ({"cache_dir": 5}, "cache_dir must be a non-empty text or path, not 5"), ({"cache_dir": ""}, "cache_dir must be"), ({"cache_dir": b"c"}, "cache_dir must be"),
    ({"cache_dir": "s3://b/c"}, "'s3://b/c' is not a local folder, as cache_dir= must be"), ({"cache_dir": "c", "cache_limit": []}, "cache_limit must be"),
    ({"storage_options": "key=hush"}, "storage_options must be a dict .* not of type str"), ({"storage_options": ["hush"]}, "not of type list"),
    ({"storage_options": {1: "hush"}}, "texts, not 1"),
], ids=str)  # fmt: skip
def test_wrong_places_and_options_are_refused_at_construction(url, wrong, message):
    """As ConfigErrors, in which no value of storage options stands."""
    with pytest.raises(ss.ConfigError, match=message) as refused:
        ss.ShardStream(url, **wrong)
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize("options", ["x", ["x"], {None: "x"}], ids=str)
@pytest.mark.parametrize("opened", [
    ss.Dataset, ss.ShardDataset, lambda url, **options: ss.ShardWriter(url, schema=None, **options),
    lambda url, **options: ss.ShardWriter.last_source(url, "p", **options), lambda url, **options: verify(url, **options),
], ids=["Dataset", "ShardDataset", "ShardWriter", "last_source", "verify"])  # fmt: skip
def test_wrong_storage_options_are_refused_by_whatever_takes_them(url, opened, options):
    """Also where the place is local and would not need them."""
    with pytest.raises(ss.ConfigError, match="storage_options"):
        opened(url, storage_options=options)


@pytest.mark.parametrize("kind, name, good, bad", [
    (ss.ReadPolicy, "threads", (None, 1, np.int64(4)), ("2", True, 0, 1.5, -1, float("nan"))),
    (ss.ReadPolicy, "max_skipped", (0, 10), ("2", None, True, 1.5, -1)), (ss.ReadPolicy, "retry", (ss.RetryPolicy(),), (None, 5, {"max_attempts": 2})),
    (ss.ReadPolicy, "memory_limit", ("1GB", 10**9), (None, [], -1, "much")), (ss.RetryPolicy, "max_attempts", (1,), ("2", None, 0, 1.5, True)),
    *((ss.RetryPolicy, name, (0, 1.5, float("inf")), ("2", None, -1, True, float("nan"), 1j)) for name in ("first_delay_s", "max_delay_s", "deadline_s", "request_s", "hedge_factor")),
])  # fmt: skip
def test_policies_refuse_what_they_can_t_use(kind, name, good, bad):
    """Each value of another type, or out of its range, is a ConfigError that names it."""
    for value in good:
        assert getattr(kind(**{name: value}), name) is value
    for value in bad:
        with pytest.raises(ss.ConfigError, match=name):
            kind(**{name: value})


@pytest.mark.parametrize("wrong", [None, 3, True, b"abc", {"a": 1}, {"a"}, [None], ["a", 3], [b"a"], "", torch.tensor(1), object()], ids=lambda wrong: type(wrong).__name__)
@pytest.mark.parametrize("follow", [False, True])
def test_what_is_no_url_is_refused_at_once(wrong, follow):
    """The first argument is a ConfigError when the stream is made, not when it is read, and says what to give."""
    with pytest.raises(ss.ConfigError, match="give the URL of a dataset|non-empty text"):
        ss.ShardStream(wrong, batch_size=2, follow=follow)


def test_urls_may_come_in_any_iterable(url):
    """A generator of URLs is as good as a list, and used up once; what has a .url is told of."""
    shards = ss.Dataset(url).shards
    stream = ss.ShardStream((shard for shard in shards), batch_size=50, fields=["y"])
    assert [len(list(stream)) for _ in range(2)] == [NUM // 50] * 2
    with pytest.raises(ss.ConfigError, match="here, its .url"):
        ss.ShardStream(ss.Dataset(url))


def test_transforms(url):
    """A row-wise transform sees samples and may drop them; a batched one sees columns."""

    def odd(sample):
        return {"z": sample["y"] * 2, "s": sample["s"]} if sample["y"] % 2 else None

    stream = ss.ShardStream(url, batch_size=100, fields=["y", "s"], transform=odd)
    batches = list(stream)
    assert [len(b["z"]) for b in batches] == [50] * 50 and stream.report.num_dropped == NUM // 2
    assert torch.cat([b["z"] for b in batches]).tolist() == [2 * i for i in range(1, NUM, 2)] and batches[0]["s"][0] == "1"

    @ss.batched
    def double(columns):
        return {"z": columns["y"] * 2}

    assert torch.cat([b["z"] for b in ss.ShardStream(url, batch_size=64, transform=double)]).tolist() == [2 * i for i in range(NUM)]


@pytest.mark.parametrize("is_batched", [False, True])
def test_resume_between_samples_of_a_dropping_transform(url, is_batched):
    """Single samples resume exactly even where a transform drops rows between them."""

    def odd(sample):
        return sample if sample["y"] % 2 else None

    @ss.batched
    def odd_columns(columns):
        left = columns["y"] % 2 == 1
        return {"y": columns["y"][left]}, left

    options = {"shuffle": True, "fields": ["y"], "transform": odd_columns if is_batched else odd}
    for cut in (1, 2, 3, 300):
        stream = ss.ShardStream(url, **options)
        iterator = iter(stream)
        seen = [int(next(iterator)["y"]) for _ in range(cut)]
        resumed = ss.ShardStream(url, **options)
        resumed.load_state_dict(stream.state_dict())
        assert sorted(seen + [int(one["y"]) for one in resumed]) == list(range(1, NUM, 2))


def test_a_failing_transform_is_located(url):
    """An exception in a transform names shard, block and row, and chains the user's own."""

    def fail(sample):
        if sample["y"] == 4321:
            raise KeyError("mine")
        return sample

    with pytest.raises(ss.TransformError, match="mine") as caught:
        list(ss.ShardStream(url, batch_size=100, transform=fail))
    assert isinstance(caught.value.__cause__, KeyError) and caught.value.shard.endswith(".tar") and caught.value.block is not None


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("num_workers", [1, 3])
def test_plain_dataloader(url, num_workers):
    """torch's own DataLoader with workers gives every sample once."""
    stream = ss.ShardStream(url, batch_size=50, shuffle=True, fields=["y"])
    loader = torch.utils.data.DataLoader(stream, batch_size=None, num_workers=num_workers)
    assert sorted(y for batch in loader for y in batch["y"].tolist()) == list(range(NUM))


def test_plain_dataloader_warns_about_state(url, monkeypatch):
    """The first worker of a plain DataLoader, and no other, warns that resume needs StreamLoader."""
    for worker in range(2):
        monkeypatch.setattr("shardstream.stream.get_worker_info", lambda: types.SimpleNamespace(id=worker, num_workers=2))
        with warnings.catch_warnings(record=True) as caught:
            next(iter(ss.ShardStream(url, batch_size=50, shuffle=True, version=1)))
        assert ["StreamLoader" in str(warning.message) for warning in caught] == [True] * (worker == 0)


@pytest.mark.parametrize("batch_size", [None, 64])
def test_skipping_unreadable_blocks(tmp_path, batch_size):
    """A flipped byte and a missing shard cost their rows only, counted, named and bounded by the budget."""
    import os

    url = str(tmp_path / "d")
    with ss.ShardWriter(url, schema=ss.Schema(y=ss.Dense("int64")), shard_nbytes="8kB") as writer:
        writer.write_batch({"y": np.arange(8000)})
    shards = ss.Dataset(url).shards
    os.unlink(shards[2])
    with open(shards[5], "r+b") as file:
        file.seek(3000)
        byte = file.read(1)
        file.seek(3000)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises((ss.ChecksumError, ss.ShardNotFoundError)):
        list(ss.ShardStream(url, batch_size=batch_size, shuffle=True))
    stream = ss.ShardStream(url, batch_size=batch_size, shuffle=True, on_error="skip",
                            read=ss.ReadPolicy(max_skipped=4000))  # fmt: skip
    ys = [y for item in stream for y in item["y"].reshape(-1).tolist()]
    assert len(ys) == len(set(ys)) == 8000 - stream.report.num_skipped and 0 < stream.report.num_skipped <= 2000
    assert len(stream.report.errors) == 2 and shards[2] in "".join(stream.report.errors) and shards[5] in "".join(stream.report.errors)
    assert batch_size is None or len(list(stream)) == len(stream)
    with pytest.raises(ss.ShardstreamError, match="max_skipped=100"):
        list(ss.ShardStream(url, batch_size=batch_size, shuffle=True, on_error="skip", read=ss.ReadPolicy(max_skipped=100)))


def test_an_index_that_is_loaded_again_in_vain_is_an_error(url, monkeypatch):
    """A window of more shards than indexes are kept of loads some again, in the threads that read, too: whichever fails, the loop ends."""
    monkeypatch.setattr("shardstream.reader.INDEXES_KEPT", 1)
    left, load_index = [0], Source.load_index

    def may_fail(self, shard, fetcher):
        left[0] -= 1
        if left[0] == 0:
            raise ss.ShardNotFoundError("gone", shard=self.url(shard))
        return load_index(self, shard, fetcher)

    monkeypatch.setattr(Source, "load_index", may_fail)
    ended: list[type | None] = []

    def read_until_it_fails() -> None:
        for number in range(1, 160, 6):
            left[0] = number
            try:
                for _ in ss.ShardStream(url, batch_size=500, shuffle=True, fields=["x"], read=ss.ReadPolicy(threads=1)):
                    pass
                ended.append(None)
            except ss.ShardNotFoundError as error:
                ended.append(type(error))

    thread = threading.Thread(target=read_until_it_fails, daemon=True)
    thread.start()
    thread.join(60)
    assert len(ended) == 27 and ended.count(None) < 7


def test_memory_is_counted_and_bounded(url):
    """What the reader holds stays within memory_limit over an epoch; a limit that can't do is an error with numbers."""
    stream = ss.ShardStream(url, batch_size=64, shuffle=True, lanes=8, window=80,
                            read=ss.ReadPolicy(memory_limit="1MB"))  # fmt: skip
    from shardstream.rowmaker import RowMaker

    makers = []
    original = RowMaker.__init__

    def spy(self, *arguments, **options):
        original(self, *arguments, **options)
        makers.append(self)

    RowMaker.__init__ = spy
    try:
        assert sum(len(batch["y"]) for batch in stream) == NUM
    finally:
        RowMaker.__init__ = original
    budget = makers[0]._window.budget
    assert 0 < budget.peak_nbytes <= 1_000_000
    with pytest.raises(ss.ConfigError, match="memory_limit 9,375 bytes"):
        list(ss.ShardStream(url, batch_size=64, shuffle=True, read=ss.ReadPolicy(memory_limit="10kB")))
    with pytest.raises(ss.ConfigError, match=r"reading in order needs .*memory_limit=\.\.\.\)\.$"):  # no lanes to have fewer of
        list(ss.ShardStream(url, batch_size=64, read=ss.ReadPolicy(memory_limit="1kB")))


@pytest.mark.parametrize("shuffle", [False, True])
def test_what_fits_into_half_of_the_limit_is_read_once(url, shuffle):
    """Later epochs of a small dataset read nothing, whether the one before was finished or left; of a large one they
    read all again.
    """

    def epochs(memory_limit):
        stream = ss.ShardStream(url, batch_size=64, shuffle=shuffle, fields=["y"], epochs=1,
                                read=ss.ReadPolicy(memory_limit=memory_limit))  # fmt: skip
        loader = ss.StreamLoader(stream)
        found, num_read = [], []
        for epoch in range(3):
            stream.set_epoch(epoch)
            found.append([y for batch in loader for y in batch["y"].reshape(-1).tolist()])
            num_read.append(loader.stats()["num_bytes_read"])
        stream.set_epoch(0)
        next(iter(loader))
        return found, num_read, stream

    small, num_read_small, stream = epochs("50MB")
    large, num_read_large, _ = epochs("40kB")
    assert small == large and sorted(small[0]) == list(range(NUM))
    assert num_read_small[0] == num_read_small[1] == num_read_small[2] > 0
    assert num_read_large[2] - num_read_large[1] == num_read_large[1] - num_read_large[0] > 0.9 * num_read_large[0]
    assert list(stream)[0]["y"].numel() == 64


def test_a_batch_waits_for_no_block_that_it_does_not_need(tmp_path, monkeypatch):
    """The first is there while the second block of its chunk is still on its way."""
    with ss.ShardWriter(str(tmp_path), schema=ss.Schema(y=ss.Dense("int64"))) as writer:
        for number in range(200):
            writer.write({"y": number})
            if number % 50 == 49:
                writer._close_block()
    is_taken, in_time, read_many = threading.Event(), [], BlockReader.read_many

    def late(self, shard, blocks):
        if 0 not in blocks:
            in_time.append(is_taken.wait(20))
        return read_many(self, shard, blocks)

    monkeypatch.setattr(BlockReader, "read_many", late)
    for batch in ss.ShardStream(str(tmp_path), batch_size=50):
        is_taken.set()
        assert len(batch["y"]) == 50
    assert in_time == [True] * 3


@pytest.mark.parametrize("far", [0, 2**21])
def test_shards_are_numbered_in_ascending_order(far):
    """Few among each other by a table, of a number that no table is made for by a sort."""
    shards = np.array([7, 3, 3, 9 + far, 7])
    distinct, number = _numbered(shards)
    assert distinct.tolist() == [3, 7, 9 + far] and number.tolist() == [1, 0, 0, 2, 1]
    assert [part.tolist() for part in _numbered(np.empty(0, np.int64))] == [[], []]


def test_spans_of_rows_name_the_blocks_that_they_overlap():
    """No neighbour of theirs, in order, each once, without those that are known."""
    starts, spans = {0: np.array([0, 10, 20]), 5: np.array([0])}, [(0, 10, 20), (0, 0, 10), (0, 19, 21), (5, 3, 4), (0, 0, 1)]
    assert _blocks_of(spans, starts, set()) == [(0, 1), (0, 0), (0, 2), (5, 0)]
    assert _blocks_of(spans, starts, {(0, 0), (5, 0)}) == [(0, 1), (0, 2)]


def test_one_iterator_at_a_time(url):
    """A stream has one position: an older iterator says so when it is used after a newer one was made."""
    stream = ss.ShardStream(url, batch_size=10, fields=["y"])
    old = iter(stream)
    next(old)
    next(iter(stream))
    with pytest.raises(ss.ConfigError, match="iterator"):
        next(old)


def test_threads_start_where_blocks_are_to_be_read(url, monkeypatch):
    """An epoch of blocks that were kept has nothing to read ahead, so all of it is done in the loop's thread."""
    stream, started, start = ss.ShardStream(url, batch_size=10, shuffle=True), [], threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", lambda self: (started.append(self.name), start(self)))
    first = [row for batch in stream for row in batch["x"].tolist()]
    assert any(name.startswith("shardstream-plan") for name in started)
    started.clear()
    second = [row for batch in stream for row in batch["x"].tolist()]
    assert not started and second != first and sorted(second) == sorted(first)


def test_no_threads_are_left(url):
    """Leaving a loop early ends the reader's threads."""
    before = threading.active_count()
    for batch in ss.ShardStream(url, batch_size=10, shuffle=True):
        break
    del batch
    gc.collect()
    assert threading.active_count() <= before


def test_leaving_a_loop_does_not_plan_the_rest(tmp_path, monkeypatch):
    """A loop that is left early ends at once, also where all that is left of the epoch is in a block that is held."""
    with ss.ShardWriter(str(tmp_path / "d"), schema=ss.Schema(y=ss.Dense("int8"))) as writer:
        writer.write_batch({"y": np.zeros(8000, np.int8)})
    num_planned, plan = 0, WindowReader._plan

    def spy(self, chunk):
        nonlocal num_planned
        num_planned += 1
        return plan(self, chunk)

    monkeypatch.setattr(WindowReader, "_plan", spy)
    monkeypatch.setattr("shardstream.window.CHUNK_SAMPLES", 10)
    for _ in ss.ShardStream(str(tmp_path / "d"), batch_size=10):
        break
    gc.collect()
    assert num_planned < 20


def test_streams_pickle_small(url):
    """A stream travels to workers as its arguments, not its data."""
    import pickle

    stream = ss.ShardStream(url, batch_size=10)
    assert len(pickle.dumps(stream)) < 2000
    next(iter(stream))
    assert [b["y"].tolist() for b in pickle.loads(pickle.dumps(stream))][0] == list(range(10, 20))


def test_an_empty_dataset_says_so(tmp_path):
    """A dataset without samples is an error that names it, not an epoch of nothing."""
    ss.ShardWriter(str(tmp_path / "d"), schema=ss.Schema(y=ss.Dense("int64")), producer="p").close()
    with pytest.raises(ss.EmptyDatasetError):
        list(ss.ShardStream(str(tmp_path / "d")))
    with pytest.raises(ss.DatasetNotFoundError):
        list(ss.ShardStream(str(tmp_path / "nowhere")))


def test_batched_transforms_drop_rows_by_a_mask(url):
    """A batched transform drops rows by returning (columns, which are left); any other change of length is an error."""

    @ss.batched
    def odd(columns):
        is_odd = columns["y"] % 2 == 1
        return {"y": columns["y"][is_odd]}, is_odd

    @ss.batched
    def shorter(columns):
        return {"y": columns["y"][:3]}

    stream = ss.ShardStream(url, batch_size=100, fields=["y"], transform=odd, drop_last="pad")
    batches = list(stream)
    assert torch.cat([b["y"] for b in batches]).tolist() == list(range(1, NUM, 2)) and stream.report.num_dropped == NUM // 2
    assert all(len(b["__pad__"]) == len(b["y"]) for b in batches)
    with pytest.raises(ss.TransformError, match="100 rows"):
        next(iter(ss.ShardStream(url, batch_size=100, fields=["y"], transform=shorter)))


def test_the_error_of_a_batched_transform_says_which_rows_it_had(url, tmp_path):
    """Their number, their positions, and the first of them: by its row in its block, or by its key."""

    @ss.batched
    def fails(columns):
        raise ValueError("no")

    @ss.batched
    def wrong(columns):
        return [columns]

    @ss.batched
    def forgets(columns):  # to return them
        columns["y"] = columns["y"] + 1

    for transform, what in [(fails, "transform raised ValueError: no"), (wrong, "must return a dict"),
                            (forgets, "must return a dict .* not NoneType")]:  # fmt: skip
        stream = ss.ShardStream(url, batch_size=10, shuffle=True, seed=1, fields=["y"], transform=transform)
        plain = ss.ShardStream(url, batch_size=10, shuffle=True, seed=1, fields=["y"])
        next(iter(plain))
        stream.load_state_dict(plain.state_dict())
        with pytest.raises(ss.TransformError,
                           match=f"{what}.*given 10 rows, of positions 10 to 19 of epoch 0") as caught:  # fmt: skip
            next(iter(stream))
        wanted, error = int(next(iter(plain))["y"][0]), caught.value
        # a shard here has one block
        assert error.block == 0 and int(ss.ShardDataset(error.shard)[error.key]["y"]) == wanted
    with ss.ShardWriter(str(tmp_path / "files")) as writer:
        for i in range(9):
            writer.write({"__key__": f"key-{i}", "cls": i})
    with pytest.raises(ss.TransformError, match="given 4 rows.*key key-0"):
        next(iter(ss.ShardStream(str(tmp_path / "files"), batch_size=4, transform=fails)))


def test_a_transform_must_return_rows(url):
    """A row-wise transform that returns neither a dict nor None is an error that says what it returned."""
    with pytest.raises(ss.TransformError, match="not tuple"):
        next(iter(ss.ShardStream(url, batch_size=10, transform=lambda sample: (1, 2))))


@pytest.mark.parametrize("transform", [None, lambda sample: {"z": sample["a"] * 2, "s": sample["s"], "n": int(sample["y"])}])
def test_batches_without_rows_have_their_columns(tmp_path, transform):
    """A rank that owns no sample of the last batch, even of any, gets columns of the right kinds and dtypes."""
    schema = ss.Schema(a=ss.Dense("float32", (3,)), s=ss.Text(), y=ss.Dense("uint16"), t=ss.Ragged("int32"))
    with ss.ShardWriter(str(tmp_path / "d"), schema=schema) as writer:
        writer.write({"a": [1, 2, 3], "s": "one", "y": 1, "t": [1, 2]})
    place = {"rank": 3, "world_size": 4, "version": 1}
    [empty] = ss.ShardStream(str(tmp_path / "d"), batch_size=2, transform=transform, **place)
    [full] = ss.ShardStream(str(tmp_path / "d"), batch_size=2, transform=transform)
    assert list(empty) == list(full)
    for name, column in empty.items():
        if isinstance(column, torch.Tensor):
            assert column.dtype == full[name].dtype and column.shape == (0, *full[name].shape[1:])
        else:
            assert (column == []) if isinstance(column, list) else column.offsets.tolist() == [0]


@pytest.mark.parametrize("num_dropped, is_known", [(1000, True), (1024, False), (NUM, False)])
def test_columns_of_batches_that_were_dropped(url, num_dropped, is_known):
    """The epoch's first 1,024 samples tell the columns of a batch that is empty; if none is left they are asked once,
    not each time.
    """
    calls = []

    def drop(sample):
        calls.append(int(sample["y"]))
        return {"z": sample["a"]} if sample["y"] >= num_dropped else None

    stream = ss.ShardStream(url, batch_size=20, transform=drop)
    batches = [next(iterator) for iterator in [iter(stream)] for _ in range(40)]
    assert all(list(batch) == (["z"] if is_known else []) for batch in batches)
    assert not is_known or (batches[0]["z"].shape, batches[0]["z"].dtype) == ((0, 3), torch.float32)
    assert len(calls) == 40 * 20 + 1024 and stream.report.num_dropped == 800


def test_setting_a_state_ends_older_iterators(url):
    """After load_state_dict() or set_epoch() only a new iterator goes on; the old one says so."""
    stream = ss.ShardStream(url, batch_size=100, fields=["y"], epochs=None)
    iterator = iter(stream)
    next(iterator)
    state = stream.state_dict()
    next(iterator)
    stream.load_state_dict(state)
    with pytest.raises(ss.ConfigError, match="iterator"):
        next(iterator)
    iterator = iter(stream)
    assert next(iterator)["y"][0] == 100
    stream.set_epoch(3)
    with pytest.raises(ss.ConfigError, match="iterator"):
        next(iterator)
    assert next(iter(stream))["y"][0] == 0 and stream.state_dict()["epoch"] == 3


def test_a_loop_that_never_sees_the_end_goes_on_with_the_next_epoch(url):
    """Whoever takes len() batches and iterates anew, as Lightning does, gets the next epoch; a state of the end still
    ends at once.
    """
    stream, whole = (ss.ShardStream(url, batch_size=500, shuffle=True, seed=3, fields=["y"]) for _ in range(2))
    for _ in range(3):
        iterator = iter(stream)
        assert [next(iterator)["y"].tolist() for _ in range(len(stream))] == [batch["y"].tolist() for batch in whole]
    resumed = ss.ShardStream(url, batch_size=500, shuffle=True, seed=3, fields=["y"])
    resumed.load_state_dict(stream.state_dict())
    assert list(resumed) == [] and resumed.state_dict()["epoch"] == 3
    resumed.load_state_dict(stream.state_dict())
    iter(resumed)  # made for the rest of the epoch, of which there is nothing, and not asked
    assert len(list(resumed)) == len(stream) and resumed.state_dict()["epoch"] == 4


def test_endless_epochs_without_a_whole_batch_are_an_error(tmp_path):
    with ss.ShardWriter(tmp_path, schema=ss.Schema(y=ss.Dense("int64"))) as writer:
        for n in range(5):
            writer.write({"y": n})
    assert list(ss.ShardStream(tmp_path, batch_size=8, drop_last=True)) == []
    with pytest.raises(ss.ConfigError, match="would never deliver"):
        next(iter(ss.ShardStream(tmp_path, batch_size=8, drop_last=True, epochs=None)))


@pytest.mark.parametrize("several", [True, False])
def test_rows_of_a_batched_transform_may_be_numbered_by_numpy(url, several):
    """Errors of single rows are skipped, or told of map-style datasets, also where np.flatnonzero said which rows they
    are.
    """

    @ss.batched
    def odd_only(columns):
        bad = np.flatnonzero(columns["y"].numpy() % 2 == 0)
        if several and len(bad):
            raise ss.RowErrors({row: ss.SampleError("even", key=row) for row in bad})
        if len(bad):
            raise ss.SampleError("even", key=bad[0])
        return columns

    stream = ss.ShardStream(url, batch_size=50, fields=["y"], transform=odd_only, on_error="skip",
                            read=ss.ReadPolicy(max_skipped=10**6))  # fmt: skip
    rows = [int(y) for batch in stream for y in batch["y"]]
    assert rows and all(y % 2 for y in rows) and stream.report.num_skipped == stream.source.total_samples - len(rows)
    dataset = ss.ShardDataset(ss.Dataset(url).shards[0], fields=["y"], transform=odd_only)
    with pytest.raises(ss.TransformError) as caught:
        dataset[[1, 2, 4]]
    assert caught.value.key == 2


@pytest.mark.parametrize("errors", [{}, {0: "even"}, {0: ValueError("even")}])
def test_row_errors_name_a_row_at_least(errors):
    """Else a transform that raised them for no row would seem to have raised StopIteration."""
    with pytest.raises(ss.ConfigError, match="a dict of row to SampleError"):
        ss.RowErrors(errors)

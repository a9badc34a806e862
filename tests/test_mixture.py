"""ss.mix: exact proportions, states and batches, on any topology, each reader in its own lanes of every source."""

import json
import pickle
import shutil
from collections import Counter

import numpy as np
import pytest
import torch

import shardstream as ss
from shardstream.order import mix_schedule
from shardstream.order.mix_rows import mix_order, mix_rows
from shardstream.reader import BlockReader
from shardstream.storage import Fetcher
from tests.columns import assert_same

SIZES = {"a": 1200, "b": 700, "c": 90}
FIRST = {"a": 0, "b": 10_000, "c": 20_000}  # number of the first sample of each
SCHEMA = ss.Schema(x=ss.Sparse(64), t=ss.Ragged("uint16"), s=ss.Text(), y=ss.Dense("int64"))
OPTIONS = {"shuffle": True, "batch_size": 50, "version": 1, "lanes": 12, "window": 120}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Datasets a, b and c in both layouts, blocks of 10 samples."""
    folder = tmp_path_factory.mktemp("mix")
    for name, size in SIZES.items():
        with ss.ShardWriter(str(folder / name), schema=SCHEMA) as writer, ss.ShardWriter(str(folder / f"files-{name}")) as files:
            for i in range(size):
                y = FIRST[name] + i
                writer.write({"x": [i % 64], "t": np.arange(i % 4), "s": str(y), "y": y})
                files.write({"__key__": f"{y:05d}", "cls": y, "txt": str(y)})
                if i % 10 == 9:
                    writer._close_block()
                    files._close_block()
                if i % 200 == 199:
                    writer._roll(False)
                    files._roll(False)
    return folder


def mixed(folder, names="ab", weights=(0.7, 0.3), stop="rest", seed=5, prefix="", **options):
    streams = [ss.ShardStream(str(folder / f"{prefix}{name}"), seed=3, **{**OPTIONS, **options}) for name in names]
    return ss.mix(streams, weights, seed=seed, stop=stop)


def ids(batches) -> list[int]:
    return [int(y) for batch in batches for y in np.atleast_1d(batch["y"] if "y" in batch else batch["cls"])]


@pytest.mark.parametrize("lanes, window", [(12, 120), (1, 1), (96, 960)])
def test_rest_delivers_everything_once(folder, lanes, window):
    """stop="rest" is a permutation of all sources, another one in each epoch, in the proportions of the weights to
    begin with.
    """
    stream = mixed(folder, "abc", (0.6, 0.3, 0.1), lanes=lanes, window=window, epochs=2)
    everything = sorted(FIRST[name] + i for name in "abc" for i in range(SIZES[name]))
    whole = ids(stream)
    first, second = whole[: len(everything)], whole[len(everything) :]
    assert sorted(first) == sorted(second) == everything and first != second
    assert Counter(y // 10_000 for y in first[:600])[0] == pytest.approx(360, abs=60)


def test_shares_are_exact(folder):
    """stop="repeat" after 1,024 draws of every lane has taken exactly the quota of each source, as often as a source
    must come again.
    """
    stream = mixed(folder, weights=(0.95, 0.05), stop="repeat", lanes=2, window=2, batch_size=2048, fields=["y"])
    batch = ids([next(iter(stream))])
    assert Counter(y // 10_000 for y in batch) == {0: 2 * 973, 1: 2 * 51}  # 0.95 * 1024 = 972.8 and 51.2
    assert set(Counter(batch).values()) <= {1, 2}


@pytest.mark.parametrize("stop", ["first", "rest", "repeat"])
def test_order_is_that_of_the_pure_functions(folder, stop):
    """A mixture delivers exactly what order/ says, position by position, and ends where it says; len() knows it before.
    """
    stream = mixed(folder, stop=stop)
    state, sources = stream.state, stream.source.sources
    mix = mix_order(state, [source.total_samples for source in sources])
    orders = mix_rows(state, [source.num_samples for source in sources])._orders
    expected = []
    for source, turn, line in zip(*(part.tolist() for part in mix_schedule.lines(mix, orders, range(mix.num_samples)))):
        shard, row = (int(part[0]) for part in orders(source, turn).locate([line]))
        expected.append(FIRST["ab"[source]] + int(sources[source].num_samples[:shard].sum()) + row)
    batches = list(mixed(folder, stop=stop))
    assert ids(batches) == expected and len(batches) == len(stream) == -(-mix.num_samples // 50)


def drop(sample):
    """Drop every third sample."""
    return None if int(sample["y"] if "y" in sample else sample["cls"]) % 3 == 0 else sample


@pytest.mark.parametrize("options", [
    {"sparse": "csr"}, {"batch_size": 7, "drop_last": "pad", "stop": "first"}, {"batch_size": None, "stop": "repeat"}, {"transform": drop},
    {"prefix": "files-"}, {"prefix": "files-", "transform": drop, "batch_size": None},
], ids=lambda options: "-".join(getattr(value, "__name__", str(value)) for value in options.values()))  # fmt: skip
def test_batches_and_states_do_not_depend_on_workers(folder, options):
    """As with a single stream: kind, dtype and content of every batch and the state after it are those of no workers.
    """
    place = {"rank": 1, "world_size": 2}
    expected, got = (ss.StreamLoader(mixed(folder, **place, **options), n, multiprocessing_context="fork") for n in (0, 2))
    for number, (one, other) in enumerate(zip(expected, got, strict=True)):
        assert_same(one, other)
        assert number % 20 or expected.state_dict() == got.state_dict()
    assert expected.state_dict() == got.state_dict() and expected.dataset.report == got.dataset.report


@pytest.mark.parametrize("stop", ["first", "rest", "repeat"])
def test_resume_on_another_topology(folder, stop):
    """A state goes on at its position, with other ranks, other batch sizes and another place of the data, and says what
    it should.
    """
    whole = ids(mixed(folder, stop=stop))
    first = mixed(folder, stop=stop)
    iterator = iter(first)
    seen = ids(next(iterator) for _ in range(5))
    state = json.loads(json.dumps(first.state_dict()))
    assert len(json.dumps(state)) < 1000 + 2 * 300
    assert {**state, "sources": None} == {"format": 1, "order": "mix-1", "seed": 5, "epoch": 0, "lanes": 12, "position": 250, "stop": stop,
                                          "pieces": [[0, [0.7, 0.3]]], "sources": None}  # fmt: skip
    assert [sorted(source) for source in state["sources"]] == [sorted(["dataset", "version", "order", "seed", "epoch", "window", "base"])] * 2
    assert [source["base"] for source in state["sources"]] == [0, 1200]
    moved = folder / f"moved-{stop}"
    for name in "ab":
        shutil.copytree(folder / name, moved / name)
    rest = {}
    for rank in range(3):
        stream = mixed(moved, stop=stop, batch_size=11, rank=rank, world_size=3)
        stream.load_state_dict(state)
        for t, batch in enumerate(stream):
            for i, y in enumerate(batch["y"].tolist()):
                rest[t * 33 + i * 3 + (rank - 250) % 3] = y
        assert stream.state_dict()["epoch"] == 1
    assert seen + [rest[p] for p in sorted(rest)] == whole


def test_weights_may_change_at_a_resume(folder):
    """Other weights hold from the position on: nothing comes twice, the state has both pieces, and says so to whoever
    resumes from it.
    """
    first = mixed(folder, weights=(0.9, 0.1), epochs=1)
    iterator = iter(first)
    seen = ids(next(iterator) for _ in range(4))
    second = mixed(folder, weights=(0.1, 0.9))
    second.load_state_dict(first.state_dict())
    iterator = iter(second)
    then = ids(next(iterator) for _ in range(6))
    assert Counter(y // 10_000 for y in seen)[0] > 150 and Counter(y // 10_000 for y in then)[0] < 60
    state = second.state_dict()
    assert state["pieces"] == [[0, [0.9, 0.1]], [200, [0.1, 0.9]]]
    third = mixed(folder, weights=(0.1, 0.9), batch_size=33)
    third.load_state_dict(state)
    rest = ids(third)
    assert sorted(seen + then + rest) == sorted([*range(1200), *range(10_000, 10_700)])
    assert third.state_dict()["pieces"] == [[0, [0.1, 0.9]]]


def test_the_same_weights_written_otherwise_change_nothing(folder):
    """A job that writes its weights in another way at each resume goes on in the same order, with one piece in its
    state.
    """
    stream = mixed(folder, weights=(3, 1))
    whole, seen = ids(mixed(folder, weights=(3, 1))), []
    for weights in [(0.75, 0.25), (6, 2), np.float32([0.75, 0.25]), torch.tensor([3, 1]), None, [np.int64(30), 10]]:
        again = mixed(folder, weights=weights)
        again.load_state_dict(stream.state_dict())
        iterator, stream = iter(again), again
        seen += ids([next(iterator)])
    assert seen == whole[: len(seen)]
    assert json.loads(json.dumps(stream.state_dict()))["pieces"] == [[0, [3, 1]]]


def test_weights_by_default(folder):
    """Without weights all sources have the same share at the beginning, and those of the state afterwards."""
    assert ids(mixed(folder, weights=None)) == ids(mixed(folder, weights=(1, 1)))
    assert ids(ss.mix([ss.ShardStream(str(folder / name), seed=3, **OPTIONS) for name in "ab"])) == ids(mixed(folder, weights=(1, 1), stop="first", seed=0))
    saved = mixed(folder, weights=(3, 1)).state_dict()
    stream = mixed(folder, weights=None)
    stream.load_state_dict(saved)
    assert stream.state_dict() == saved and ids(stream) == ids(mixed(folder, weights=(3, 1)))
    stream.set_epoch(0)
    assert stream.state_dict() == saved


@pytest.mark.parametrize("weights", [(0.7, 0.3), (0.98, 0.02)])
def test_a_reader_reads_its_own_lanes_of_each_source(folder, weights, monkeypatch):
    """Of 4 readers each reads its quarter, however rarely a source is drawn, and no block more than once for each lane
    it lies in.
    """
    read, read_many = [], BlockReader.read_many
    monkeypatch.setattr("shardstream.window.CHUNK_SAMPLES", 24)  # far less than a run of each lane

    def counted(self, shard, blocks):
        read.extend((current, self.source.id, shard, block) for block in blocks)
        return read_many(self, shard, blocks)

    monkeypatch.setattr(BlockReader, "read_many", counted)
    for current in range(4):
        ids(mixed(folder, weights=weights, rank=current, world_size=4, batch_size=4))
    by_block = Counter(tuple(place) for _, *place in read)
    assert len(by_block) == 190 and max(by_block.values()) <= 2
    assert len(read) <= 190 + 2 * 12  # once more for those across the borders of the 12 lanes of each source
    assert all(40 <= count <= 60 for count in Counter(reader for reader, *_ in read).values())


def test_set_epoch_is_as_if_all_before_had_been_run(folder):
    """An epoch gone to directly is the same as in a run; also going back."""
    run = mixed(folder, "ac", stop="repeat", epochs=None)
    iterator = iter(run)
    for _ in range(len(run)):
        next(iterator)
    next(iterator)
    assert run.state_dict()["epoch"] == 1
    jumped = mixed(folder, "ac", stop="repeat")
    jumped.set_epoch(3)
    jumped.set_epoch(1)
    assert {**jumped.state_dict(), "position": 50} == run.state_dict()
    assert run.state_dict()["sources"][1]["epoch"] > 5  # 90 samples come several times beside 1,200


def test_set_epoch_goes_back_in_the_order_of_a_loaded_state(folder):
    mine, loaded = mixed(folder, seed=5), mixed(folder, seed=0)  # 0 is the default, and says nothing
    mine.set_epoch(2)
    loaded.load_state_dict(mine.state_dict())
    for stream in (mine, loaded):
        stream.set_epoch(1)
    assert loaded.state_dict() == mine.state_dict()
    for epoch in (-1, 1.5, "1"):
        with pytest.raises(ss.StateError, match="epoch"):
            mine.set_epoch(epoch)


def test_plain_dataloader_and_pickle(folder):
    """A mixture is an IterableDataset: it pickles small, and a plain DataLoader gives every sample once."""
    stream = mixed(folder, batch_size=10)
    assert len(pickle.dumps(stream)) < 5000
    loader = torch.utils.data.DataLoader(stream, batch_size=None, num_workers=2, multiprocessing_context="fork")
    got = ids(loader)
    assert sorted(got) == sorted([*range(1200), *range(10_000, 10_700)])


def test_streams_stay_usable(folder):
    """Mixing takes nothing from the streams that are mixed."""
    alone = ss.ShardStream(str(folder / "a"), **OPTIONS)
    other = ss.ShardStream(str(folder / "b"), **OPTIONS)
    next(iter(alone))
    stream = ss.mix([alone, other], [1, 1])
    next(iter(stream))
    assert alone.state_dict()["position"] == 50 and len(ids(alone)) == 1150


def test_damage_is_named_with_its_source(folder, tmp_path):
    """An unreadable block of the second source is an error with that source's shard; skipped, it is counted."""
    shutil.copytree(folder / "b", tmp_path / "b")
    shard = sorted((tmp_path / "b").glob("*.tar"))[0]
    source = ss.ShardStream(str(tmp_path / "b")).source
    data = bytearray(shard.read_bytes())
    data[int(source.load_index(0, Fetcher()).extents[0, 0, 0])] ^= 1
    shard.write_bytes(data)
    streams = [ss.ShardStream(str(url), **OPTIONS) for url in (folder / "a", tmp_path / "b")]
    with pytest.raises(ss.ChecksumError, match=shard.name):
        ids(ss.mix(streams, [1, 1], stop="rest"))
    options = {**OPTIONS, "on_error": "skip", "read": ss.ReadPolicy(max_skipped=10)}
    stream = ss.mix([ss.ShardStream(str(url), **options) for url in (folder / "a", tmp_path / "b")], [1, 1],
                    stop="rest")  # fmt: skip
    assert len(ids(stream)) == 1890 and stream.report.num_skipped == 10


def test_what_does_not_fit_together(folder, tmp_path):
    """Streams that make different batches are refused, and the error says how they differ."""

    def stream(name="a", **options):
        return ss.ShardStream(str(folder / name), **{**OPTIONS, **options})

    for streams, weights, message in [
        ([stream()], [1], "2 to 64 streams"), ([stream(), "b"], [1, 1], "not of str"), ([stream(), stream("b")], [1], "one for each"),
        ([stream(), ss.mix([stream(), stream("b")], [1, 1])], [1, 1], "not mixed again"), ([stream(), stream("b")], [1, -1], "none negative"),
        ([stream(), stream("b", batch_size=3)], [1, 1], "same batch_size"), ([stream(), stream("b", transform=drop)], [1, 1], "same transform"),
        ([stream(), stream("b", fields=["y"])], [1, 1], "same fields"), ([stream(), stream("b", rank=0, world_size=2)], [1, 1], "same rank"),
    ]:  # fmt: skip
        with pytest.raises(ss.ConfigError, match=message):
            ss.mix(streams, weights)
    for weights, message in [(0.5, "a list of numbers"), (np.ones((2, 2)), "a list of numbers"),
                             ([10**400, 1], "a list of numbers"), ("ab", "a list of numbers"), ([True, 1], "not bools"),
                             (["1", 1], "finite numbers"), ([], "1 to 64 numbers")]:  # fmt: skip
        with pytest.raises(ss.ConfigError, match=message):
            ss.mix([stream(), stream("b")], weights)
    for streams in (None, stream("nowhere"), 3):  # and nothing is read to find out
        with pytest.raises(ss.ConfigError, match="takes a list of ss.ShardStream, not"):
            ss.mix(streams, [1, 1])
    with pytest.raises(ss.ConfigError, match="must be one of first, rest, repeat"):
        ss.mix([stream(), stream("b")], [1, 1], stop="last")
    with pytest.raises(ss.ConfigError, match=r"share their lanes, but have \[6, 12\]"):
        len(ss.mix([stream(), stream("b", lanes=6)], [1, 1]))
    with pytest.raises(ss.EmptyDatasetError, match="fewer lanes"):
        len(ss.mix([stream("a", lanes=130), stream("c", lanes=130)], [0, 1]))
    with pytest.raises(ss.SchemaError, match="one layout"):
        len(ss.mix([stream(), stream("files-a")], [1, 1]))
    with ss.ShardWriter(str(tmp_path / "d"), schema=ss.Schema(y=ss.Dense("int32"), z=ss.Dense("int64"))) as writer:
        writer.write_batch({"y": np.arange(9), "z": np.arange(9)})
    with pytest.raises(ss.SchemaError,
                       match=r"source 0 has s: Text.*source 1 s: no such column.*y: Dense\(dtype='int32'"):  # fmt: skip
        len(ss.mix([stream(), ss.ShardStream(str(tmp_path / "d"), **OPTIONS)], [1, 1]))


def test_states_of_something_else_are_refused(folder):
    """Of a single stream, of other sources, another number of them, or with other arguments: a StateError that says
    which.
    """
    state = mixed(folder).state_dict()
    for other, match in [
        (mixed(folder, "ac"), "is of dataset"), (mixed(folder, "abc", (1, 1, 1)), "2 sources"), (mixed(folder, stop="first"), "stop=rest"),
        (mixed(folder, seed=6), "seed=5"), (mixed(folder, lanes=6), "lanes=12"), (mixed(folder, window=240), "window=120"),
    ]:  # fmt: skip
        before = other.state_dict()
        with pytest.raises(ss.StateError, match=match):
            other.load_state_dict(state)
        assert other.state_dict() == before
    with pytest.raises(ss.StateError, match="not the state of a mixture"):
        mixed(folder).load_state_dict(ss.ShardStream(str(folder / "a"), **OPTIONS).state_dict())
    with pytest.raises(ss.StateError, match="past the 1900 samples"):
        mixed(folder).load_state_dict({**state, "position": 1901})

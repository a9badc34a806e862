"""Replay: new samples mixed with older ones, batch by batch, deterministic and resumable exactly."""

import json
import pickle
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

import shardstream as ss
from shardstream import following
from shardstream.order.state import State
from shardstream.replay import FORMAT, ORDER, rows_of_each
from tests.growing_log import SCHEMA, GrowingLog

NUM_OLD = 90
OLD = 10**6  # older samples are numbered from here


@pytest.fixture(scope="module")
def growing(tmp_path_factory):
    return GrowingLog(tmp_path_factory.mktemp("replay") / "new", 16, seed=4, most=40)


@pytest.fixture(scope="module")
def history(tmp_path_factory) -> str:
    url = str(tmp_path_factory.mktemp("replay") / "old")
    with ss.ShardWriter(url, schema=SCHEMA) as writer:
        for i in range(NUM_OLD):
            writer.write({"y": OLD + i, "t": [1] * (i % 4)})
    return url


@pytest.fixture(autouse=True)
def quick_polls(monkeypatch):
    monkeypatch.setattr(following, "POLL_S", 0.002)


def replay(growing, history, weights=(3, 1), batch_size=8, place=(0, 1), **options) -> ss.ShardStream:
    common = {"batch_size": batch_size, "shuffle": True, "seed": 5, "lanes": 6, "window": 60, "rank": place[0], "world_size": place[1],
              "sparse": "jagged", **options}  # fmt: skip
    new = ss.ShardStream(str(growing.folder), follow=True, start="beginning", **common)
    return ss.mix([new, ss.ShardStream(history, version=1, **common)], weights)


def ids(batch) -> list[int]:
    return batch["y"].tolist()


@pytest.mark.parametrize("batch_size, weights, rows", [
    (8, [3, 1], [6, 2]), (8, [1, 1], [4, 4]), (10, [0.97, 0.03], [9, 1]), (2, [99, 1], [1, 1]), (3, [1, 1, 1], [1, 1, 1]),
    (7, [1, 1], [4, 3]), (100, [2, 1], [67, 33]), (4, [1000, 1, 1], [2, 1, 1]), (4, [1.7e308, 1.7e308], [2, 2])])  # fmt: skip
def test_rows_of_each_source(batch_size, weights, rows):
    """In proportion, a row at least, and together a batch."""
    assert rows_of_each(batch_size, weights) == rows


def test_every_batch_has_its_rows_of_each(growing, history):
    """New samples come once; older ones epoch after epoch, as many as the weights say; ragged rows stay with theirs."""
    new, old, num = [], [], 0
    for batch in replay(growing, history):
        assert ids(batch)[-2] >= OLD and (batch["t"].offsets.diff() == (batch["y"] % OLD) % (3 if ids(batch)[0] < OLD else 4))[: len(batch["y"]) - 2].all()
        new += [i for i in ids(batch) if i < OLD]
        old += [i - OLD for i in ids(batch) if i >= OLD]
        num += 1
    assert sorted(new) == list(range(growing.num_samples)) and num == -(-growing.num_samples // 6)
    assert len(old) == 2 * num  # its epochs of 90 are whole batches of 2
    counts = Counter(old)
    assert max(counts.values()) - min(counts.get(i, 0) for i in range(NUM_OLD)) <= 1


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_resume_goes_on_exactly(growing, history, num_workers):
    """From any batch's state the rest is the rest of an uninterrupted run, with workers too."""
    whole, states, stream = [], [], replay(growing, history)
    for batch in stream:
        whole.append(ids(batch))
        states.append(json.loads(json.dumps(stream.state_dict())))
    for place in random.Random(0).sample(range(len(whole)), 3):
        again = replay(growing, history)
        loader = ss.StreamLoader(again, num_workers, multiprocessing_context="fork")
        loader.load_state_dict(states[place])
        assert loader.state_dict() == states[place]
        assert [ids(batch) for batch in loader] == whole[place + 1 :]
        assert again.lag == 0 and again.freshness > 0


@pytest.mark.filterwarnings("ignore:version", "ignore:each block is fetched")
def test_lineages_over_topologies(growing, history):
    """Ranks, batch sizes and weights change at every resume: new samples come once, states are the same on every rank.
    """
    for seed in range(8):
        choose, state, consumed = random.Random(seed), None, []
        for _ in range(200):
            world_size, batch_size = choose.randint(1, 3), choose.choice([4, 9])
            weights, limit, saved, is_over = choose.choice([(3, 1), (1, 1)]), choose.randint(0, 9), [], False
            for rank in range(world_size):
                stream = replay(growing, history, weights, batch_size, (rank, world_size))
                if state is not None:
                    stream.load_state_dict(state)
                iterator = iter(stream)
                for _ in range(limit):
                    batch = next(iterator, None)
                    is_over |= batch is None
                    if batch is not None:
                        consumed += ids(batch)
                saved.append(stream.state_dict())
                iterator.close()
            assert all(other == saved[0] for other in saved)
            state = saved[0]
            if is_over:
                break
        assert sorted(i for i in consumed if i < OLD) == list(range(growing.num_samples))
        counts = Counter(i for i in consumed if i >= OLD)
        assert max(counts.values()) - min(counts.get(OLD + i, 0) for i in range(NUM_OLD)) <= 1


def test_golden_states_load():
    """A state of this order, saved by any released version, is a list of states that load."""
    saved = json.loads((Path(__file__).parent / "golden/state/replay-1.json").read_text())
    assert (saved["format"], saved["order"]) == (FORMAT, ORDER) and sorted(saved) == ["format", "order", "sources"]
    assert [State.from_dict(source).to_dict() for source in saved["sources"]] == saved["sources"]


def test_what_does_not_fit_is_refused(growing, history):
    """Two that follow, no batches, a weight of 0, other states."""
    new, old = ss.ShardStream(str(growing.folder), batch_size=4, follow=True), ss.ShardStream(history, batch_size=4)
    for streams, weights, match in [([new, new], (1, 1), "may follow"), ([new, old], (1, 0), "above 0"),
                                    ([new, old, old, old, old], [1] * 5, "at least 5")]:  # fmt: skip
        with pytest.raises(ss.ConfigError, match=match):
            ss.mix(streams, weights)
    with pytest.raises(ss.ConfigError, match="batch_size"):
        ss.mix([ss.ShardStream(str(growing.folder), follow=True), ss.ShardStream(history)], (1, 1))
    mixture = ss.mix([new, old], (1, 1))
    with pytest.raises(TypeError):
        len(mixture)
    good = mixture.state_dict()
    for state in (old.state_dict(), {**good, "sources": good["sources"][:1]}, {**good, "format": 2},
                  {**good, "sources": good["sources"][::-1]}, None):  # fmt: skip
        with pytest.raises(ss.StateError):
            mixture.load_state_dict(state)
    mixture.load_state_dict(good)
    assert mixture.state_dict() == good


def test_it_is_a_stream_like_any_other(growing, history):
    """What a ShardStream has: state and source as objects, counts of all sources, no plan of what has no end; the
    streams stay as they were.
    """
    common = {"batch_size": 8, "shuffle": True, "lanes": 6, "window": 60, "fields": ["y"]}
    streams = [ss.ShardStream(str(growing.folder), follow=True, start="beginning", **common),
               ss.ShardStream(history, **common)]  # fmt: skip
    stream = ss.mix(streams)
    assert isinstance(stream, ss.ShardStream) and (stream.lag, stream.freshness) == (None, None)
    assert stream.state.to_dict() == stream.state_dict() and [one.position for one in stream.state.sources] == [0, 0]
    assert stream.source.schema == SCHEMA and [one.id for one in stream.source.sources] == [one["dataset"] for one in stream.state_dict()["sources"]]
    for plan in (stream.plan, streams[0].plan):
        with pytest.raises(ss.ConfigError, match="no length"):
            plan(0)
    num_rows = sum(len(ids(batch)) for batch in stream)
    assert stream.stats.sums()["num_rows"] >= num_rows and stream.state.sources[0].position == growing.num_samples
    assert [one.stats.sums()["num_rows"] for one in streams] == [0, 0] and stream.report is not streams[0].report
    again = ss.StreamLoader(ss.mix(streams))
    assert sum(len(ids(batch)) for batch in again) == num_rows
    assert again.stats()["num_rows"] == stream.stats.sums()["num_rows"]


def test_it_pickles(growing, history):
    """As a spawned process gets it: small, at its position, and apart from the stream that it was made of."""
    whole = [ids(batch) for batch in replay(growing, history)]
    stream = replay(growing, history)
    iterator = iter(stream)
    assert [ids(next(iterator)) for _ in range(3)] == whole[:3]
    pickled = pickle.dumps(stream)
    assert len(pickled) < 5000
    for one in (pickle.loads(pickled), pickle.loads(pickle.dumps(pickle.loads(pickled)))):
        assert one.state_dict() == stream.state_dict()
        assert [ids(batch) for batch in one] == whole[3:]
    assert [ids(batch) for batch in iterator] == whole[3:]
    fresh = pickle.loads(pickle.dumps(replay(growing, history)))
    assert [ids(batch) for batch in fresh] == whole
    for num_workers in (0, 1):
        loader = torch.utils.data.DataLoader(replay(growing, history), batch_size=None, num_workers=num_workers,
                                             multiprocessing_context="fork" if num_workers else None)  # fmt: skip
        if num_workers:
            with pytest.raises(ss.ConfigError, match="needs ss.StreamLoader"):
                next(iter(loader))
        else:
            assert [ids(batch) for batch in loader] == whole


def test_a_batch_that_failed_comes_again(growing, history):
    """A loop that catches an error of ``collate`` and begins again gets the rows of that batch, of both sources."""
    wanted = [ids(batch) for batch in replay(growing, history)]
    calls = []

    def collate(batch):
        calls.append(batch)
        if len(calls) == 3:
            raise RuntimeError("once")
        return batch

    loader, got = ss.StreamLoader(replay(growing, history), collate=collate), []
    with pytest.raises(RuntimeError):
        for batch in loader:
            got.append(ids(batch))
    assert len(got) == 2
    got += [ids(batch) for batch in loader]
    assert got == wanted


def as_is(sample):
    return sample


def numbers(sample):
    return {"y": int(sample["y"]) if sample["y"] < OLD else float(sample["y"])}


def rows_of_two_lengths(sample):
    return {"y": sample["y"], "v": torch.arange(2 if sample["y"] < OLD else 3)}


def of_old_and_new(sample):
    return {"y": sample["y"], ("new" if sample["y"] < OLD else "old"): "x"}


def without_new(sample):
    return sample if sample["y"] >= OLD else None


def without_old(sample):
    return sample if sample["y"] < OLD else None


@ss.batched
def arrays(columns):
    return {"y": columns["y"].numpy(), "half": columns["y"].to(torch.bfloat16)}


@pytest.mark.parametrize("transform", [as_is, numbers, rows_of_two_lengths, of_old_and_new, without_new, without_old, arrays])
def test_the_shares_of_a_batch_are_joined_whatever_transforms_make_of_them(growing, history, transform):
    """A batch is what its rows together become, also where one source's differ from the other's, or were all dropped.
    """
    plain = [batch["y"].tolist() for batch in replay(growing, history)]
    made = list(replay(growing, history, transform=transform))
    for ids_before, batch in zip(plain, made, strict=True):
        rows = [transform({"y": torch.tensor(y)}) for y in ids_before] if transform in (without_new, without_old) else ids_before
        kept = [y for y, row in zip(ids_before, rows) if row is not None]
        assert batch["y"].tolist() == kept
        if transform is rows_of_two_lengths:
            assert batch["v"].lengths.tolist() == [2 if y < OLD else 3 for y in kept]
        if transform is of_old_and_new:
            assert batch["new"] == ["x" if y < OLD else None for y in kept]
        if transform is arrays:
            assert isinstance(batch["y"], np.ndarray) and batch["half"].dtype == torch.bfloat16


@ss.batched
def of_two_forms(columns):
    return {"y": columns["y"].to(torch.float32 if columns["y"][0] < OLD else torch.float64)}


def test_a_batched_transform_gives_all_shares_one_form(growing, history):
    """As with worker processes, it is an error if it does not."""
    with pytest.raises(ss.TransformError, match="the same form"):
        list(replay(growing, history, transform=of_two_forms))

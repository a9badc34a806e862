"""What a stream tells a transform marked ``@ss.placed``: the same for the same row, however the run is cut up."""

import numpy as np
import pytest

import shardstream as ss

NUM = 500


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    url = str(tmp_path_factory.mktemp("placed") / "d")
    with ss.ShardWriter(url, schema=ss.Schema(y=ss.Dense("int64")), shard_nbytes="1kB") as writer:
        for y in range(NUM):
            writer.write({"y": y})
    return url


@ss.placed
def row_with_place(sample, place):
    return {"y": int(sample["y"]), "position": place.position, "epoch": place.epoch, "seed": place.seed}


@ss.batched
@ss.placed
def columns_with_place(columns, place):
    """The same by columns; every fifth row is dropped."""
    left = columns["y"].numpy() % 5 != 0
    ones = np.ones(left.sum(), np.int64)
    return {
        "y": columns["y"].numpy()[left],
        "position": place.position[left],
        "epoch": ones * place.epoch,
        "seed": ones * place.seed,
    }, left


TRANSFORMS = pytest.mark.parametrize("transform", [row_with_place, columns_with_place])


def places(loader, batches: int | None = None) -> dict:
    """Return y -> (position, epoch, seed) of the rows of a loader's next batches."""
    found = {}
    for number, batch in enumerate(loader, 1):
        rows = zip(*(np.asarray(batch[name]).tolist() for name in ("y", "position", "epoch", "seed")))
        found |= {y: rest for y, *rest in rows}
        if number == batches:
            break
    return found


@TRANSFORMS
def test_place_is_seed_epoch_and_position(url, transform):
    """The position is the row's in the epoch's order, the epoch is counted, the seed the stream's."""
    order = [int(sample["y"]) for sample in ss.ShardStream(url, shuffle=True, seed=7)]
    stream = ss.ShardStream(url, batch_size=64, shuffle=True, seed=7, transform=transform)
    expected = {y: [position, 0, 7] for position, y in enumerate(order) if transform is row_with_place or y % 5}
    assert places(stream) == expected
    assert {epoch for _, epoch, _ in places(stream).values()} == {1}


@TRANSFORMS
@pytest.mark.parametrize("cut", [0, 1, 3])
def test_resumed_runs_repeat_the_places(url, transform, cut):
    """After a resume with another batch size, other ranks and workers, rows have the places of an uninterrupted run."""
    options = {"shuffle": True, "seed": 5, "transform": transform}
    whole = places(ss.ShardStream(url, batch_size=40, **options))
    first = ss.StreamLoader(ss.ShardStream(url, batch_size=40, **options))
    found = places(first, cut) if cut else {}
    state = first.state_dict()
    for rank in range(2):
        rest = ss.StreamLoader(
            ss.ShardStream(url, batch_size=17, rank=rank, world_size=2, **options), num_workers=2 * rank
        )
        rest.load_state_dict(state)
        found |= places(rest)
    assert found == whole


def test_single_samples_and_batches_have_the_same_places(url):
    """Rows delivered one by one have the places they have in batches."""
    options = {"shuffle": True, "seed": 5, "transform": row_with_place}
    single = {int(s["y"]): [s["position"], s["epoch"], s["seed"]] for s in ss.ShardStream(url, **options)}
    assert single == places(ss.ShardStream(url, batch_size=33, **options))


def test_padding_has_positions_past_the_epoch(url):
    """Rows that fill up the last batch are told from those whose samples they repeat."""
    options = {"shuffle": True, "seed": 5, "transform": row_with_place}
    batches = list(ss.ShardStream(url, batch_size=64, drop_last="pad", **options))
    positions = np.concatenate([batch["position"].numpy() for batch in batches])
    assert positions.tolist() == list(range(64 * len(batches))) and len(positions) > NUM


def test_rows_that_cannot_be_read_leave_other_places_alone(url, tmp_path):
    """Where blocks are skipped, the rows of the others keep their positions."""
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(url, copy)
    shard = sorted(copy.glob("*.tar"))[1]
    data = bytearray(shard.read_bytes())
    at = data.index(b"\x93NUMPY")
    data[at + 128] ^= 1
    shard.write_bytes(data)
    options = {"batch_size": 64, "shuffle": True, "seed": 5, "transform": row_with_place}
    whole = places(ss.ShardStream(url, **options))
    stream = ss.ShardStream(str(copy), on_error="skip", read=ss.ReadPolicy(max_skipped=NUM), **options)
    left = places(stream)
    assert 0 < len(left) < NUM and stream.report.num_skipped == NUM - len(left)
    assert left.items() <= whole.items()


@pytest.mark.parametrize("kind", ["mix", "follow"])
def test_mixtures_and_streams_that_follow_have_places(url, kind):
    """There, too, a row has the same place after a resume."""

    def stream():
        if kind == "follow":
            return ss.ShardStream(
                url, batch_size=32, shuffle=True, follow=True, until=ss.Dataset(url).version, transform=row_with_place
            )
        streams = [
            ss.ShardStream(url, batch_size=32, shuffle=True, seed=seed, transform=row_with_place) for seed in (1, 2)
        ]
        return ss.mix(streams, weights=[2, 1], seed=3)

    whole = [
        row for batch in stream() for row in zip(*(batch[name].tolist() for name in ("position", "y", "epoch", "seed")))
    ]
    first = stream()
    batches = iter(first)
    found = [row for _ in range(4) for row in zip(*(next(batches)[name].tolist() for name in ("position",)))]
    rest = stream()
    rest.load_state_dict(first.state_dict())
    left = [
        row for batch in rest for row in zip(*(batch[name].tolist() for name in ("position", "y", "epoch", "seed")))
    ]
    assert left == whole[len(found) :] and [row[0] for row in whole] == list(range(len(whole)))

"""Reading a range of a file and checking what is in it, in one call, against doing the same step by step."""

from __future__ import annotations

import os

import numpy as np
import pytest

import shardstream as ss
from shardstream._native.crc32c import crc32c
from shardstream._native.read import MEMBER, NO_MEMBERS, Members, read_checked
from shardstream.errors import ChecksumError, ShardError
from shardstream.storage import Store

DATA = np.random.default_rng(1).integers(0, 256, 900_000, np.uint8)


@pytest.fixture
def file(tmp_path):
    (tmp_path / "data").write_bytes(DATA.tobytes())
    with open(tmp_path / "data", "rb") as opened:
        yield opened.fileno()


def members_of(begin: int, cuts: list[int]) -> np.ndarray:
    found = [(a - begin, b - a, crc32c(DATA[a:b])) for a, b in zip(cuts[::2], cuts[1::2])]
    return np.array(found, MEMBER)


def test_any_range_and_members(file):
    """Bytes are the file's; they count as checked exactly if every member has its checksum."""
    rng = np.random.default_rng(2)
    for _ in range(200):
        begin, *cuts, end = sorted(rng.integers(0, len(DATA) + 1, 8).tolist())
        members, out = members_of(begin, cuts), np.zeros(end - begin, np.uint8)
        two = Members(np.stack([members, members]))
        found = read_checked(file, begin, out, two.of(1))
        assert found.is_checked and found.num_bytes == len(out) and not found.error and (out == DATA[begin:end]).all()
        members["crc32c"][rng.integers(3)] += 1
        assert not read_checked(file, begin, out, Members(members[None]).of(0)).is_checked


def test_a_file_that_ends_early(file):
    out = np.zeros(100, np.uint8)
    found = read_checked(file, len(DATA) - 40, out, NO_MEMBERS)
    assert (found.num_bytes, found.error, found.is_checked) == (40, 0, 0) and (out[:40] == DATA[-40:]).all()


def test_what_a_spoilt_block_says(tmp_path):
    """A local block whose bytes are wrong is the error that names the member, as one from a store is; so is one that is
    cut.
    """
    for place in (str(tmp_path / "d"), "memory://spoilt-block"):
        with ss.ShardWriter(place, schema=ss.Schema(x=ss.Dense("int64", (50,)), t=ss.Text())) as writer:
            writer.write_batch({"x": np.arange(50_000).reshape(1000, 50), "t": [str(i) for i in range(1000)]})
        [url] = ss.Dataset(place).shards
        store, name = Store(place), url.rpartition("/")[2]
        whole = store.read(name)
        stream = ss.ShardStream(place, batch_size=10, read=ss.ReadPolicy(retry=ss.RetryPolicy(first_delay_s=0.001)))
        reader = stream.recipe.reader(stream.source)
        index, _ = reader.index(0)
        for column, field in ((0, "x"), (1, "t"), (2, "t")):
            offset, size = index.extents[0, column].tolist()
            spoilt = bytearray(whole)
            spoilt[offset + size - 1] ^= 1
            store.put_bytes(name, bytes(spoilt))
            with pytest.raises(ChecksumError) as caught:
                stream.recipe.reader(stream.source).read(0, 0)
            assert (caught.value.field, caught.value.block, caught.value.offset) == (field, 0, offset), place
        store.put_bytes(name, whole)
        cut = stream.recipe.reader(stream.source)
        cut.index(0)
        if place.startswith("memory:"):
            store.put_bytes(name, whole[: offset + 1])
        else:
            os.truncate(url, offset + 1)  # the file that is open
        with pytest.raises(ShardError) as caught:
            cut.read(0, 0)
        assert (caught.value.offset, caught.value.block) == (offset + 1, 0), place

"""A damaged shard is an error or the whole data: never a crash, a hang, or a silent loss.

Every byte of small shards is flipped in turn; shards are cut at every byte of their first 4 kB and at 200
random places. Both the way through the log and the way of a bare shard's URL are tried.
"""

import random
import shutil

import numpy as np
import pytest

import shardstream as ss
from shardstream import shardfile
from shardstream.log.entries import SEAL_NBYTES, sealed
from shardstream.reader import BlockReader
from shardstream.source import open_source
from shardstream.storage import Fetcher

SCHEMA = ss.Schema(x=ss.Sparse(500), t=ss.Ragged("uint8"), s=ss.Text(), y=ss.Dense("int16"))


def write(folder, layout: str, num_samples: int) -> None:
    generator = np.random.default_rng(1)
    with ss.ShardWriter(str(folder), schema=SCHEMA if layout == "blocks" else None) as writer:
        for i in range(num_samples):
            if layout == "blocks":
                writer.write({"x": generator.choice(500, 5, replace=False), "t": [i % 256] * (i % 4), "s": str(i), "y": i})
            else:
                writer.write({"__key__": f"{i:05d}", "cls": i, "txt": f"text {i}"})


def read(url, source=None) -> list:
    """Return every sample in a comparable form, or raise; ``source`` is the log as it was read before."""
    source = source or open_source(str(url))
    reader = BlockReader(source, None, Fetcher())
    rows = []
    for shard in range(source.num_shards):
        for block in range(reader.index(shard)[0].num_blocks):
            content = reader.read(shard, block)
            for name, column in content.columns.items():
                if name == "__samples__":
                    rows += [(key, {field: bytes(data) for field, data in members.items()}) for key, members in column]
                else:
                    parts = column if isinstance(column, tuple) else (column,)
                    rows.append((name, [None if part is None else part.tolist() for part in parts]))
    return rows


@pytest.fixture(params=["blocks", "files"])
def layout(request):
    return request.param


def outcome(url, whole, source=None) -> bool:
    """Return True if reading gives everything, False if it is an error of ours; fail on anything else."""
    try:
        rows = read(url, source)
    except ss.ShardstreamError:
        return False
    assert rows == whole, "silent loss"
    return True


def test_flipping_any_byte(tmp_path, layout):
    """With any one byte changed, reading through the log is an error or the whole data."""
    write(tmp_path / "d", layout, 4)
    [path] = (tmp_path / "d").glob("*.tar")
    whole, good, results = read(tmp_path / "d"), path.read_bytes(), []
    source = open_source(str(tmp_path / "d"))
    for offset in range(len(good)):
        with open(path, "r+b") as file:
            file.seek(offset)
            file.write(bytes([good[offset] ^ (1 << offset % 8)]))
        results.append(outcome(tmp_path / "d", whole, source))
        with open(path, "r+b") as file:
            file.seek(offset)
            file.write(good[offset : offset + 1])
    assert path.read_bytes() == good and 0 < sum(results) < len(good)


def test_flipping_bytes_of_a_bare_shard(tmp_path, layout):
    """The same for a shard read by its own URL, for every 7th byte: its checksums protect it without a log."""
    write(tmp_path / "d", layout, 4)
    [path] = (tmp_path / "d").glob("*.tar")
    bare = tmp_path / "bare.tar"
    shutil.copy(path, bare)
    whole, good = read(bare), path.read_bytes()
    for offset in range(0, len(good), 7):
        bare.write_bytes(good[:offset] + bytes([good[offset] ^ 0x10]) + good[offset + 1 :])
        outcome(bare, whole)


def test_cutting_a_shard_anywhere(tmp_path, layout):
    """Cut at every byte of its first 4 kB and at 200 random places, a shard is an error, by both ways."""
    write(tmp_path / "d", layout, 3000)
    [path] = (tmp_path / "d").glob("*.tar")
    bare = tmp_path / "bare.tar"
    shutil.copy(path, bare)
    whole, whole_bare, good = read(tmp_path / "d"), read(bare), path.read_bytes()
    end = len(good.rstrip(b"\0"))
    places = sorted({*range(4096), *random.Random(0).sample(range(4096, len(good)), 200)}, reverse=True)
    source = open_source(str(tmp_path / "d"))
    with open(path, "r+b") as file, open(bare, "r+b") as bare_file:
        for place in places:
            file.truncate(place)
            bare_file.truncate(place)
            assert outcome(tmp_path / "d", whole, source) is False or place >= end
            assert outcome(bare, whole_bare) is False or place >= end


def test_a_log_that_counts_otherwise_than_the_shard_is_an_error(tmp_path):
    """Whoever wrote it: positions of an epoch would not be where the order has them."""
    with ss.ShardWriter(str(tmp_path), schema=ss.Schema(y=ss.Dense("int64"))) as writer:
        writer.write_batch({"y": np.arange(100)})
    entry = tmp_path / "_log" / f"{1:020d}.json"
    data = entry.read_bytes()[:-SEAL_NBYTES] + b"}"
    entry.write_bytes(sealed(data.replace(b'"num_samples":100', b'"num_samples":99')))
    with pytest.raises(ss.ShardError, match="counts 100 samples, the log 99"):
        list(ss.ShardStream(str(tmp_path), batch_size=10))


def test_a_column_that_cannot_be_decoded_is_named_with_its_place(tmp_path, monkeypatch):
    """Where checksums are right, a writer was wrong: the error says which bytes of the shard it wrote so."""
    encode = shardfile.encode_column

    def wrong(field, parts, compression):
        payloads = encode(field, parts, compression)
        return [b"not an array" for _ in payloads] if field == schema["b"] else payloads

    schema = ss.Schema(a=ss.Dense("int64"), b=ss.Dense("int8"))
    monkeypatch.setattr(shardfile, "encode_column", wrong)
    with ss.ShardWriter(str(tmp_path), schema=schema) as writer:
        for number in (1, 2):
            writer.write({"a": number, "b": number})
            writer._close_block()
    reader = BlockReader(open_source(str(tmp_path)), None, Fetcher())
    index, _ = reader.index(0)
    for block in (0, 1):
        with pytest.raises(ss.CodecError) as error:
            reader.read(0, block)
        assert (error.value.block, error.value.field, error.value.offset) == (block, "b", index.extents[block][1][0])
        assert (tmp_path / error.value.shard).read_bytes()[error.value.offset :].startswith(b"not an array")

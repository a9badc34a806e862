"""Shards of format 1 stay what they are: golden files, and the worked example of docs/FORMAT.md.

``python -m tests.test_shard_golden`` writes the golden files again; do so only with a new format number.
"""

import io
import json
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest

import shardstream as ss
from shardstream._native.crc32c import crc32c
from shardstream.codecs.rows import check_batch, concatenate
from shardstream.codecs.shard import ShardIndex, ShardInfo, find_index
from shardstream.errors import ChecksumError, ShardError
from shardstream.shardfile import ShardFile

GOLDEN = Path(__file__).parent / "golden" / "shards"
FORMAT = Path(__file__).parents[1] / "docs" / "FORMAT.md"
SID = "01890a5d-ac96-774b-bcce-b302099a8057"
SCHEMA = ss.Schema(x=ss.Sparse(1000), tokens=ss.Ragged("uint16"), text=ss.Text(), y=ss.Dense("int64"))
ROWS = {"x": (np.array([3, 17, 600, 999]), np.array([0, 3, 3, 4])), "tokens": (np.array([5, 6, 7], np.uint16), np.array([0, 2, 2, 3])),
        "text": ["a", "", "⊂"], "y": np.array([1, -1, 2**40])}  # fmt: skip


def blocks_shard(path: Path) -> Path:
    """Write the example of docs/FORMAT.md: two blocks of a three-row batch."""
    shard = ShardFile(str(path), SID, SCHEMA)
    parts, _ = check_batch(SCHEMA, ROWS)
    for _ in range(2):
        shard.write_block({name: concatenate([part]) for name, part in parts.items()}, 3)
    shard.finish()
    return path


def files_shard(path: Path) -> Path:
    """Write a shard of the files layout with a name that needs a pax header."""
    shard = ShardFile(str(path), SID, None)
    shard.write_files([("a.cls", b"3"), ("a.txt", "⊂".encode()), ("d/ユ.cls", b"4")], 2)
    shard.finish()
    return path


KINDS = {"blocks": blocks_shard, "files": files_shard}


@pytest.mark.parametrize("kind", KINDS)
def test_writing_gives_the_golden_bytes(tmp_path, kind):
    """The same samples under the same sid are the same bytes as in version 0.1.0."""
    assert KINDS[kind](tmp_path / "s.tar").read_bytes() == (GOLDEN / f"{kind}-1.tar").read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_golden_shards_still_read(kind):
    """A shard of format 1 gives its samples today."""
    rows = list(ss.ShardStream([str(GOLDEN / f"{kind}-1.tar")], **({"sparse": "indices"} if kind == "blocks" else {})))
    if kind == "files":
        assert rows == [{"__key__": "a", "cls": 3, "txt": "⊂"}, {"__key__": "d/ユ", "cls": 4}]
        return
    assert [row["x"].tolist() for row in rows] == [[3, 17, 600], [], [999]] * 2
    assert [row["tokens"].tolist() for row in rows] == [[5, 6], [], [7]] * 2
    assert [row["text"] for row in rows] == ["a", "", "⊂"] * 2 and [int(row["y"]) for row in rows] == [1, -1, 2**40] * 2


def test_the_worked_example_is_true():
    """The table of members and the JSON in docs/FORMAT.md section 2 are those of the golden shard."""
    text = FORMAT.read_text()
    with tarfile.open(GOLDEN / "blocks-1.tar") as tar:
        members = [(member.name, member.offset_data, member.size) for member in tar]
        info, index = (tar.extractfile(f"__shardstream__/{name}.json").read() for name in ("shard", "index"))
    table = re.findall(r"^\| `([^`]+)` \| ([\d,]+) \| ([\d,]+) \|$", text, re.MULTILINE)
    assert [(name, int(a.replace(",", "")), int(b.replace(",", ""))) for name, a, b in table] == members
    blocks = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL)]
    assert json.loads(info) in blocks and json.loads(index) in blocks


def test_tar_and_numpy_alone_read_a_shard():
    """Anybody with tar and numpy reads an uncompressed column, and its CRC is the index's."""
    with tarfile.open(GOLDEN / "blocks-1.tar") as tar:
        data = tar.extractfile("000001.y.npy").read()
        index = json.loads(tar.extractfile("__shardstream__/index.json").read())
    assert np.load(io.BytesIO(data)).tolist() == [1, -1, 2**40]
    assert index["columns"]["y.npy"][1][1:] == [len(data), crc32c(data)]


def index_of(kind: str) -> bytes:
    data = (GOLDEN / f"{kind}-1.tar").read_bytes()
    offset, nbytes = find_index(data, 0)
    return data[offset : offset + nbytes]


@pytest.mark.parametrize("kind", KINDS)
def test_any_damage_to_an_index_is_seen(kind):
    """Every flipped bit and every cut of index.json is a ShardError."""
    good = index_of(kind)
    ShardIndex.decode(good)
    for offset in range(len(good)):
        for bit in range(8):
            with pytest.raises(ShardError):
                ShardIndex.decode(good[:offset] + bytes([good[offset] ^ 1 << bit]) + good[offset + 1 :])
        with pytest.raises(ShardError):
            ShardIndex.decode(good[:offset])


def sealed(record: dict) -> bytes:
    body = json.dumps({key: value for key, value in record.items() if key != "crc32c"},
                      separators=(",", ":")).encode()[:-1]  # fmt: skip
    return body + b',"crc32c":"%08x"}' % crc32c(body)


@pytest.mark.parametrize("change", [
    {"format": 2}, {"format": "1"}, {"layout": "rows"}, {"block_num_samples": [3]}, {"block_num_samples": [3, 0]},
    {"block_num_samples": [3, -3]}, {"block_num_samples": [2**62, 2**62]}, {"block_num_samples": [3, 2**70]},
    {"columns": {"y.npy": [[0, 1, 2], [-1, 5, 0]]}}, {"columns": {"y.npy": [[0, 1, 2], [2**62, 2**62, 0]]}},
    {"columns": {"y.npy": [[0, 1, 2], [0, 1, 2**32]]}}, {"columns": {"y.npy": [[0, 1], [0, 1]]}}, {"columns": []}, {"sid": 5},
    {"layout": "files"}, {"layout": "files", "columns": {}}, {"columns": {"": [[0, 1, 2], [0, 1, 2]]}, "layout": "blocks"},
])  # fmt: skip
def test_a_well_sealed_but_wrong_index_is_refused(change):
    """An index with a right CRC and illegal content is a typed error, and not a ChecksumError."""
    with pytest.raises(ShardError) as caught:
        ShardIndex.decode(sealed({**json.loads(index_of("blocks")), **change}))
    assert not isinstance(caught.value, ChecksumError)


def test_deep_json_is_refused():
    """JSON nested a million levels deep is a typed error, in shard.json and index.json."""
    deep = b'{"format":1,"sid":' + b"[" * 10**6
    with pytest.raises(ShardError):
        ShardInfo.decode(deep)
    with pytest.raises(ShardError):
        ShardIndex.decode(deep + b',"crc32c":"%08x"}' % crc32c(deep))


if __name__ == "__main__":
    for kind, write in KINDS.items():
        path = GOLDEN / f"{kind}-1.tar"
        path.unlink(missing_ok=True)
        write(path)

"""``shardstream convert``: the same rows in every tier."""

from __future__ import annotations

import json

import pytest

import shardstream as ss
from shardstream.cli import main
from shardstream.convert import to_memmap, to_shards
from tests.tiers import SCHEMA, assert_is_sample, assert_same, samples


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> str:
    url = str(tmp_path_factory.mktemp("dataset"))
    with ss.ShardWriter(url, schema=SCHEMA, shard_nbytes="30kB") as writer:
        for row in samples(700):
            writer.write(row)
    assert len(ss.Dataset(url).shards) > 1
    return url


def test_there_and_back_is_the_same(dataset, tmp_path):
    """Rows, order and every column survive shards to mapped columns to shards."""
    assert to_memmap(dataset, str(tmp_path / "mapped"), part_nbytes="20kB") == 700
    mapped = ss.MemmapDataset(str(tmp_path / "mapped"), sparse="indices")
    for number, row in enumerate(samples(700)):
        assert_is_sample(mapped[number], row)
    assert to_shards(str(tmp_path / "mapped"), str(tmp_path / "back"), compression="zstd") == 700
    assert ss.Dataset(str(tmp_path / "back")).schema == SCHEMA
    (wanted,), (got,) = (ss.ShardStream(url, batch_size=700, sparse="jagged") for url in (dataset, str(tmp_path / "back")))
    assert_same(got, wanted)


def test_the_command_chooses_the_direction(dataset, tmp_path, capsys):
    mapped, back = str(tmp_path / "mapped"), str(tmp_path / "back")
    assert main(["convert", dataset, mapped, "--field", "y", "--field", "text"]) == 0
    assert capsys.readouterr().out == f"700 samples in {mapped}\n"
    assert list(ss.MemmapDataset(mapped).schema) == ["text", "y"]
    assert main(["convert", mapped, back, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"source": mapped, "target": back, "num_samples": 700}
    assert main(["convert", dataset, mapped]) == 2 and "has rows already" in capsys.readouterr().err
    assert main(["convert", mapped, back]) == 2 and "has rows already" in capsys.readouterr().err
    assert len(ss.Dataset(back)) == 700


@pytest.mark.parametrize("arguments, status, message", [
    (["DATASET", "s3://bucket/x"], 2, "is not a local folder"),
    (["DATASET", "TARGET", "--compression", "zstd"], 2, "is for shards"),
    (["DATASET", "TARGET", "--field", "nope"], 2, "the dataset has"),
    (["nowhere", "TARGET"], 1, "no shard matches"),
])  # fmt: skip
def test_mistakes_are_one_line_and_write_nothing(dataset, tmp_path, capsys, arguments, status, message):
    given = [{"DATASET": dataset, "TARGET": str(tmp_path / "t")}.get(argument, argument) for argument in arguments]
    assert main(["convert", *given]) == status
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not (tmp_path / "t").exists()


def test_the_files_layout_has_no_columns(tmp_path):
    with ss.ShardWriter(str(tmp_path / "files")) as writer:
        writer.write({"__key__": "a", "txt": "b"})
    with pytest.raises(ss.SchemaError, match="files layout"):
        to_memmap(str(tmp_path / "files"), str(tmp_path / "mapped"))

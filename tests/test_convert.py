"""``shardstream convert``: the same rows in every tier."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import signal
import sys
import threading

import pytest

import shardstream as ss
from shardstream.cli import main
from shardstream.convert import to_memmap, to_shards
from shardstream.log import Log
from shardstream.memmap.layout import list_parts
from shardstream.memmap.writer import WholeWriter
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
    assert main(["convert", dataset, mapped]) == 2 and "holds a dataset already" in capsys.readouterr().err
    assert main(["convert", mapped, back]) == 2 and "has rows already" in capsys.readouterr().err
    assert len(ss.Dataset(back)) == 700
    files = sorted(os.listdir(mapped))
    assert main(["convert", mapped, mapped]) == 2 and "holds memory-mapped columns" in capsys.readouterr().err
    assert sorted(os.listdir(mapped)) == files


def test_file_urls_name_local_folders(dataset, tmp_path, capsys, monkeypatch):
    """``file://`` URLs and ``~`` stand for the same folder as its path, whichever direction and command."""
    mapped = str(tmp_path / "mapped rows")
    assert main(["convert", f"file://{dataset}", f"file://{mapped}"]) == 0
    monkeypatch.setenv("HOME", str(tmp_path))
    for place in (mapped, f"file://{mapped}", f"FILE://{mapped}/", "~/mapped rows", tmp_path / "mapped rows"):
        opened = ss.MemmapDataset(place)
        assert len(opened) == 700 and opened.folder == mapped
    with ss.MemmapWriter(f"file://{mapped}", SCHEMA) as writer:
        writer.write(samples(1)[0])
    assert len(ss.MemmapDataset(mapped)) == 701
    assert main(["convert", f"file://{mapped}", f"file://{tmp_path}/back"]) == 0 and len(ss.Dataset(str(tmp_path / "back"))) == 701
    capsys.readouterr()
    assert main(["convert", dataset, "s3://user:secret@host/x"]) == 2
    assert "'s3://host/x' is not a local folder" in capsys.readouterr().err


@pytest.mark.parametrize("arguments, status, message", [
    (["DATASET", "s3://bucket/x"], 2, "is not a local folder"), (["DATASET", "file:///"], 2, "is not a local folder"),
    (["DATASET", "TARGET", "--compression", "zstd"], 2, "is for shards"),
    (["DATASET", "TARGET", "--field", "nope"], 2, "the dataset has"),
    (["nowhere", "TARGET"], 1, "neither a dataset nor a shard"),
])  # fmt: skip
def test_mistakes_are_one_line_and_write_nothing(dataset, tmp_path, capsys, arguments, status, message):
    given = [{"DATASET": dataset, "TARGET": str(tmp_path / "t")}.get(argument, argument) for argument in arguments]
    assert main(["convert", *given]) == status
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not (tmp_path / "t").exists()


STEPS = ("mkdir", "open", "rename", "replace", "unlink", "fsync", "ftruncate", "pwrite", "close")


def convert_until(step: int, dataset: str, folder: str) -> bool:
    """Convert in a process that kills itself before its ``step``-th change of the disk; return whether it came to its
    end.
    """
    pid = os.fork()
    if pid == 0:
        count = itertools.count()

        def counted(call):
            def run(*args, **kwargs):
                if sys._getframe(1).f_globals.get("__name__", "").startswith(("shardstream.memmap", "shardstream.storage.local")):
                    if next(count) == step:
                        os.kill(os.getpid(), signal.SIGKILL)
                return call(*args, **kwargs)

            return run

        for name in STEPS:
            setattr(os, name, counted(getattr(os, name)))
        try:
            to_memmap(dataset, folder, part_nbytes="20kB")
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.WIFEXITED(status) or os.WTERMSIG(status) == signal.SIGKILL
    return os.WIFEXITED(status)


def test_a_conversion_killed_at_any_step_shows_all_rows_or_none(dataset, tmp_path, capsys):
    """What a killed one leaves is no dataset, says what to do, takes no rows from a writer, and is replaced by the next
    one.
    """
    shown = []
    for step in itertools.count():
        folder = str(tmp_path / str(step))
        finished = convert_until(step, dataset, folder)
        try:
            shown.append(len(ss.MemmapDataset(folder)))
        except ss.DatasetNotFoundError as error:
            shown.append(0)
            if os.path.exists(os.path.join(folder, "unfinished.json")):
                assert "run the same shardstream convert again" in str(error)
                with pytest.raises(ss.DatasetError, match="was killed"):
                    ss.MemmapWriter(folder, SCHEMA)
        if finished:
            break
        if not shown[-1]:
            assert to_memmap(dataset, folder) == 700 and len(ss.MemmapDataset(folder)) == 700
        with pytest.raises(ss.ConfigError, match="holds a dataset already"):
            to_memmap(dataset, folder)
        assert sorted(os.listdir(folder)) == sorted([*list_parts(folder), "schema.json"])
    assert len(shown) > 30 and set(shown) == {0, 700} and shown == sorted(shown)


def test_an_unfinished_conversion_is_no_source(tmp_path, capsys):
    (tmp_path / "unfinished.json").write_text("{")
    assert main(["convert", str(tmp_path), str(tmp_path / "again")]) == 1
    error = capsys.readouterr().err
    assert "is under way or was killed" in error and error.count("\n") == 1 and os.listdir(tmp_path) == ["unfinished.json"]


def test_a_conversion_at_work_is_left_alone(dataset, tmp_path):
    """A second one to the same folder is refused; one that fails leaves nothing."""
    folder = str(tmp_path / "mapped")
    with pytest.raises(RuntimeError), WholeWriter(folder, SCHEMA) as writer:
        writer.write(samples(1)[0])
        with pytest.raises(ss.ConfigError, match="is under way"):
            to_memmap(dataset, folder)
        raise RuntimeError
    assert os.listdir(folder) == []
    assert to_memmap(dataset, folder) == 700


def test_the_files_layout_has_no_columns(tmp_path):
    with ss.ShardWriter(str(tmp_path / "files")) as writer:
        writer.write({"__key__": "a", "txt": "b"})
    with pytest.raises(ss.SchemaError, match="files layout"):
        to_memmap(str(tmp_path / "files"), str(tmp_path / "mapped"))


def test_ctrl_c_when_all_is_shown_takes_nothing_back(dataset, tmp_path, monkeypatch):
    """An interrupt that comes with the last rename leaves the dataset that is there."""
    folder, rename = str(tmp_path / "t"), os.rename

    def renamed(source, target):
        rename(source, target)
        if target.endswith("schema.json"):
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "rename", renamed)
    with pytest.raises(KeyboardInterrupt):
        to_memmap(dataset, folder)
    assert len(ss.MemmapDataset(folder)) == ss.Dataset(dataset).num_samples


@pytest.mark.parametrize("is_finished", [False, True])
def test_a_conversion_that_ends_while_another_begins(tmp_path, monkeypatch, is_finished):
    """The lock counts on the file that stands there now, not on one that its owner has removed or renamed meanwhile."""
    folder, real, others = str(tmp_path / "t"), fcntl.flock, []

    def locked(descriptor, how):
        if not others:  # the first of them has opened the file when the second one ends
            path = os.path.join(folder, "unfinished.json")
            others.append(os.rename(path, os.path.join(folder, "schema.json")) if is_finished else os.unlink(path))
        return real(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", locked)
    if is_finished:
        with pytest.raises(ss.ConfigError, match="holds a dataset already"):
            WholeWriter(folder, SCHEMA)
        assert os.listdir(folder) == ["schema.json"]
    else:
        with WholeWriter(folder, SCHEMA) as writer:
            assert os.path.exists(os.path.join(folder, "unfinished.json"))
        assert writer.num_samples == 0 and os.listdir(folder) == ["schema.json"]


def test_of_several_conversions_to_one_dataset_one_commits(dataset, tmp_path, monkeypatch):
    """All find it empty and come to their commit together: its rows are there once, and the others are told."""
    to_memmap(dataset, str(tmp_path / "mapped"))
    claim, meet, failed = Log.claim, threading.Barrier(3), []
    monkeypatch.setattr(Log, "claim", lambda self, producer: (meet.wait(60), claim(self, producer))[1])

    def convert():
        try:
            to_shards(str(tmp_path / "mapped"), str(tmp_path / "back"))
        except (ss.ProducerFenced, ss.ConfigError) as error:
            failed.append(error)

    threads = [threading.Thread(target=convert) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(failed) == 2 and len(ss.Dataset(str(tmp_path / "back"))) == 700

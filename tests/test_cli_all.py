"""Every command alike: help with examples, completion, and one clear line for a place that isn't there, a typo, a newer
format.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
import typer

import shardstream as ss
from shardstream.cli import main
from shardstream.cli.app import app

GROUP = typer.main.get_command(app)


def walk(command, path=()):
    """Yield the words of every command and group."""
    yield path
    for name, inner in getattr(command, "commands", {}).items():
        yield from walk(inner, (*path, name))


COMMANDS = [path for path in walk(GROUP) if path]
WITHOUT_JSON = {("cache",), ("tokenizer",)}  # groups


def filled(words, **places) -> list[str]:
    """Return the words with the names of places replaced by paths."""
    for name, path in places.items():
        words = [word.replace(name, str(path)) for word in words]
    return list(words)


def run(capfd, *arguments) -> tuple[int, str, str]:
    try:
        status = main([str(argument) for argument in arguments])
    except SystemExit as error:
        status = error.code
    out, err = capfd.readouterr()
    return status, out, err


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> str:
    url = str(tmp_path_factory.mktemp("dataset"))
    with ss.ShardWriter(url, schema=ss.Schema(label=ss.Dense("int64"), text=ss.Text())) as writer:
        writer.write_batch({"label": np.arange(5), "text": list("abcde")})
    return url


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_has_examples_and_json(capfd, command):
    status, out, err = run(capfd, *command, "--help")
    assert status == 0 and err == "" and "Examples" in out and "shardstream " + command[0] in out
    assert ("--json" in out) or command in WITHOUT_JSON


@pytest.mark.parametrize("group", sorted(WITHOUT_JSON), ids=" ".join)
def test_help_of_a_group_has_an_example_of_each_command(capfd, group):
    _, out, _ = run(capfd, *group, "--help")
    examples = out.partition("Examples")[2]
    assert all(" ".join(("shardstream", *command)) in examples for command in COMMANDS if command[:-1] == group)


def test_shells_complete_commands_and_options(capfd, monkeypatch):
    """What ``--install-completion`` puts into a shell asks for words in this way."""
    for words, wanted in ((["shardstream", "ver"], "verify"), (["shardstream", "tokenizer", "enc"], "encode"),
                          (["shardstream", "ls", "--ver"], "--version")):  # fmt: skip
        monkeypatch.setenv("_SHARDSTREAM_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", " ".join(words))
        monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
        status, out, err = run(capfd)
        assert wanted in out.split() and err == ""


MISSING = {
    ("ls",): ["NOWHERE"], ("cat",): ["NOWHERE"], ("verify",): ["NOWHERE"], ("export",): ["NOWHERE", "OUT/%06d.tar"], ("convert",): ["NOWHERE", "OUT"],
    ("compact",): ["NOWHERE"], ("gc",): ["NOWHERE"], ("tag",): ["NOWHERE", "name"], ("end",): ["NOWHERE"], ("index",): ["NOWHERE"],
    ("bench",): ["NOWHERE"], ("view",): ["NOWHERE"], ("pack",): ["NOWHERE"], ("cache", "ls"): ["NOWHERE"], ("cache", "clear"): ["NOWHERE"],
    ("tokenizer", "train"): ["NOWHERE", "--vocab-size", "300", "--to", "OUT.json"], ("tokenizer", "encode"): ["NOWHERE", "text"],
    ("tokenizer", "info"): ["NOWHERE"],
}  # fmt: skip


@pytest.mark.parametrize("command", MISSING, ids=" ".join)
def test_a_place_that_is_not_there_is_one_line(capfd, tmp_path, command):
    """It names the place; nothing is printed as if it were a result, nothing is written, and no traceback is shown."""
    words = filled(MISSING[command], NOWHERE=tmp_path / "nowhere", OUT=tmp_path / "out")
    status, out, err = run(capfd, *command, *words)
    assert status in (1, 2) and out == "" and err.count("\n") == 1 and err.startswith("shardstream: ") and "nowhere" in err
    assert "unexpected" not in err and "Traceback" not in err and os.listdir(tmp_path) == []
    status, _, err = run(capfd, *command, *words, "--debug")
    assert status in (1, 2) and "Traceback" in err


def test_every_command_is_tried():
    assert set(MISSING) == {path for path in COMMANDS if path not in {("cache",), ("tokenizer",)}}


@pytest.mark.parametrize("arguments", [
    ["cat", "DATASET", "--field", "lable"], ["convert", "DATASET", "OUT", "--field", "lable"], ["export", "DATASET", "OUT/%06d.tar", "--field", "lable"],
    ["bench", "DATASET", "--field", "lable"],
], ids=lambda arguments: arguments[0])  # fmt: skip
def test_a_typo_in_a_field_is_one_line_that_names_those_there_are(capfd, tmp_path, dataset, arguments):
    status, out, err = run(capfd, *filled(arguments, DATASET=dataset, OUT=tmp_path / "out"))
    assert status == 2 and out == "" and err.count("\n") == 1 and "lable" in err and "'label'" in err and os.listdir(tmp_path) == []


@pytest.mark.parametrize("arguments", [["cat"], ["verify"], ["bench", "--seconds", "0.1"], ["export", "OUT/%06d.tar"], ["convert", "OUT"]],
                         ids=lambda arguments: arguments[0])  # fmt: skip
def test_a_shard_of_a_newer_version_is_one_line(capfd, tmp_path, monkeypatch, arguments):
    """It says which format the shard has, and to upgrade."""
    url = tmp_path / "d"
    with monkeypatch.context() as later, ss.ShardWriter(str(url), schema=ss.Schema(y=ss.Dense("int64"))) as writer:
        later.setattr("shardstream.codecs.shard.FORMAT", 99)
        writer.write_batch({"y": np.arange(5)})
        writer.close()
    (path,) = url.glob("*.tar")
    command, *rest = arguments
    status, text, err = run(capfd, command, url, *filled(rest, OUT=tmp_path / "out"))
    said = text + err
    assert status == 1 and "99" in said and "upgrade" in said and "Traceback" not in said and path.name in said
    assert err.count("\n") <= 1

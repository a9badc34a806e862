"""``shardstream tokenizer``: what it prints, what it writes, one line for each error."""

import gzip
import io
import json
import os
import shlex
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import fsspec
import pytest

import shardstream as ss
from shardstream.cli import main
from shardstream.cli import tokenizer as command_line
from tests import texts

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "configs/pack_text_tokens.yaml"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with texts, some of them hidden or of another kind."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.txt", "deep/b.txt", ".hidden/c.txt", "deep/.d.txt", "deep/e.bin"):
        (tmp_path / "texts" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "texts" / name).write_text(f"{name} abab abab\n" * 9)
    return tmp_path


def run(capfd, *arguments) -> tuple[int, str, str]:
    status = main(["tokenizer", *map(str, arguments)])
    return status, *capfd.readouterr()


def train(capfd, *arguments, to="my/tokenizer.json", size=262):
    return run(capfd, "train", "texts", "--to", to, "--vocab-size", size, *arguments)


def test_train_writes_what_load_reads(capfd, folder):
    """Files of a folder that are neither hidden nor left out are learned; the report counts them."""
    status, out, err = train(capfd, "--include", "*.txt", "--special", "<end>", "--json")
    report = json.loads(out)
    assert (status, err) == (0, "")
    assert (report["num_files"], report["vocab_size"], report["special_tokens"]) == (2, 262, {"<end>": 261})
    same = ss.tokenizers.train([folder / "texts/a.txt", folder / "texts/deep/b.txt"], 262, special_tokens=["<end>"])
    sample = "abab deep/b.txt"
    assert ss.tokenizers.load("my/tokenizer.json").encode(sample).tolist() == same.encode(sample).tolist()
    assert os.listdir("my") == ["tokenizer.json"]


def test_train_takes_everything_but_what_is_excluded(capfd, folder):
    """Without ``--include`` all files come; ``--exclude`` takes folders with all below them."""
    assert json.loads(train(capfd, "--json")[1])["num_files"] == 3
    assert json.loads(train(capfd, "--json", "--exclude", "deep", to="two.json")[1])["num_files"] == 1


def test_train_reads_urls_globs_and_compressed_files(capfd, folder):
    """What is learned does not depend on where texts are: in a store of fsspec's, behind a pattern, compressed."""
    store, prefix = fsspec.filesystem("memory"), f"/{uuid.uuid4().hex}"
    for name in ("a.txt", "deep/b.txt"):
        store.pipe(f"{prefix}/{name}.gz", gzip.compress((folder / "texts" / name).read_bytes()))
    options = ("--vocab-size", 262, "--json")
    assert train(capfd, "--include", "*.txt")[0] == 0
    for number, url in enumerate((f"memory:/{prefix}", f"memory:/{prefix}/**/*.gz")):
        status, out, _ = run(capfd, "train", url, "--to", f"{number}.json", *options)
        assert status == 0 and json.loads(out)["num_files"] == 2
        assert (folder / f"{number}.json").read_bytes() == (folder / "my/tokenizer.json").read_bytes()
    status, _, err = run(capfd, "train", f"memory:/{prefix}/none", "--to", "none.json", *options)
    assert status == 2 and "there is nothing at" in err and not (folder / "none.json").exists()


def test_train_says_how_much_and_how_fast(capfd, folder):
    """People get two lines, and a third where the texts were too few or the file leaves something out."""
    status, out, _ = train(capfd, to="mine.tiktoken", size=5000)
    assert (
        status == 0
        and "mine.tiktoken: " in out
        and "MB/s" in out
        and "fewer than 5,000 ids" in out
        and "pattern cl100k" in out
    )


def test_encode_prints_ids(capfd, folder, monkeypatch):
    """A line a text; standard input is one text; ``--tokens`` and ``--json`` show what ids stand for."""
    train(capfd, "--special", "<end>")
    tokenizer = ss.tokenizers.load("my")
    ids = tokenizer.encode("abab txt").tolist()
    assert run(capfd, "encode", "my", "abab txt", "")[:2] == (0, " ".join(map(str, ids)) + "\n\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"abab txt")))
    assert run(capfd, "encode", "my/tokenizer.json")[:2] == (0, " ".join(map(str, ids)) + "\n")
    assert "'a'" in run(capfd, "encode", "my", "a", "--tokens")[1]
    rows = json.loads(run(capfd, "encode", "my", "a<end>", "--special", "--json")[1])
    assert rows == [{"ids": [tokenizer.token_to_id("a"), 261], "tokens": ["a", "<end>"]}]


def test_info_describes_a_vocabulary(capfd, folder):
    """Size, pattern and special tokens, for people and for scripts."""
    train(capfd, "--special", "<end>", to="mine.tiktoken")
    status, out, _ = run(capfd, "info", "mine.tiktoken", "--pattern", "cl100k")
    assert status == 0 and "261 ids (uint16)" in out and "pattern: cl100k" in out and "special tokens: none" in out
    found = json.loads(run(capfd, "info", "mine.tiktoken", "--pattern", r"\S+|\s+", "--json")[1])
    assert (found["vocab_size"], found["pattern"], found["pattern_in_c"], found["num_merges"]) == (
        261,
        r"\S+|\s+",
        False,
        None,
    )


@pytest.mark.parametrize(("arguments", "status", "message"), [
    (["train", "texts", "--to", "x.txt", "--vocab-size", "300"], 2, "saved as *.json or *.tiktoken"),
    (["train", "texts", "--to", "vocab.json", "--vocab-size", "300"], 2, "not as vocab.json or encoder.json"),
    (["train", "texts/a.txt", "--to", "texts/there.json", "--vocab-size", "300"], 2, "a file stands there"),
    (["train", "nowhere", "--to", "x.json", "--vocab-size", "300"], 2, "nothing at 'nowhere'"),
    (["train", "texts", "--to", "x.json", "--vocab-size", "300", "--include", "*.md"], 2, "no file at 'texts'"),
    (["train", "${NO_SUCH_VARIABLE}", "--to", "x.json", "--vocab-size", "300"], 2, "NO_SUCH_VARIABLE"),
    (["train", "texts", "--to", "x.json", "--vocab-size", "30"], 1, "vocab_size is from 256"),
    (["train", "texts", "--to", "x.json", "--vocab-size", "300", "--pattern", "("], 1, "not a regular expression"),
    (["train", "texts", "--to", "x.json", "--vocab-size", "many"], 2, "--vocab-size"),
    (["encode", "nowhere", "text"], 1, "nowhere is neither a file or folder nor an encoding"),
    (["info", "texts"], 1, "has no vocabulary"), (["trian"], 2, "trian"),
])  # fmt: skip
def test_errors_are_one_line_and_a_status(capfd, folder, arguments, status, message):
    """What is wrong is said in a line, nothing is written, and the status says whose fault it is."""
    (folder / "texts/there.json").write_text("{}")
    got, out, err = run(capfd, *arguments)
    assert got == status and out == "" and message in err and "Traceback" not in err
    assert not (folder / "x.json").exists() and (folder / "texts/there.json").read_text() == "{}"


@pytest.mark.parametrize("command", ["train", "encode", "info"])
def test_help_has_examples(capfd, command):
    """Each command's help shows how it is typed."""
    status, out, _ = run(capfd, command, "--help")
    assert status == 0 and "Examples" in out and f"shardstream tokenizer {command}" in out


def test_training_that_is_killed_leaves_nothing(folder):
    """Ctrl-C while texts are read ends the command with 130 and no file."""
    with open(folder / "large.txt", "w") as file:
        for number in range(1_000_000):
            file.write(f"line {number * 7919} of many\n")
    arguments = ["tokenizer", "train", "large.txt", "--to", "x.json", "--vocab-size", "300", "--pattern", r"\w+|\W"]
    job = subprocess.Popen([sys.executable, "-m", "shardstream", *arguments], cwd=folder, stderr=subprocess.PIPE,
                           env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
    time.sleep(1.5)
    job.send_signal(signal.SIGINT)
    _, err = job.communicate(timeout=30)
    assert job.returncode == 130 and err == b"shardstream: interrupted.\n"
    assert not (folder / "x.json").exists()


def test_configuration_of_the_repository_packs(capfd, folder):
    """configs/pack_text_tokens.yaml with the command at its head gives sequences that decode to the documents."""
    commands = [line.removeprefix("#").strip() for line in CONFIG.read_text().splitlines() if line.startswith("#  ")]
    assert commands[0].startswith("shardstream tokenizer train '${stdlib}'")
    for number, text in enumerate(texts.library_text(300_000)):
        (folder / f"library{number}.py").write_text(text)
    options = ("--include", "library*.py", "--vocab-size", "2000", "--special", "<|endoftext|>")
    assert run(capfd, "train", folder, *options, "--to", "demo/tokenizer.json")[0] == 0
    settings = [
        "--set",
        f"source.paths={folder}",
        "--set",
        'source.include=["library*.py"]',
        "--set",
        "splits.parts={train: 0.5, held_out: 0.5}",
    ]
    assert main(["pack", str(CONFIG), *settings]) == 0
    tokenizer, found = ss.tokenizers.load("demo"), ""
    for split in ("train", "held_out"):
        rows = list(ss.ShardStream(f"demo/tokens/{split}"))
        assert {len(row["ids"]) for row in rows[:-1]} <= {1024}
        found += tokenizer.decode([token for row in rows for token in row["ids"].tolist()])
    documents = sorted(path.read_text() for path in folder.glob("library*.py"))
    assert sorted(found.split("<|endoftext|>")[:-1]) == documents


def test_examples_of_the_help_run(capfd, folder, monkeypatch):
    """Each as it stands but for what this machine need not have: the bucket and Python's library are folders here, tiktoken's encodings a
    vocabulary, and what is piped into another program is read here.
    """
    for path in ("corpus.txt", "books/a.txt", "lib/a.py", "README.md"):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text("hello world, hello words\n" * 9)
    (folder / "corpus").mkdir()
    (folder / "corpus/a.txt.gz").write_bytes(gzip.compress(b"hello world " * 9))
    assert train(capfd, to="demo/tokenizer.json")[0] == 0
    here = {"s3://bucket": str(folder), "${stdlib}": "lib", "cl100k_base": "demo/tokenizer.json", "o200k_base": "demo/tokenizer.json"}
    examples = [line.strip() for name in ("EXAMPLES", "TRAIN_EXAMPLES", "ENCODE_EXAMPLES", "INFO_EXAMPLES")
                for line in getattr(command_line, name).splitlines() if line.startswith("    ")]  # fmt: skip
    assert len(examples) > 8
    for example in examples:
        command, _, pipe = example.partition(" | ")
        for there, place in here.items():
            command = command.replace(there, place)
        command, _, stdin = command.partition(" < ")
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO((folder / (stdin or "README.md")).read_bytes())))
        program, group, *arguments = shlex.split(command)
        assert (program, group) == ("shardstream", "tokenizer")
        status, out, err = run(capfd, *arguments)
        assert status == 0 and out and not err, example
        assert not pipe or json.loads(out), example

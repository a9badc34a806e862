"""The command line: what it prints, its exit status, one line for each error."""

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import shardstream as ss
from shardstream.cli import main

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def job(tmp_path):
    """A configuration that packs two texts to ``out``."""
    for label in ("rain", "sun"):
        (tmp_path / "texts" / label).mkdir(parents=True)
        (tmp_path / "texts" / label / "1.txt").write_text(f"{label} and {label} again")
    path = tmp_path / "job.yaml"
    path.write_text(
        f"source: {{kind: text, paths: {tmp_path}/texts}}\n"
        "steps:\n  - hash: {dim: 64}\n"
        "fields:\n  x:\n  y: {from: top, classes: auto}\n"
        f"output: {{url: {tmp_path}/out}}\n"
    )
    return path


@pytest.fixture
def shards(tmp_path):
    """Two WebDataset shards with three samples in all."""
    for number, keys in enumerate((("a", "b"), ("c",))):
        with tarfile.open(tmp_path / f"{number}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for key in keys:
                member = tarfile.TarInfo(f"{key}.txt")
                member.size = 1
                tar.addfile(member, io.BytesIO(key.encode()))
    return tmp_path


def run(capfd, *arguments) -> tuple[int, str, str]:
    """Return ``(exit status, standard output, standard error)`` of a command line."""
    status = main([str(argument) for argument in arguments])
    return status, *capfd.readouterr()


def test_pack_reports_each_dataset(capfd, job):
    """``pack`` ends with a table of the datasets and the totals, on standard output."""
    status, out, err = run(capfd, "pack", job)
    assert status == 0 and err == "" and str(job.parent / "out") in out and "2 records" in out


def test_pack_json_is_one_document(capfd, job):
    """``--json`` prints the report for scripts, and nothing else."""
    status, out, err = run(capfd, "pack", job, "--json")
    report = json.loads(out)
    assert (
        status == 0
        and err == ""
        and report["datasets"][0]["num_samples"] == 2
        and report["classes"] == {"y": ["rain", "sun"]}
    )


def test_set_overrides_a_key(capfd, job):
    """``--set`` may come several times."""
    url = job.parent / "other"
    assert run(capfd, "pack", job, "--set", f"output.url={url}", "--set", "steps[0].hash.dim=128")[0] == 0
    assert ss.Dataset(str(url)).schema["x"].dim == 128


def test_skipped_records_are_reported(capfd, job):
    """What ``on_error: skip`` left out is counted and the first of it shown."""
    (job.parent / "texts/sun/2.txt").write_bytes(b"\xff")
    status, out, _ = run(capfd, "pack", job, "--set", "on_error=skip")
    assert status == 0 and "1 records skipped" in out and "sun/2.txt" in out


def test_ls_shows_versions_fields_and_shards(capfd, job):
    """``ls`` shows what the log says."""
    run(capfd, "pack", job)
    status, out, _ = run(capfd, "ls", job.parent / "out", "--shards")
    assert status == 0
    for words in ("version 2: 2 samples", "Sparse dim=64", "2: rain, sun", "append", ".tar"):
        assert words in out


def test_ls_json_is_one_document(capfd, job):
    """``ls --json`` has the same for scripts; ``--version`` looks back."""
    run(capfd, "pack", job)
    newest = json.loads(run(capfd, "ls", job.parent / "out", "--json", "--shards")[1])
    first = json.loads(run(capfd, "ls", job.parent / "out", "--json", "--version", "0")[1])
    assert (newest["num_samples"], len(newest["shards"]), newest["version"]) == (2, 1, 2)
    assert (first["num_samples"], first["version"]) == (0, 0)


def test_index_counts_foreign_shards(capfd, shards, monkeypatch):
    """``index`` counts WebDataset shards and remembers them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(shards / "cache"))
    status, out, _ = run(capfd, "index", shards / "{0..1}.tar")
    assert status == 0 and "2 shards, 3 samples" in out and list((shards / "cache").rglob("*.json"))


def test_index_to_a_dataset_adopts_shards_once(capfd, shards, monkeypatch):
    """``index --to`` makes them readable as a dataset; a second time adds nothing; originals are not touched."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(shards / "cache"))
    before = {path: path.read_bytes() for path in shards.glob("*.tar")}
    status, out, _ = run(capfd, "index", shards / "0.tar", shards / "1.tar", "--to", shards / "set")
    assert status == 0 and "2 of them are new" in out
    assert [row["txt"] for row in ss.ShardStream(str(shards / "set"))] == ["a", "b", "c"]
    status, out, _ = run(capfd, "index", shards / "*.tar", "--to", shards / "set", "--json")
    assert status == 0 and json.loads(out)["version"] is None and ss.Dataset(str(shards / "set")).num_samples == 3
    assert {path: path.read_bytes() for path in shards.glob("*.tar")} == before


def test_adopted_shards_move_with_their_dataset(capfd, shards, monkeypatch):
    """Shards that lie in the dataset's folder are named relative to it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(shards / "cache"))
    run(capfd, "index", shards / "*.tar", "--to", shards)
    moved = shards.parent / f"{shards.name}-moved"
    shards.rename(moved)
    assert [row["__key__"] for row in ss.ShardStream(str(moved))] == ["a", "b", "c"]


def test_shards_of_other_fields_are_refused(capfd, shards, job, monkeypatch):
    """A dataset has one schema: packed shards and WebDataset's do not mix."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(shards / "cache"))
    run(capfd, "pack", job)
    own = ss.Dataset(str(job.parent / "out")).shards[0]
    status, _, err = run(capfd, "index", shards / "0.tar", own, "--to", shards / "set")
    assert status == 1 and "its fields are not those of" in err and not (shards / "set").exists()


@pytest.mark.parametrize(
    "arguments, status, message",
    [
        (["ls", "TMP/none"], 1, "there is no dataset at TMP/none."),
        (["index", "TMP/none/*.tar"], 1, "no shard matches TMP/none/*.tar."),
        (["index", "TMP/none.tar"], 1, "the shard is missing. [shard TMP/none.tar]"),
        (["pack", "TMP/none.yaml"], 2, "cannot read the configuration TMP/none.yaml: No such file or directory."),
        (
            ["pack", "TMP/job.yaml", "--set", "steps[0].hash.dmi=3"],
            2,
            "--set steps[0].hash.dmi: unknown key 'dmi'; did you mean 'dim'?",
        ),
        (
            ["pack", "TMP/job.yaml", "--set", "source.paths=TMP/none"],
            2,
            "--set source.paths: there is nothing at 'TMP/none'.",
        ),
    ],
)
def test_failure_is_one_line_and_a_status(capfd, job, arguments, status, message):
    """No traceback: one line on standard error says what is wrong; 1 is failure, 2 a wrong command or configuration."""
    folder = str(job.parent)
    got, out, err = run(capfd, *(argument.replace("TMP", folder) for argument in arguments))
    assert (got, out, err.replace(folder, "TMP")) == (status, "", f"shardstream: {message}\n")


def test_debug_shows_the_traceback(capfd, tmp_path):
    """``--debug`` anywhere on the line adds where it happened."""
    for arguments in (("--debug", "ls", tmp_path / "none"), ("ls", tmp_path / "none", "--debug")):
        status, _, err = run(capfd, *arguments)
        assert (
            status == 1
            and err.startswith("Traceback")
            and err.endswith(f"shardstream: there is no dataset at {tmp_path}/none.\n")
        )


@pytest.mark.parametrize(
    "arguments", [["pakc"], ["pack"], ["ls"], ["ls", "x", "--versoin", "1"], ["pack", "x", "--nothing"]]
)
def test_wrong_command_line_is_status_2(capfd, arguments):
    """A typo in the command line says so, and where help is."""
    status, out, err = run(capfd, *arguments)
    assert status == 2 and out == "" and "--help" in err or "-h" in err


@pytest.mark.parametrize("command", ["pack", "ls", "index"])
def test_help_has_examples(capfd, command):
    """Each command's help shows how it is typed."""
    status, out, _ = run(capfd, command, "--help")
    assert status == 0 and f"shardstream {command}" in out and "Examples" in out


def test_an_unexpected_error_is_one_line_too(capfd, job, monkeypatch):
    """A bug is reported in a line that says how to see more."""

    def broken(*arguments, **options):
        raise RuntimeError("a bug")

    monkeypatch.setattr("shardstream.packing.pack", broken)
    assert run(capfd, "pack", job) == (1, "", "shardstream: unexpected RuntimeError: a bug (--debug shows where)\n")


def test_interrupt_is_status_130(capfd, job, monkeypatch):
    """Ctrl-C ends with one line and the status that shells expect."""

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("shardstream.packing.pack", interrupted)
    status, _, err = run(capfd, "pack", job)
    assert status == 130 and err.strip() == "shardstream: interrupted."


def test_help_loads_neither_torch_nor_fsspec():
    """``shardstream --help`` is quick: what commands need is imported when they run."""
    code = "import sys\nfrom shardstream.cli import main\nmain(['pack', '--help'])\nprint(' '.join(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "shardstream.cli.pack" in loaded and not loaded & {
        "torch",
        "fsspec",
        "s3fs",
        "webdataset",
        "numpy",
        "shardstream.packing",
    }


def test_module_is_the_command():
    """``python -m shardstream`` is the same command and gives its status on."""
    done = subprocess.run(
        [sys.executable, "-m", "shardstream", "ls", "/nowhere"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1 and done.stderr == "shardstream: there is no dataset at /nowhere.\n"

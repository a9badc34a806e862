"""The commands that look after a dataset: what they print and do, their exit status."""

import json

import pytest

import shardstream as ss
from tests.test_cli import run

SCHEMA = ss.Schema(y=ss.Dense("int64"))


@pytest.fixture
def url(tmp_path):
    """A dataset of three small shards, two samples each."""
    url = str(tmp_path / "d")
    for number in range(3):
        with ss.ShardWriter(url, schema=SCHEMA) as writer:
            writer.write_batch({"y": [2 * number, 2 * number + 1]})
    return url


def ys(url: str, version=None) -> list[int]:
    return [int(row["y"]) for row in ss.ShardStream(url, version=version)]


def test_compact(capfd, url):
    """One line says what became of how many shards; a second time there is nothing to do."""
    status, out, err = run(capfd, "compact", url)
    assert (status, err) == (0, "") and out.startswith("version 4: 3 shards, 30.7 kB became 1 shards, 10.2 kB")
    assert run(capfd, "compact", url)[1] == "nothing to do\n"
    assert json.loads(run(capfd, "compact", url, "--json")[1])["version"] is None
    assert ys(url) == list(range(6))


def test_compact_drop(capfd, url, tmp_path):
    """Ids come from ls --ids, on the line or from a file."""
    ids = run(capfd, "ls", url, "--ids")[1].split()
    assert len(ids) == 6
    (tmp_path / "ids.txt").write_text(ids[5] + "\n\n")
    status, out, _ = run(capfd, "compact", url, "--drop", f"{ids[0]},{ids[3]}", "--drop", f"@{tmp_path}/ids.txt")
    assert status == 0 and out.endswith("3 samples dropped; older versions keep theirs until gc\n")
    assert ys(url) == [1, 2, 4] and ys(url, 3) == list(range(6))


@pytest.mark.parametrize("arguments, status, message", [
    (["compact", "TMP/none"], 1, "there is no dataset at TMP/none."),
    (["compact", "TMP/d", "--drop", "7"], 2, "'7' is not a sample's id"),
    (["compact", "TMP/d", "--drop", "@TMP/none"], 1, "No such file"),
    (["compact", "TMP/d", "--shard-size", "big"], 2, "shard_nbytes='big' is not a size"),
    (["compact"], 2, "Missing argument"),
])  # fmt: skip
def test_failures(capfd, url, tmp_path, arguments, status, message):
    """What cannot be done is one line that says why, and changes nothing."""
    got, out, err = run(capfd, *(argument.replace("TMP", str(tmp_path)) for argument in arguments))
    assert (got, out) == (status, "") and message in err.replace(str(tmp_path), "TMP")
    assert ss.Dataset(url).version == 3


@pytest.mark.parametrize("command", ["compact"])
def test_help_has_examples(capfd, command):
    """Each command's help shows how it is typed."""
    status, out, _ = run(capfd, command, "--help")
    assert status == 0 and f"shardstream {command}" in out and "Examples" in out

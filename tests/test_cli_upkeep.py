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


def test_gc(capfd, url):
    """Without --delete it says what would go; with it, that goes."""
    run(capfd, "compact", url)
    run(capfd, "tag", url, "two", "--version", "2")
    status, out, err = run(capfd, "gc", url, "--keep", "0s")
    assert (status, err) == (0, "") and "nothing was changed" in out and "versions below 5 would expire, except 2" in out
    assert ys(url, 1) == [0, 1]
    planned = json.loads(run(capfd, "gc", url, "--keep", "0s", "--json")[1])
    assert planned["num_shards"] == 1 and planned["dry_run"] and planned["names"][0].endswith(".tar")
    status, out, _ = run(capfd, "gc", url, "--keep", "0s", "--delete")
    assert status == 0 and "shards of versions given up       1  10.2 kB" in out
    assert ys(url) == list(range(6)) and ys(url, "two") == list(range(4))
    status, out, err = run(capfd, "ls", url, "--version", "1")
    assert (status, out) == (1, "") and "version 1 of the dataset" in err and "has expired" in err


def test_tag(capfd, url):
    """A tag is set, moved, listed and taken away."""
    assert run(capfd, "tag", url, "best", "--version", "2")[1] == "best is version 2\n"
    assert run(capfd, "tag", url, "best")[1] == "best is version 4\n"
    assert run(capfd, "tag", url)[1].split() == ["tag", "version", "best", "4"]
    assert json.loads(run(capfd, "tag", url, "other", "--version", "best", "--json")[1]) == {"tags": {"best": 4, "other": 4}}
    assert run(capfd, "tag", url, "best", "--delete")[1] == "best is no tag any more\n"
    assert run(capfd, "tag", url, "best", "--delete")[0] == 1


def test_end(capfd, url):
    """After the end a second one fails."""
    assert run(capfd, "end", url)[:2] == (0, "ended by version 4\n")
    assert run(capfd, "end", url)[0] == 1
    assert "ended by version 4" in run(capfd, "ls", url)[1]


def test_ls_shows_tags_producers_and_freshness(capfd, url):
    """What one asks of a dataset that grows: who wrote last, how long ago, and what their input stood at."""
    with ss.ShardWriter(url, schema=SCHEMA, producer="web") as writer:
        writer.write({"y": 6}, source={"byte": 4096})
    run(capfd, "tag", url, "best")
    status, out, _ = run(capfd, "ls", url)
    assert status == 0
    for words in ("; newest data 0.", "tag   version", "best        5", "web", '{"byte": 4096}'):
        assert words in out, out
    shown = json.loads(run(capfd, "ls", url, "--json")[1])
    assert shown["tags"] == {"best": 5} and shown["producers"][0]["source"] == {"byte": 4096} and 0 <= shown["freshness_s"] < 60
    assert run(capfd, "ls", url, "--urls")[1].splitlines() == ss.Dataset(url).shards
    assert run(capfd, "ls", url, "--urls", "--version", "1")[1].splitlines() == ss.Dataset(url).shards[:1]


@pytest.mark.parametrize("arguments, status, message", [
    (["gc", "TMP/none"], 1, "there is no dataset at TMP/none."),
    (["gc", "TMP/d", "--keep", "soon"], 2, "keep='soon' is not a duration"),
    (["tag", "TMP/d", "1"], 2, "must begin with a letter"),
    (["tag", "TMP/d", "x", "--version", "9"], 1, "no version 9"),
    (["tag", "TMP/d", "--delete"], 2, "need the name of a tag"),
    (["end", "TMP/none"], 1, "there is no dataset at TMP/none."),
    (["compact", "TMP/none"], 1, "there is no dataset at TMP/none."),
    (["compact", "TMP/d", "--drop", "7"], 2, "'7' is not a sample's id"),
    (["compact", "TMP/d", "--drop", "@TMP/none"], 2, "--drop @TMP/none: the ids can't be read: [Errno 2] No such file"),
    (["compact", "TMP/d", "--shard-size", "big"], 2, "shard_nbytes='big' is not a size"),
    (["compact"], 2, "Missing argument"),
])  # fmt: skip
def test_failures(capfd, url, tmp_path, arguments, status, message):
    """What cannot be done is one line that says why, and changes nothing."""
    got, out, err = run(capfd, *(argument.replace("TMP", str(tmp_path)) for argument in arguments))
    assert (got, out) == (status, "") and message in err.replace(str(tmp_path), "TMP")
    assert ss.Dataset(url).version == 3


@pytest.mark.parametrize("command", ["compact", "gc", "tag", "end"])
def test_help_has_examples(capfd, command):
    """Each command's help shows how it is typed."""
    status, out, _ = run(capfd, command, "--help")
    assert status == 0 and f"shardstream {command}" in out and "Examples" in out

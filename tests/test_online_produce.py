"""examples/online/produce.py: every line of the input is a record exactly once, whatever is killed, rotated or cut."""

import importlib.util
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import shardstream as ss

ROOT = Path(__file__).resolve().parents[1]
PRODUCE = ROOT / "examples/online/produce.py"
FENCED = 3


def _sources():
    spec = importlib.util.spec_from_file_location("sources", PRODUCE.with_name("sources.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


sources = _sources()


def line(number: int) -> bytes:
    return json.dumps({"text": f"the {number}th líne", "label": number % 2, "time": number},
                      ensure_ascii=False).encode() + b"\n"  # fmt: skip


_producers: list[subprocess.Popen] = []


@pytest.fixture(autouse=True)
def _no_producer_stays():
    """End what a failed test has left behind, stopped producers too."""
    yield
    while _producers:
        with _producers.pop() as process:
            process.kill()


def started(url, *arguments) -> subprocess.Popen:
    command = [sys.executable, str(PRODUCE), str(url), "--max-latency", "0.1s", *map(str, arguments)]
    _producers.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}))
    return _producers[-1]


def numbers(url) -> list[int]:
    """Return which records are in the dataset, in log order."""
    return [int(row["t"]) for row in ss.ShardStream(str(url), fields=["t"])]


def wait_until(condition, timeout_s: float = 60) -> None:
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < timeout_s
        time.sleep(0.05)


def num_written(url) -> int:
    try:
        return ss.Dataset(str(url)).num_samples
    except ss.DatasetNotFoundError:
        return 0


def killed_and_restarted(url, feed, *arguments, kills: int = 2) -> None:
    """Feed an input while its producer is killed at random and started again; at the end it has all of it."""
    generator, process = random.Random(7), started(url, *arguments)
    for _ in range(kills):
        before = num_written(url)
        feed()
        wait_until(lambda before=before: num_written(url) > before)
        time.sleep(generator.uniform(0, 0.3))
        process.kill()
        process.wait()
        feed()
        process = started(url, *arguments)
    feed()
    process.kill()
    process.wait()
    output, errors = started(url, *arguments, "--stop-when-idle", 1.5).communicate(timeout=120)
    assert "records written" in output, errors


# -- the producer as a process -------------------------------------------------------------------


def test_tail_survives_kills_and_rotation(tmp_path):
    """Killed at any time, with the file rotated meanwhile and lines cut between two writes, each record is there once,
    in order.
    """
    path, count = tmp_path / "events.jsonl", [0]

    def feed():
        for _ in range(40):
            data = line(count[0])
            with open(path, "ab") as file:
                file.write(data[:10])
                file.flush()
                file.write(data[10:])
            count[0] += 1
            if count[0] % 100 == 0:
                for older in (2, 1):
                    if (tmp_path / f"events.jsonl.{older}").exists():
                        (tmp_path / f"events.jsonl.{older}").rename(tmp_path / f"events.jsonl.{older + 1}")
                path.rename(tmp_path / "events.jsonl.1")
            time.sleep(0.005)

    killed_and_restarted(tmp_path / "d", feed, "--tail", path)
    assert numbers(tmp_path / "d") == list(range(count[0])) and count[0] == 200


def test_folder_survives_kills(tmp_path):
    """Files that arrive, some empty, some without a last newline, are read once, in the order of their names."""
    folder, count, files = tmp_path / "in", [0], [0]
    folder.mkdir()

    def feed():
        for size in (3, 0, 2000):
            data = b"".join(line(count[0] + number) for number in range(size))
            (folder / ".new").write_bytes(data.rstrip(b"\n") if size == 3 else data)
            (folder / ".new").rename(folder / f"{files[0]:05d}.jsonl")
            count[0], files[0] = count[0] + size, files[0] + 1

    killed_and_restarted(tmp_path / "d", feed, "--folder", folder, kills=1)
    assert numbers(tmp_path / "d") == list(range(count[0]))


@pytest.fixture
def redis_client(tmp_path):
    """A Redis server of this test's own on a free port."""
    redis = pytest.importorskip("redis", reason="the redis package is not installed")
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)],
                              stdout=subprocess.DEVNULL)  # fmt: skip
    client = redis.Redis(port=port)

    def answers() -> bool:
        try:
            return client.ping()
        except redis.exceptions.ConnectionError:
            return False

    try:
        wait_until(answers)
        yield client
    finally:
        client.close()
        server.terminate()
        server.wait(timeout=30)


def test_redis_stream_survives_kills(tmp_path, redis_client):
    """Entries of a stream are read once; one without a line is skipped."""
    count, port = [0], redis_client.connection_pool.connection_kwargs["port"]

    def feed():
        redis_client.xadd("events", {"other": b"field"})
        for _ in range(30):
            redis_client.xadd("events", {"line": line(count[0])})
            count[0] += 1

    killed_and_restarted(tmp_path / "d", feed, "--redis", f"redis://127.0.0.1:{port}", "--stream", "events", kills=1)
    assert numbers(tmp_path / "d") == list(range(count[0]))


def test_a_zombie_is_fenced_and_a_term_commits(tmp_path):
    """An instance that was stopped while its successor took over ends with status 3; SIGTERM commits what was read."""
    path, url = tmp_path / "events.jsonl", tmp_path / "d"
    path.write_bytes(b"".join(map(line, range(10))))
    zombie = started(url, "--tail", path)
    wait_until(lambda: num_written(url) == 10)
    zombie.send_signal(signal.SIGSTOP)
    successor = started(url, "--tail", path)
    with open(path, "ab") as file:
        file.write(b"".join(map(line, range(10, 20))))
    wait_until(lambda: num_written(url) == 20)
    zombie.send_signal(signal.SIGCONT)
    with open(path, "ab") as file:
        file.write(b"".join(map(line, range(20, 30))))
    wait_until(lambda: num_written(url) == 30)
    assert zombie.wait(timeout=60) == FENCED
    successor.send_signal(signal.SIGTERM)
    output, _ = successor.communicate(timeout=60)
    assert successor.returncode == 0 and "20 records written" in output
    assert numbers(url) == list(range(30))


def test_records_are_hashed_text_label_and_time(tmp_path):
    """x is the set of hashed words and pairs; what is no record is skipped, with a warning that shows it."""
    bad = [b"{", b"[1]", b'{"text": 3, "label": 1, "time": 1}', b'{"text": "a", "label": "b", "time": 1}', b'{"text": "a", "label": 1}',
           b'{"text": "a", "label": 1, "time": "NaN"}', b'{"text": "\\ud800", "label": 1, "time": 1}', b"\xff", b"[" * 100_000]  # fmt: skip
    (tmp_path / "f").write_bytes(b"\n".join([*bad, line(4), b"", line(5)]))
    _, errors = (process := started(tmp_path / "d", "--tail", tmp_path / "f", "--stop-when-idle", 0.5)).communicate(timeout=60)
    assert process.returncode == 0 and errors.count("skipped a line") == 5
    rows = list(ss.ShardStream(str(tmp_path / "d"), sparse="indices"))
    assert [(int(row["y"]), float(row["t"])) for row in rows] == [(0, 4.0), (1, 5.0)]
    indices, indptr, _ = ss.text.FeatureHasher(2**18, ngrams=(1, 2)).transform(["the 4th líne", "the 5th líne"])
    for row, begin, end in zip(rows, indptr, indptr[1:]):
        np.testing.assert_array_equal(row["x"], indices[begin:end])


@pytest.mark.parametrize("arguments, status", [(["--folder", "TMP/none"], 1), (["--redis", "redis://x"], 2), ([], 2)])
def test_a_wrong_input_is_one_line(tmp_path, arguments, status):
    """What cannot be read is said in a line, without a traceback."""
    process = started(tmp_path / "d", *(argument.replace("TMP", str(tmp_path)) for argument in arguments))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == status and "Traceback" not in errors


# -- the sources by themselves -------------------------------------------------------------------


def drained(source) -> tuple[list[bytes], object]:
    """Return all lines that a source has now, and the position after them."""
    lines, position, num_quiet = [], None, 0
    for some, after in source:
        num_quiet = 0 if after is not None else num_quiet + 1
        lines, position = lines + some, after or position
        if num_quiet > 2 * sources.SETTLED_LOOKS + 2:
            return lines, position


def tail(path, position=None):
    return drained(sources.Tail(str(path), json.loads(json.dumps(position))))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log"


def test_an_absent_or_empty_file_has_no_lines(path):
    assert tail(path) == ([], None)
    path.write_bytes(b"")
    assert tail(path) == ([], None)


def test_a_line_counts_when_its_newline_is_there(path):
    """A partial last line waits, whatever its encoding; blank lines are none."""
    path.write_bytes("a\n\n  \nñ".encode()[:-1])
    lines, position = tail(path)
    assert lines == [b"a"] and position["offset"] == 6
    path.write_bytes("a\n\n  \nñ\nb\r\n".encode())
    assert tail(path, position)[0] == ["ñ".encode(), b"b"]


def test_a_line_too_long_is_cut(path, monkeypatch):
    """A line beyond the limit comes in pieces, which are no records, and reading goes on behind it."""
    monkeypatch.setattr(sources, "CHUNK_NBYTES", 16)
    path.write_bytes(b"x" * 40 + b"\nshort\n")
    assert tail(path)[0] == [b"x" * 16, b"x" * 16, b"x" * 8, b"short"]


def test_rotations_while_nobody_read(path):
    """Three rotations later the rest of the file, the two after it and the new one come in order; the last need no
    newline.
    """
    path.write_bytes(b"1\n2\n")
    _, position = tail(path)
    with open(path, "ab") as file:
        file.write(b"3\n4")
    for number, content in enumerate([b"5\n", b"6\n7\n", b"8\n"]):
        for older in range(number, 0, -1):
            path.with_name(f"log.{older}").rename(path.with_name(f"log.{older + 1}"))
        path.rename(path.with_name("log.1"))
        path.with_name("log.0.gz").write_bytes(b"compressed")
        time.sleep(0.01)
        path.write_bytes(content)
    lines, after = tail(path, position)
    assert lines == [b"3", b"4", b"5", b"6", b"7", b"8"] and tail(path, after)[0] == []


def test_copied_and_cut(path):
    """A file that was copied and then cut to nothing goes on in its copy, and then in itself."""
    path.write_bytes(b"1\n2\n")
    _, position = tail(path)
    with open(path, "ab") as file:
        file.write(b"3\n")
    shutil.copy(path, path.with_name("log.1"))
    time.sleep(0.01)
    path.write_bytes(b"4\n")
    assert tail(path, position)[0] == [b"3", b"4"]


def test_a_file_that_is_gone_is_said_to_be_lost(path, capsys):
    """Where the file that was read is nowhere, a warning says so; what was read before does not come again."""
    path.with_name("log.1").write_bytes(b"old\n")
    time.sleep(0.01)
    path.write_bytes(b"1\n2\n")
    _, position = tail(path)
    path.unlink()
    time.sleep(0.01)
    path.write_bytes(b"other\n")
    assert tail(path, position)[0] == [b"other"] and "is lost" in capsys.readouterr().err


def test_a_late_file_is_left_out_with_a_warning(tmp_path, capsys):
    """Files come by name; one that sorts before what was read already, or is hidden, is not read."""
    for name in ("b", ".hidden"):
        (tmp_path / name).write_bytes(b"1\n")
    source = iter(sources.Folder(str(tmp_path), None))
    assert next(source) == ([b"1"], {"file": "b", "offset": 2}) and next(source) == sources.NOTHING
    (tmp_path / "a").write_bytes(b"late\n")
    (tmp_path / "c").write_bytes(b"2")
    assert next(source) == ([b"2"], {"file": "c", "offset": 1})
    assert "a is left out" in capsys.readouterr().err
    again = iter(sources.Folder(str(tmp_path), {"file": "b", "offset": 0}))
    assert next(again)[0] == [b"1"] and next(again)[0] == [b"2"]

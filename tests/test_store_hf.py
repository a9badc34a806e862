"""Datasets and shards on the Hugging Face Hub, ``hf://datasets/<owner>/<name>/...``, read from a server on loopback that speaks the Hub's API."""

from __future__ import annotations

import functools
import http.server
import json
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

import shardstream as ss
from shardstream.verify import verify
from tests.web_server import serving

pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
SCHEMA = ss.Schema(x=ss.Sparse(1000), text=ss.Text(), y=ss.Dense("int64"))
QUICK = ss.ReadPolicy(retry=ss.RetryPolicy(max_attempts=2, first_delay_s=0.01))
API, FILES = "/api/datasets/me/rows/", "/datasets/me/rows/resolve/main/"


class Hub(http.server.BaseHTTPRequestHandler):
    """A folder as the one repository ``me/rows``: what is there, listings, and files with ranges."""

    protocol_version = "HTTP/1.1"
    asked: list[tuple[str, str]]

    def __init__(self, *arguments, folder: Path):
        self.folder = folder
        super().__init__(*arguments)

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        path = urlsplit(self.path).path
        self.asked.append((path, self.headers.get("Range", "")))
        if path in (API.rstrip("/"), f"{API}revision/main"):
            return self.answer(200, {"id": "me/rows", "sha": "0" * 40})
        if path.startswith(f"{API}tree/main"):
            place = self.folder / path.removeprefix(f"{API}tree/main").strip("/")
            return self.answer(200, [self.entry(each) for each in sorted(place.iterdir())]) if place.is_dir() else self.absent()
        file = self.folder / path.removeprefix(FILES)
        if not path.startswith(FILES) or not file.is_file():
            return self.absent()
        data = file.read_bytes()
        if "Range" not in self.headers:
            return self.answer(200, data)
        begin, _, end = self.headers["Range"].removeprefix("bytes=").partition("-")
        part = data[int(begin) : int(end) + 1 if end else None]
        self.answer(206, part, **{"Content-Range": f"bytes {begin}-{int(begin) + len(part) - 1}/{len(data)}"})

    do_HEAD = do_GET

    def do_POST(self):  # paths-info
        asked = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())["paths"]
        self.answer(200, [self.entry(self.folder / path) for path in asked if (self.folder / path).exists()])

    def entry(self, path: Path) -> dict:
        name = {"path": str(path.relative_to(self.folder)), "oid": "0" * 40}
        return {"type": "directory", **name} if path.is_dir() else {"type": "file", "size": path.stat().st_size, **name}

    def absent(self) -> None:
        self.answer(404, {"error": "Entry not found"}, **{"X-Error-Code": "EntryNotFound"})

    def answer(self, status: int, body: object, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


@pytest.fixture
def hub(tmp_path):
    """A dataset of 900 rows in the folder ``data`` of the repository; the handler, and storage options that lead to it."""
    with ss.ShardWriter(str(tmp_path / "data"), schema=SCHEMA, shard_nbytes="4kB") as writer:
        numbers = np.arange(900)
        writer.write_batch({"x": (numbers, np.arange(901)), "text": [f"row {number}" for number in numbers], "y": numbers})
    handler = type("Handler", (Hub,), {"asked": []})
    with serving(functools.partial(handler, folder=tmp_path)) as url:
        yield handler, {"endpoint": url, "token": False}


@pytest.mark.parametrize("place", ["data", "data/*.tar"])
def test_rows_on_the_hub_are_read_once_each(hub, place):
    """A dataset by its log, and shards by a pattern: shuffled, resumed, verified; blocks by ranges, not whole shards."""
    handler, options = hub
    url = f"hf://datasets/me/rows/{place}"
    stream = ss.ShardStream(url, batch_size=90, shuffle=True, storage_options=options, read=QUICK)
    batches = iter(stream)
    seen = [next(batches) for _ in range(4)]
    again = ss.ShardStream(url, batch_size=90, shuffle=True, storage_options=options, read=QUICK)
    again.load_state_dict(stream.state_dict())
    seen += list(again)
    numbers = [int(number) for batch in seen for number in batch["y"]]
    assert sorted(numbers) == list(range(900)) != numbers
    assert [text for batch in seen for text in batch["text"]] == [f"row {number}" for number in numbers]
    assert verify(url, storage_options=options).num_bad == 0
    assert all(asked for path, asked in handler.asked if path.endswith(".tar"))


def test_what_is_not_on_the_hub_is_said_so(hub):
    _, options = hub
    for place in ("data-typo", "data/x-*.tar", "data/none.tar"):
        with pytest.raises((ss.DatasetNotFoundError, ss.ShardNotFoundError)):
            list(ss.ShardStream(f"hf://datasets/me/rows/{place}", storage_options=options, read=QUICK))

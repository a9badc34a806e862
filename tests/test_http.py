"""Plain web servers as a source of files and shards: what they refuse, lose or do not say is told as what it is."""

import http.server

import pytest

import shardstream as ss
from shardstream.config import RetryPolicy
from shardstream.errors import ShardNotFoundError, StorageError, StorageRefused
from shardstream.storage import Fetcher, find
from tests.web_server import serving

QUICK = RetryPolicy(first_delay_s=0.001, max_delay_s=0.01, deadline_s=10.0, max_attempts=3)
LINES = b"".join(b'{"y": %d}\n' % y for y in range(50))


class Handler(http.server.BaseHTTPRequestHandler):
    """LINES under any path; ``faults`` are answered first, one a request: a status, "drop" (no answer) or "unsized"."""

    protocol_version = "HTTP/1.1"
    faults: list = []
    honours_ranges = True

    def log_message(self, *arguments):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        fault = self.faults.pop(0) if self.faults else None
        if fault == "drop":
            self.close_connection = True
            return
        begin, end = 0, len(LINES)
        if self.headers.get("Range") and self.honours_ranges:
            begin, end = (int(bound) for bound in self.headers["Range"].removeprefix("bytes=").split("-"))
            end = min(end + 1, len(LINES))
        body = LINES[begin:end] if fault in (None, "unsized") else b""
        self.send_response(200 if fault in (None, "unsized") else fault)
        if fault == "unsized":
            self.close_connection = True
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@pytest.fixture
def web(monkeypatch):
    """A handler to set faults of, and the server's URL."""
    monkeypatch.setattr(find, "DEFAULT_RETRY", QUICK)
    handler = type("Handler", (Handler,), {"faults": []})
    with serving(handler) as url:
        yield handler, url


@pytest.mark.parametrize("faults, expected", [
    ([], None),
    (["drop"] * 4, None),  # aiohttp itself sends each of HEAD and GET once more
    ([503, 503], None),
    ([404, 404], ShardNotFoundError),
    ([410, 410], ShardNotFoundError),
    ([401, 401], StorageRefused),
    ([403, 403], StorageRefused),
    ([503] * 6, StorageError),
    (["unsized", "unsized"], StorageRefused),
])  # fmt: skip
def test_only_what_is_absent_is_called_missing(web, faults, expected):
    """Of HEAD and GET, fsspec makes a missing file of any failure; a lost connection is tried again, a refusal is told.
    """
    handler, url = web
    handler.faults[:] = faults
    if expected is None:
        assert Fetcher(None, QUICK).identify(f"{url}/s.tar")[0] == len(LINES)
    else:
        with pytest.raises((StorageError, ShardNotFoundError)) as caught:
            Fetcher(None, QUICK).identify(f"{url}/s.tar")
        assert type(caught.value) is expected
    assert handler.faults == []


def config(url, out):
    return {"source": {"kind": "jsonl", "paths": url}, "fields": {"y": {"kind": "dense", "dtype": "int64"}},
            "output": {"url": str(out)}}  # fmt: skip


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl?signature=secret[1]"])
def test_files_are_packed_from_a_web_server(web, tmp_path, name):
    """A URL is that of a file, also with a query; its rows are all there, and messages and keys leave the query out."""
    report = ss.pack(config(f"{web[1]}/{name}", tmp_path / "out"), progress=False)
    assert (report.datasets[0].num_samples, report.num_rejected) == (50, 0)
    bad = config(f"{web[1]}/{name}", tmp_path / "bad") | {"fields": {"y": {"kind": "dense", "dtype": "int64", "from": "z"}}}
    with pytest.raises(ss.SampleError, match=r"line 1 of http://[^?]*/a\.jsonl: ") as caught:
        ss.pack(bad, progress=False)
    assert "secret" not in str(caught.value)


def test_a_source_that_is_refused_is_not_called_absent(web, tmp_path):
    """403 is permission denied; 404 is a mistake in the configuration, which says that a folder can't be listed."""
    handler, url = web
    handler.faults[:] = [403, 403]
    with pytest.raises(StorageRefused, match="permission denied"):
        ss.pack(config(f"{url}/a.jsonl", tmp_path / "out"), progress=False)
    handler.faults[:] = [404, 404]
    with pytest.raises(ss.ConfigError, match="nothing at .*no listing: name each file"):
        ss.pack(config(f"{url}/*.jsonl", tmp_path / "out"), progress=False)


def test_a_server_without_ranges_loses_no_row_in_silence(web, tmp_path):
    """A reply of another length than was asked for is an error."""
    handler, url = web
    found = find.FoundFile(f"{url}/a.jsonl", "a.jsonl", len(LINES) - 8)
    handler.honours_ranges = False
    with pytest.raises(StorageError, match="ignores ranges"):
        find.open_file(found).read()

"""Credentials go to the store and nowhere else: not to logs, errors, tracebacks, states, pickles, shards, entries or
cached files.
"""

import contextlib
import functools
import http.server
import json
import logging
import pickle
import traceback

import numpy as np
import pytest

import shardstream as ss
from shardstream.adopt import adopt
from shardstream.cli import main
from shardstream.errors import scrubbed
from shardstream.export import export
from shardstream.storage import Store, ranges
from tests import tiny_s3
from tests.web_server import serving

SECRETS = ("sEcReT-kEy-4711", "tOkEn-0815-of-a-session")
QUICK = ss.RetryPolicy(max_attempts=2, first_delay_s=0.01)


class Refusing(tiny_s3.TinyS3):
    """Answers reads of shards with an error that repeats the request's headers, as some proxies do."""

    status = 0

    def do_GET(self):
        if self.status and self.path.partition("?")[0].endswith(".tar"):
            return self.answer(self.status, f"<Error><Code>Oops</Code><Message>{self.headers}</Message></Error>".encode())
        super().do_GET()

    do_HEAD = do_GET


@pytest.mark.parametrize("client", ["s3fs", "obstore"])
def test_credentials_stay_out_of_everything(client, monkeypatch, caplog, tmp_path, plain_pickles):
    """A life of writing, reading, caching, failing and pickling leaves no secret behind, whichever client reads."""
    if client == "s3fs":
        monkeypatch.setattr(ranges, "obstore_is_installed", lambda: False)
    monkeypatch.setattr(ranges, "_obstore_clients", {})
    monkeypatch.setattr(tiny_s3, "TinyS3", Refusing)
    caplog.set_level(logging.DEBUG, "shardstream")
    seen: list[bytes] = []
    with tiny_s3.running() as (server, options):
        options.update(secret=SECRETS[0], token=SECRETS[1])
        url = "s3://bucket/data"
        with ss.ShardWriter(url, schema=ss.Schema(y=ss.Dense("int64")), storage_options=options,
                            producer="p") as writer:  # fmt: skip
            writer.write_batch({"y": np.arange(100)}, source={"offset": 100})
        stream = ss.ShardStream(url, batch_size=10, shuffle=True, storage_options=options, cache_dir=tmp_path / "cache",
                                read=ss.ReadPolicy(retry=QUICK))  # fmt: skip
        assert sum(len(batch["y"]) for batch in stream) == 100
        for place in (stream, ss.StreamLoader(stream), ss.Dataset(url, storage_options=options), Store(url, options)):
            seen += [pickle.dumps(place) if not isinstance(place, ss.StreamLoader) else b"", repr(place).encode()]
        seen += [json.dumps(stream.state_dict()).encode(), repr(stream.report).encode(), *server.objects.values(),
                 *(name.encode() for name in server.objects), *(path.read_bytes() for path in (tmp_path / "cache").iterdir())]  # fmt: skip
        for status in (403, 500, 404):
            server.status = status
            with pytest.raises(ss.ShardstreamError) as caught:
                list(ss.ShardStream(url, batch_size=10, storage_options=options, read=ss.ReadPolicy(retry=QUICK)))
            seen += ["".join(traceback.format_exception(caught.value)).encode(), repr(caught.value).encode(),
                     pickle.dumps(caught.value)]  # fmt: skip
    seen += [record.getMessage().encode() for record in caplog.records]
    assert len(seen) > 15
    for text in seen:
        assert not any(secret.encode() in text for secret in SECRETS)


class Lent(http.server.SimpleHTTPRequestHandler):
    """Files of a folder; ``status`` is what is answered to who asks for a shard."""

    status = 0

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        path = self.translate_path(self.path)
        if self.status and path.endswith(".tar"):
            return self.send_error(self.status)
        try:
            with open(path, "rb") as file:
                data = file.read()
        except OSError:
            return self.send_error(404)
        begin, _, end = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        part = data[int(begin) : int(end) + 1 if end else None]
        self.send_response(206)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Content-Range", f"bytes {begin}-{int(begin) + len(part) - 1}/{len(data)}")
        self.end_headers()
        self.wfile.write(part)


@pytest.fixture
def lent(tmp_path):
    """A dataset on a web server, and the server's handler and address."""
    with ss.ShardWriter(str(tmp_path / "data"), schema=ss.Schema(y=ss.Dense("int64"))) as writer:
        writer.write_batch({"y": np.arange(100)})
    handler = type("Handler", (Lent,), {})
    with serving(functools.partial(handler, directory=str(tmp_path))) as url:
        yield handler, url.removeprefix("http://")


def test_credentials_in_urls_stay_out_of_messages(lent, caplog, capfd, tmp_path):
    """A password or a signature in a URL opens what it should, and is in no text, error, log or command's output."""
    handler, address = lent
    base = f"http://{SECRETS[0]}:p@{SECRETS[1]}@{address}/data"
    caplog.set_level(logging.DEBUG, "shardstream")
    read = ss.ReadPolicy(retry=QUICK)
    assert sum(len(batch["y"]) for batch in ss.ShardStream(base, batch_size=10)) == 100
    shard = ss.Dataset(base).shards[0]
    signed = f"{shard}?X-Amz-Signature={SECRETS[0]}&x={SECRETS[1]}"
    seen = [repr(ss.Dataset(base)), repr(ss.ShardDataset(signed)), repr(Store(base))]

    def fails(call) -> None:
        with pytest.raises(ss.ShardstreamError) as caught:
            call()
        seen.extend([str(caught.value), repr(caught.value), *map(str, vars(caught.value).values()),
                     "".join(traceback.format_exception(caught.value))])  # fmt: skip

    for wrong in (f"{base}-not-there", f"{base}/x.tar?sig={SECRETS[0]}", [f"{base}/x.tar?sig={SECRETS[0]}"]):
        fails(lambda wrong=wrong: list(ss.ShardStream(wrong, read=read)))
    for options in ({"version": 7}, {"version": "no-tag"}, {"follow": True, "version": 3}, {"fields": ["z"]}):
        fails(lambda options=options: list(ss.ShardStream(base, read=read, **options)))
    for status in (403, 404, 500, 401, 416):
        handler.status = status
        fails(lambda: list(ss.ShardStream(base, read=read)))
        fails(lambda: list(ss.ShardStream([signed], read=read)))
    fails(lambda: ss.ShardWriter(base, schema=ss.Schema(z=ss.Dense("int64"))))
    handler.status = 0
    [path] = (tmp_path / "data").glob("*.tar")
    whole = path.read_bytes()
    path.write_bytes(whole.replace(np.arange(5).tobytes(), bytes(40)))  # an error that learns later which shard it is of
    for urls in (base, [signed]):
        fails(lambda urls=urls: list(ss.ShardStream(urls, read=read)))
        skipping = ss.ShardStream(urls, on_error="skip", read=ss.ReadPolicy(retry=QUICK, max_skipped=100))
        assert not list(skipping) and len(skipping.report.errors) == 1
        seen += skipping.report.errors
    fails(lambda: export(base, str(tmp_path / "%d.tar")))
    path.write_bytes(whole)
    for arguments in (["ls", base], ["verify", base], ["gc", base], ["tag", base, "t"], ["ls", f"{base}x"], ["ls", base, "--json", "--shards"],
                      ["ls", base, "--shards"], ["index", signed, "--json"], ["convert", base, str(tmp_path / "mapped"), "--json"]):  # fmt: skip
        with contextlib.suppress(SystemExit):
            main(arguments)
        seen += capfd.readouterr()
    seen += [record.getMessage() for record in caplog.records]
    for text in seen:
        assert not any(secret in text for secret in SECRETS), text


@pytest.mark.parametrize("unit", ["a", "x://", "x-amz-key", "x-amz-", "://u@", "authorization ", " ://a?b"])
def test_long_messages_are_scrubbed_too(unit):
    """Data in a transform's error may be long: quadratic in it, the time would be minutes (pytest-timeout ends it)."""
    text = scrubbed(f"{unit * (200_000 // len(unit))} {unit} s3://me:{SECRETS[0]}@bucket/x?sig={SECRETS[1]} x-amz-key: {SECRETS[0]}")
    assert text.endswith(" s3://bucket/x x-amz-key: ...")


def test_urls_with_credentials_are_not_put_into_a_log(lent, tmp_path):
    """To adopt a shard by a URL that has a password or a signature in it is refused; by any other query it is not."""
    _, address = lent
    shard = ss.Dataset(f"http://{address}/data").shards[0]
    for bad in (f"{shard}?X-Amz-Signature={SECRETS[0]}", f"{shard}?sv=1&sig={SECRETS[0]}", f"{shard}?token={SECRETS[0]}",
                shard.replace("http://", f"http://me:{SECRETS[0]}@")):  # fmt: skip
        with pytest.raises(ss.ConfigError, match="credentials in it") as caught:
            adopt([shard, bad], str(tmp_path / "adopted"))
        assert SECRETS[0] not in str(caught.value) and not (tmp_path / "adopted").exists()
    assert adopt([f"{shard}?download=true"], str(tmp_path / "adopted")).num_new == 1

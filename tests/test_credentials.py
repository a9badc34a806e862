"""Credentials go to the store and nowhere else: not to logs, errors, tracebacks, states, pickles, shards, entries or cached files."""

import json
import logging
import pickle
import traceback

import numpy as np
import pytest

import shardstream as ss
from shardstream.storage import Store, ranges
from tests import tiny_s3

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
        with ss.ShardWriter(url, schema=ss.Schema(y=ss.Dense("int64")), storage_options=options, producer="p") as writer:
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
            seen += ["".join(traceback.format_exception(caught.value)).encode(), repr(caught.value).encode(), pickle.dumps(caught.value)]
    seen += [record.getMessage().encode() for record in caplog.records]
    assert len(seen) > 15
    for text in seen:
        assert not any(secret.encode() in text for secret in SECRETS)

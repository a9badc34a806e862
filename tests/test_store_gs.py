"""Google's storage by gcsfs, at an emulator on loopback: the contract of ``store_suite``, and a dataset's life there.

The emulator takes no notice of ``ifGenerationMatch=0``, by which Google's storage creates an object only if it is absent, so the handler
here does; without it a writer must refuse the place.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import io
import json
import logging
import sys
import threading
import uuid
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

import shardstream as ss
from shardstream.errors import StorageRefused
from shardstream.storage import Store
from shardstream.upkeep import compact, gc
from shardstream.verify import verify
from tests.store_suite import StoreSuite

server = pytest.importorskip("gcp_storage_emulator.server", reason="gcp-storage-emulator is not installed")
NotFound = pytest.importorskip("gcp_storage_emulator.exceptions").NotFound
SCHEMA = ss.Schema(x=ss.Sparse(1000), text=ss.Text(), y=ss.Dense("int64"))


class Quiet(http.server.HTTPServer):
    def handle_error(self, request, client_address):
        """Print nothing of a client that went away, as one that times out does."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Conditional(server.RequestHandler):
    """Answers 412 to an upload that must not replace anything, where something stands."""

    is_conditional = True

    def do_POST(self):
        if self.is_conditional and parse_qs(urlsplit(self.path).query).get("ifGenerationMatch") == ["0"]:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.rfile = io.BytesIO(body)
            name = json.JSONDecoder().raw_decode(body[body.index(b"{") :].decode("latin-1"))[0]["name"]
            with contextlib.suppress(NotFound):
                self.storage.get_file_obj("bucket", name)
                self.send_error(412)
                return
        super().do_POST()


@pytest.fixture(scope="module")
def emulator():
    """The emulator, and storage options that lead to it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # which asks Google by gRPC what kind of bucket it is
        pytest.importorskip("gcsfs", reason="gcsfs is not installed")
    logging.getLogger("gcp_storage_emulator").setLevel(logging.CRITICAL)
    storage = server.Server("127.0.0.1", 0, in_memory=True, default_bucket="bucket")._storage
    handler = type("Handler", (Conditional,), {})
    httpd = Quiet(("127.0.0.1", 0), functools.partial(handler, storage))  # one request at a time
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield handler, {"endpoint_url": f"http://127.0.0.1:{httpd.server_address[1]}", "token": "anon"}
    httpd.shutdown()
    httpd.server_close()
    thread.join()


class TestGoogleStore(StoreSuite):
    @pytest.fixture
    def store(self, emulator):
        return Store(f"gs://bucket/{uuid.uuid4()}", emulator[1])


def rows(begin: int, end: int) -> dict:
    numbers = np.arange(begin, end)
    return {"x": (numbers % 1000, np.arange(len(numbers) + 1)), "text": [f"row {number}" for number in numbers], "y": numbers}


def test_a_dataset_lives_in_google_storage(emulator):
    """Written by a producer, read shuffled and resumed, verified, compacted, collected: every row once all along."""
    url, options = f"gs://bucket/{uuid.uuid4()}", emulator[1]
    for begin in range(0, 900, 300):
        with ss.ShardWriter(url, schema=SCHEMA, producer="p", shard_nbytes="4kB", storage_options=options) as writer:
            assert writer.last_source == (None if begin == 0 else {"end": begin})
            writer.write_batch(rows(begin, begin + 300), source={"end": begin + 300})
    stream = ss.ShardStream(url, batch_size=90, shuffle=True, storage_options=options)
    batches = iter(stream)
    seen = [next(batches) for _ in range(4)]
    again = ss.ShardStream(url, batch_size=90, shuffle=True, storage_options=options)
    again.load_state_dict(stream.state_dict())
    seen += list(again)
    numbers = [int(number) for batch in seen for number in batch["y"]]
    assert sorted(numbers) == list(range(900)) != numbers
    assert [text for batch in seen for text in batch["text"]] == [f"row {number}" for number in numbers]
    before = len(ss.Dataset(url, storage_options=options).shards)
    compact(url, storage_options=options)
    dataset = ss.Dataset(url, storage_options=options)
    assert len(dataset.shards) < before and dataset.num_samples == 900
    assert verify(url, storage_options=options).num_bad == 0
    Store(url, options).put_bytes(f"{uuid.uuid4()}.tar", b"nobody's, but young")
    assert gc(url, storage_options=options).num_shards == 0
    assert sorted(int(n) for batch in ss.ShardStream(dataset.shards, batch_size=90, storage_options=options) for n in batch["y"]) == list(range(900))


def test_a_store_without_conditions_is_refused(emulator, monkeypatch):
    """As the emulator is by itself; with ``single_writer=True`` it serves."""
    handler, options = emulator
    monkeypatch.setattr(handler, "is_conditional", False)
    url = f"gs://bucket/{uuid.uuid4()}"
    with pytest.raises(StorageRefused, match="ignores conditional PUTs"):
        with ss.ShardWriter(url, schema=SCHEMA, storage_options=options) as writer:
            writer.write_batch(rows(0, 10))
    with ss.ShardWriter(f"{url}-alone", schema=SCHEMA, storage_options=options, single_writer=True) as writer:
        writer.write_batch(rows(0, 10))
    assert len(ss.Dataset(f"{url}-alone", storage_options=options)) == 10

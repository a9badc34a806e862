"""A small S3 server in this process, that can be wrong in the ways in which lesser stores are.

It keeps objects in a dict and knows GET with ranges, HEAD, PUT, DELETE; it looks at no signature.

===================  ===========================================================
``conditional``      honours ``If-None-Match: *``
``takes_checksums``  accepts ``x-amz-checksum-...`` headers, and checks CRC-32C
===================  ===========================================================
"""

from __future__ import annotations

import base64
import http.server
from collections.abc import Iterator
from contextlib import contextmanager

from shardstream._native.crc32c import crc32c
from tests.web_server import serving


class TinyS3(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    conditional = True
    takes_checksums = True
    objects: dict[str, bytes]
    checksums: list[str]

    def log_message(self, *arguments):
        pass

    def do_PUT(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        given = self.headers.get("x-amz-checksum-crc32c")
        if given is not None and not self.takes_checksums:
            return self.fail(501, "NotImplemented")
        if given is not None and base64.b64decode(given) != crc32c(body).to_bytes(4, "big"):
            return self.fail(400, "BadDigest")
        if self.conditional and self.headers.get("If-None-Match") == "*" and self.path in self.objects:
            return self.fail(412, "PreconditionFailed")
        self.checksums += [given] if given is not None else []
        self.objects[self.path.partition("?")[0]] = body
        self.answer(200, b"")

    def do_GET(self):
        data = self.objects.get(self.path.partition("?")[0])
        if data is None:
            return self.fail(404, "NoSuchKey")
        if "Range" not in self.headers:
            return self.answer(200, data)
        head, _, tail = self.headers["Range"].removeprefix("bytes=").partition("-")
        if int(head) >= len(data):
            return self.fail(416, "InvalidRange")
        part = data[int(head) : int(tail) + 1 if tail else None]
        self.answer(206, part, ("Content-Range", f"bytes {head}-{int(head) + len(part) - 1}/{len(data)}"))

    do_HEAD = do_GET

    def do_DELETE(self):
        self.objects.pop(self.path, None)
        self.answer(204, b"")

    def fail(self, status: int, code: str) -> None:
        self.answer(status, f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>tiny</Message></Error>".encode())

    def answer(self, status: int, body: bytes, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in (("ETag", '"x"'), ("Last-Modified", "Fri, 27 Nov 2026 12:00:00 GMT"), *headers):
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def running(**settings) -> Iterator[tuple[type[TinyS3], dict]]:
    """Yield the server's handler class, with its ``objects``, and the storage options that lead to it."""
    handler = type("Handler", (TinyS3,), {"objects": {}, "checksums": [], **settings})
    with serving(handler) as url:
        yield handler, {"endpoint_url": url, "key": "tiny", "secret": "tiny-secret"}

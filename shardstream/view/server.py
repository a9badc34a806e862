"""The server of the pages: on loopback, read-only, behind a token that is part of every link (``Server``)."""

from __future__ import annotations

import secrets
import threading
from functools import cached_property  # noqa: TID251  (not forked, and what it computes reads data)
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from shardstream.errors import ShardstreamError
from shardstream.log import Log
from shardstream.look import Looker, to_png
from shardstream.packing import class_names
from shardstream.storage import Store
from shardstream.storage.urls import redact
from shardstream.view import pages
from shardstream.view.stats import Stats, field_stats

HEADERS = {
    # Nothing runs and nothing is fetched from elsewhere, whatever a text in the dataset says.
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # the token is in the address
    "Cache-Control": "no-store",
}


class Server:
    """Serves one dataset to this machine's browsers until closed.

    Args:
        url, version, storage_options: As of :class:`Looker`.
        port: On 127.0.0.1; 0 takes a free one.

    Attributes:
        link: What to open; it holds the token.
    """

    def __init__(self, url: str, version: int | str | None = None, port: int = 0, storage_options: dict | None = None):
        self._looker = Looker(url, version, storage_options=storage_options)
        is_dataset = self._looker.source.version is not None
        log = Log(Store(url, storage_options)) if is_dataset else None
        classes = class_names(url, storage_options) if is_dataset else {}
        self._token = secrets.token_urlsafe(18)
        self._context = pages.Context(f"/{self._token}", redact(str(url)), self._looker, log, classes)
        self._lock = threading.Lock()  # of the looker; a browser asks for many images at once
        self._server = ThreadingHTTPServer(("127.0.0.1", port), type("Handler", (_Handler,), {"site": self}))
        self._server.daemon_threads = True
        self._hosts = {f"{host}:{self._server.server_port}" for host in ("127.0.0.1", "localhost")}
        self.link = f"http://127.0.0.1:{self._server.server_port}/{self._token}/"

    def serve(self) -> None:
        """Answer requests until :meth:`close` is called from another thread, or Ctrl-C."""
        self._server.serve_forever(poll_interval=0.2)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    @cached_property
    def _stats(self) -> Stats:
        return field_stats(self._looker, self._context.classes)

    def answer(self, host: str | None, path: str) -> tuple[int, str, bytes]:
        """Return the status, content type and body for a path."""
        parts = path.split("?", 1)[0].split("/")[1:]
        # A page elsewhere may make a browser ask us by a name of its own that leads here: DNS rebinding.
        if host not in self._hosts or not parts or not secrets.compare_digest(parts[0].encode(), self._token.encode()):
            return 403, "text/plain; charset=utf-8", b"This needs the whole link that `shardstream view` printed.\n"
        try:
            with self._lock:
                match parts[1:]:
                    case [""]:
                        return 200, "text/html; charset=utf-8", _encoded(pages.overview(self._context, self._stats))
                    case ["samples", number] if number.isdecimal() and len(number) < 16:
                        return 200, "text/html; charset=utf-8", _encoded(pages.sample_page(self._context, int(number)))
                    case ["image", row, place] if row.isdecimal() and place.isdecimal() and len(row) < 16 and len(place) < 6:
                        values = list(self._looker.sample(int(row)).fields.values())
                        if int(place) < len(values):
                            return 200, "image/png", to_png(values[int(place)])
        except (ShardstreamError, OSError) as error:
            return 500, "text/html; charset=utf-8", _encoded(pages.error_page(self._context, str(error)))
        return 404, "text/html; charset=utf-8", pages.error_page(self._context, "There is no such page.").encode()


def _encoded(page: str) -> bytes:
    """Return a page as UTF-8; JSON can hold halves of surrogate pairs, which are shown as escapes."""
    return page.encode("utf-8", "backslashreplace")


class _Handler(BaseHTTPRequestHandler):
    """GET and HEAD; any other method is 501."""

    site: Server
    timeout = 30

    def do_GET(self) -> None:
        status, kind, body = self.site.answer(self.headers.get("Host"), self.path)
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Type": kind, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            try:
                self.wfile.write(body)
            except (BrokenPipeError, ConnectionResetError):
                pass  # the browser has gone on to another page

    do_HEAD = do_GET

    def log_message(self, *arguments) -> None:
        """Say nothing: addresses hold the token."""

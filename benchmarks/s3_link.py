"""A link as long as one to S3: a proxy that adds 30 ms to the first byte and sends 90 MB/s a connection.

    python benchmarks/s3_link.py UPSTREAM_PORT        prints its own port, serves until its input ends

What was asked for once is kept and sent from memory, so that the link is measured and not the server behind it.
One thread a connection, which sleeps most of the time; standard library only.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

FIRST_BYTE_S, NBYTES_PER_S = 0.030, 90e6
TICK_S = 0.01  # a connection sends a tick's bytes at a time
MAX_HEAD_NBYTES = 1 << 16


class Link:
    def __init__(self, upstream_port: int):
        self._upstream_port = upstream_port
        self._kept: dict[tuple[bytes, bytes], bytes] = {}  # (path without query, Range) -> the whole answer
        self._filling: dict[tuple[bytes, bytes], threading.Lock] = {}

    def serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):  # clients come and go
            self._serve(connection)

    def _serve(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        waiting = b""
        with connection:
            while True:
                while b"\r\n\r\n" not in waiting:
                    piece = connection.recv(MAX_HEAD_NBYTES)
                    if not piece:
                        return
                    waiting += piece
                head, _, waiting = waiting.partition(b"\r\n\r\n")
                due = time.monotonic() + FIRST_BYTE_S
                answer = self._answer(head)
                time.sleep(max(0.0, due - time.monotonic()))
                send(connection, answer)

    def _answer(self, head: bytes) -> bytes:
        line, *headers = head.split(b"\r\n")
        method, target, _ = line.split(b" ", 2)
        ranges = next((header for header in headers if header.lower().startswith(b"range:")), b"")
        key = method + b" " + target.partition(b"?")[0], ranges.partition(b":")[2].strip()
        with self._filling.setdefault(key, threading.Lock()):
            if key not in self._kept:
                self._kept[key] = self._asked(method, target, headers)
        return self._kept[key]

    def _asked(self, method: bytes, target: bytes, headers: list[bytes]) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self._upstream_port)
        try:
            connection.putrequest(method.decode(), target.decode(), skip_host=True, skip_accept_encoding=True)
            for header in headers:
                name, _, value = header.partition(b":")
                connection.putheader(name.decode(), value.strip().decode())
            connection.endheaders()
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        kept = [(name, value) for name, value in answer.getheaders()
                if name.lower() not in ("transfer-encoding", "content-length", "connection")]  # fmt: skip
        length = answer.getheader("content-length") if method == b"HEAD" else len(body)
        lines = [f"HTTP/1.1 {answer.status} {answer.reason}", f"Content-Length: {length}",
                 *(f"{name}: {value}" for name, value in kept)]  # fmt: skip
        return "\r\n".join([*lines, "", ""]).encode() + body


def send(connection: socket.socket, data: bytes) -> None:
    """Send at the link's rate, and never faster afterwards to make up for a pause."""
    view, step, sent, began = memoryview(data), int(NBYTES_PER_S * TICK_S), 0, time.monotonic()
    while sent < len(view):
        connection.sendall(view[sent : sent + step])
        sent += step
        pause = sent / NBYTES_PER_S - (time.monotonic() - began)
        if pause > 0:
            time.sleep(pause)


class RunningLink:
    """The proxy in a process of its own: ``url``, ``close()``."""

    def __init__(self, upstream_url: str):
        port = upstream_url.rstrip("/").rpartition(":")[2]
        self._process = subprocess.Popen([sys.executable, str(Path(__file__)), port], stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, text=True)  # fmt: skip
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}"

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(timeout=10)
        self._process.stdout.close()


def main(upstream_port: int) -> None:
    link, server = Link(upstream_port), socket.create_server(("127.0.0.1", 0), backlog=128)
    print(server.getsockname()[1], flush=True)
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    while True:
        threading.Thread(target=link.serve, args=(server.accept()[0],), daemon=True).start()


if __name__ == "__main__":
    main(int(sys.argv[1]))

#!/usr/bin/env python3
"""A proxy on loopback between an S3 client and a server, that counts, delays and spoils what passes.

    python tests/fault_proxy.py UPSTREAM_PORT        prints its own port, serves until its input ends

One HTTP/1.1 request after another on each connection, bodies by Content-Length (what S3 clients send);
answers are buffered whole. Which request suffers what is drawn from a seeded generator, in the order of arrival.
With ``quiet_s`` requests wait until none has come for that long, and then go on together: such a *round* is what waits
for no answer of another, so ``stats()["rounds"]`` is how many round trips a client needs, however fast the machine is.
``PUT /__proxy__/down/SECONDS`` drops all connections and refuses new ones for so long, as a server that is started
again. ``GET /__proxy__/stats`` answers what was counted; ``PUT /__proxy__/plan`` takes a :class:`Plan` as JSON.
Standard library only.

================  ===============================================================================
fault             what the client sees
================  ===============================================================================
``reset``         the connection is closed before the request reaches the server
``lost``          the request is carried out, then the connection is closed without an answer
``500`` ``503``   an S3 error of that status; the request is not carried out
``409``           the same, "ConditionalRequestConflict"
``expired``       400 ExpiredToken
``truncate``      the answer's head, half of its body, then the end of the connection
``corrupt``       one byte of a GET's body is another
``trickle``       the body comes at ``trickle_nbytes_per_s``
``stall``         no answer for ``stall_s`` seconds, then the connection is closed
================  ===============================================================================
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import time
import urllib.request
from dataclasses import asdict, dataclass, field
from pathlib import Path

ERRORS = {"500": ("500 Internal Server Error", "InternalError"), "503": ("503 Slow Down", "SlowDown"),
          "409": ("409 Conflict", "ConditionalRequestConflict"), "expired": ("400 Bad Request", "ExpiredToken")}  # fmt: skip
MAX_HEAD_NBYTES = 1 << 20


@dataclass
class Plan:
    """What to do to requests of ``methods`` whose path has ``path`` in it: each suffers a fault with probability
    ``share``.
    """

    faults: list[str] = field(default_factory=list)
    share: float = 1.0
    count: int | None = None  # faults in all; None is no limit
    methods: list[str] = field(default_factory=lambda: ["GET", "PUT"])
    path: str = ""
    seed: int = 0
    first_byte_s: float = 0.0
    nbytes_per_s: float | None = None
    trickle_nbytes_per_s: float = 10_000.0
    stall_s: float = 5.0
    quiet_s: float = 0.0


class Proxy:
    def __init__(self, upstream_port: int):
        self.upstream_port = upstream_port
        self.port, self.server, self.connections = 0, None, set()
        self.set_plan(Plan())

    async def listen(self) -> None:
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", self.port, limit=MAX_HEAD_NBYTES,
                                                 reuse_address=True)  # fmt: skip
        self.port = self.server.sockets[0].getsockname()[1]

    async def go_down(self, seconds: float) -> None:
        self.server.close()
        for connection in list(self.connections):
            connection.transport.abort()
        await asyncio.sleep(seconds)
        await self.listen()

    def set_plan(self, plan: Plan) -> None:
        self.plan = plan
        self.generator = random.Random(plan.seed)
        self.left = plan.count
        self.stats = {"requests": {}, "faults": {}, "listings": 0, "rounds": 0, "in_flight": 0, "most_in_flight": 0}
        self.round, self.round_ends = asyncio.Event(), None

    def draw(self, method: str, path: str) -> str | None:
        plan = self.plan
        if method not in plan.methods or plan.path not in path or not plan.faults or self.left == 0:
            return None
        if self.generator.random() >= plan.share:
            return None
        if self.left is not None:
            self.left -= 1
        fault = self.generator.choice(plan.faults)
        self.stats["faults"][fault] = self.stats["faults"].get(fault, 0) + 1
        return fault

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.add(writer)
        try:
            while await self.serve_one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            self.connections.discard(writer)
            writer.close()

    async def serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Pass one request on and its answer back; False when the connection is at its end."""
        head = await read_head(reader)
        method, path, _ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
        if b"100-continue" in head.lower():
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            head = b"\r\n".join(line for line in head.split(b"\r\n") if not line.lower().startswith(b"expect:"))
        body = await reader.readexactly(content_length(head))
        if path.startswith("/__proxy__/"):
            await self.control(path, body, writer)
            return True
        fault = self.draw(method, path)
        self.stats["requests"][method] = self.stats["requests"].get(method, 0) + 1
        self.stats["listings"] += "list-type=" in path or "delimiter=" in path
        self.stats["in_flight"] += 1
        self.stats["most_in_flight"] = max(self.stats["most_in_flight"], self.stats["in_flight"])
        try:
            return await self.answer(method, head, body, fault, writer)
        finally:
            self.stats["in_flight"] -= 1

    async def answer(self, method: str, head: bytes, body: bytes, fault: str | None,
                     writer: asyncio.StreamWriter) -> bool:  # fmt: skip
        if self.plan.quiet_s:
            await self.rounded()
        await asyncio.sleep(self.plan.first_byte_s)
        if fault == "reset":
            return False
        if fault == "stall":
            await asyncio.sleep(self.plan.stall_s)
            return False
        if fault in ERRORS:
            status, code = ERRORS[fault]
            text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>injected</Message></Error>"
            writer.write(f"HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode())
            await writer.drain()
            return True
        answer_head, answer_body = await self.forwarded(method, head, body)
        if fault == "lost":
            return False
        if fault == "corrupt" and method == "GET" and answer_body:
            place = self.generator.randrange(len(answer_body))
            answer_body = answer_body[:place] + bytes([answer_body[place] ^ 0x20]) + answer_body[place + 1 :]
        writer.write(answer_head)
        if fault == "truncate":
            writer.write(answer_body[: len(answer_body) // 2])
            await writer.drain()
            return False
        rate = self.plan.trickle_nbytes_per_s if fault == "trickle" else self.plan.nbytes_per_s
        await send(writer, answer_body, rate)
        return True

    async def rounded(self) -> None:
        """Wait for the end of the round that this request belongs to."""
        if self.round_ends is not None:
            self.round_ends.cancel()
        self.round_ends = asyncio.get_running_loop().call_later(self.plan.quiet_s, self.end_round)
        await self.round.wait()

    def end_round(self) -> None:
        self.stats["rounds"] += 1
        self.round.set()
        self.round = asyncio.Event()

    async def forwarded(self, method: str, head: bytes, body: bytes) -> tuple[bytes, bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.upstream_port, limit=MAX_HEAD_NBYTES)
        try:
            writer.write(head + body)
            await writer.drain()
            answer_head = await read_head(reader)
            has_body = method != "HEAD" and answer_head.split(b" ", 2)[1] not in (b"204", b"304")
            if has_body and b"chunked" in answer_head.lower():
                return await unchunked(answer_head, reader)
            return answer_head, await reader.readexactly(content_length(answer_head)) if has_body else b""
        finally:
            writer.close()

    async def control(self, path: str, body: bytes, writer: asyncio.StreamWriter) -> None:
        if path.endswith("plan"):
            self.set_plan(Plan(**json.loads(body)))
        text = json.dumps(self.stats).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text))
        await writer.drain()
        if "/down/" in path:
            # kept, or it may be collected
            self.outage = asyncio.ensure_future(self.go_down(float(path.rpartition("/")[2])))


async def read_head(reader: asyncio.StreamReader) -> bytes:
    return await reader.readuntil(b"\r\n\r\n")


def content_length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        if line.lower().startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0


async def unchunked(head: bytes, reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Return a chunked answer with a Content-Length instead."""
    pieces = []
    while nbytes := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        pieces.append(await reader.readexactly(nbytes))
        await reader.readexactly(2)
    body = b"".join(pieces)
    lines = [line for line in head[:-4].split(b"\r\n") if not line.lower().startswith(b"transfer-encoding:")]
    return b"\r\n".join([*lines, b"Content-Length: %d" % len(body)]) + b"\r\n\r\n", body


async def send(writer: asyncio.StreamWriter, body: bytes, nbytes_per_s: float | None) -> None:
    """Send a body, in pieces of a twentieth of a second if there is a rate."""
    step = len(body) if nbytes_per_s is None else max(1, int(nbytes_per_s / 20))
    began = time.monotonic()
    for begin in range(0, len(body), step or 1):
        writer.write(body[begin : begin + step])
        await writer.drain()
        if nbytes_per_s is not None:
            await asyncio.sleep(max(0.0, (begin + step) / nbytes_per_s - (time.monotonic() - began)))


async def main(upstream_port: int) -> None:
    proxy = Proxy(upstream_port)
    await proxy.listen()
    print(proxy.port, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)  # until who started it closes or dies
    os._exit(0)  # connections are dropped, as they are when a server dies


class RunningProxy:
    """A proxy in a process of its own, for tests: ``url``, ``plan()``, ``stats()``, ``close()``."""

    def __init__(self, upstream_url: str):
        port = upstream_url.rstrip("/").rpartition(":")[2]
        self._process = subprocess.Popen([sys.executable, str(Path(__file__)), port], stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, text=True)  # fmt: skip
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}"

    def plan(self, **fields) -> None:
        """Begin a new plan, with counts at zero."""
        request = urllib.request.Request(f"{self.url}/__proxy__/plan", json.dumps(asdict(Plan(**fields))).encode(),
                                         method="PUT")  # fmt: skip
        urllib.request.urlopen(request, timeout=10).close()

    def down(self, seconds: float) -> None:
        """Be gone for a while, from now on."""
        request = urllib.request.Request(f"{self.url}/__proxy__/down/{seconds}", method="PUT")
        urllib.request.urlopen(request, timeout=10).close()

    def stats(self) -> dict:
        with urllib.request.urlopen(f"{self.url}/__proxy__/stats", timeout=10) as answer:
            return json.load(answer)

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(timeout=10)
        self._process.stdout.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))

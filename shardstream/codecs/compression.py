"""Whole-file compression of foreign shards and of ``.gz`` fields, in bounded memory.

gzip, bzip2, xz and zstd, each also as several streams end to end (as ``pigz`` or ``cat`` make them). What
comes out is limited by what went in, so that a small hostile file costs little; see :func:`limit_of`.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator

import zstandard

from shardstream.errors import ShardError, ShardstreamError

MAX_NBYTES = 4 * 2**30  # a compressed shard is one block, which is held whole when it is read
# A tar of the smallest samples is 1,024 bytes a member, of which name, size and checksum are some 10 that no
# compressor can do without; gzip of zeros reaches 1,032.
MAX_EXPANSION = 250
FREE_NBYTES = 64 * 2**20  # that much is never too much
PIECE_NBYTES = 2**20  # what is given out at once
XZ_MEMORY_NBYTES = 256 * 2**20  # xz -9 needs 65 MiB
ZSTD_WINDOW_NBYTES = 128 * 2**20  # the limit of zstd's own command

# What goes into a decoder at once. A zstd decoder gives out all that its input makes, up to 128 KiB for each 4
# bytes; and each decoder keeps a copy of what follows the end of its stream.
STEP_NBYTES = {"gz": 4096, "bz2": 4096, "xz": 4096, "zst": 1024}


def detect(head) -> str | None:
    """Return ``"gz"``, ``"bz2"``, ``"xz"`` or ``"zst"`` by an object's first bytes, None for anything else."""
    head = bytes(head[:10])
    if head.startswith(b"\x1f\x8b\x08"):
        return "gz"
    if head.startswith(b"BZh") and head[4:] in (b"1AY&SY", b"\x17\x72\x45\x38\x50\x90"):
        return "bz2"
    if head.startswith(b"\xfd7zXZ\0"):
        return "xz"
    if head.startswith(b"\x28\xb5\x2f\xfd") or (head[1:4] == b"\x2a\x4d\x18" and 0x50 <= head[0] <= 0x5F):
        return "zst"
    return None


def limit_of(nbytes_in: int) -> int:
    """Return how many bytes ``nbytes_in`` compressed ones may become: 250-fold or 64 MiB, but 4 GiB at most."""
    return min(MAX_NBYTES, max(FREE_NBYTES, MAX_EXPANSION * nbytes_in))


def decompress(data, kind: str, limit: Callable[[int], int] = limit_of, shard: str | None = None) -> bytearray:
    """Return all that a compressed bytes-like object holds; errors as :func:`decompressed`."""
    result = bytearray()
    for piece in decompressed([data], kind, limit, shard):
        result += piece
    return result


def decompressed(
    pieces: Iterable, kind: str, limit: Callable[[int], int] = limit_of, shard: str | None = None
) -> Iterator[bytes]:
    """Yield what compressed pieces hold, in pieces of about 1 MiB.

    Memory is a few MiB and the decoder's window (at most 256 MiB), whatever comes in. ``limit`` says how many
    bytes may have come out when so many went in.

    Raises:
        ShardError: The data are corrupt, end inside a stream, or hold more than the limit.
    """
    num_in = num_out = 0
    waiting: list[bytes] = []
    waiting_nbytes = 0
    try:
        for taken, piece in _steps(pieces, kind):
            num_in, num_out = num_in + taken, num_out + len(piece)
            if num_out > limit(num_in):
                raise ShardError(
                    f"{num_in} compressed bytes hold more than the limit of {limit(num_in)} bytes; if that is "
                    "sound, store them uncompressed, or in smaller shards.",
                    shard=shard,
                )
            waiting.append(piece)
            waiting_nbytes += len(piece)
            if waiting_nbytes >= PIECE_NBYTES:
                yield b"".join(waiting)
                waiting, waiting_nbytes = [], 0
    except (zlib.error, lzma.LZMAError, zstandard.ZstdError, OSError, EOFError, ValueError) as error:
        if isinstance(error, ShardstreamError):  # some are OSErrors, and come from whoever hands in the pieces
            raise
        raise ShardError(
            f"the {kind} data are corrupt or truncated after about {num_in} bytes: {error}", shard=shard
        ) from error
    if waiting:
        yield b"".join(waiting)


def _steps(pieces: Iterable, kind: str) -> Iterator[tuple[int, bytes]]:
    """Yield ``(bytes newly taken in, bytes out)``; decoders' own errors, and EOFError for a cut stream."""
    step = STEP_NBYTES[kind]
    decoder, num_streams = None, 0
    for piece in pieces:
        view = memoryview(piece).cast("B")
        for begin in range(0, len(view), step):
            data = bytes(view[begin : begin + step])
            taken = len(data)
            while data:
                if decoder is None:
                    data = data.lstrip(b"\0") if num_streams else data  # tapes and xz pad with zeros
                    if not data:
                        break
                    decoder = _decoder(kind)
                    num_streams += 1
                for out in _outputs(decoder, kind, data):
                    yield taken, out
                    taken = 0
                data = decoder.unused_data
                decoder = None if decoder.eof else decoder
            if taken:
                yield taken, b""
    if decoder is not None or not num_streams:
        raise EOFError("the last stream has no end")


def _decoder(kind: str):
    if kind == "gz":
        return zlib.decompressobj(wbits=31)
    if kind == "bz2":
        return bz2.BZ2Decompressor()
    if kind == "xz":
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY_NBYTES)
    return zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_NBYTES).decompressobj(read_across_frames=False)


def _outputs(decoder, kind: str, data: bytes) -> Iterator[bytes]:
    """Yield what a decoder makes of its next input, at most ``PIECE_NBYTES`` at once where it can be told so."""
    if kind == "zst":
        yield decoder.decompress(data)
        return
    while True:
        out = decoder.decompress(data, PIECE_NBYTES)
        yield out
        data = getattr(decoder, "unconsumed_tail", b"")  # zlib hands back what it did not take; the others keep it
        if decoder.eof or (not data and len(out) < PIECE_NBYTES):
            return

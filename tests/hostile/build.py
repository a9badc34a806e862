"""Builders of hostile shards: each writes one file, and says what a reader may do with it.

``SHARDS[name](folder)`` returns the path of the shard. ``EXPECTED[name]`` is the name of the error class that reading
it must raise, or ``"samples"`` where the shard is odd but can be read.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import zstandard

from shardstream import Bytes, Dense, Ragged, Schema, Sparse
from shardstream._native import sparse
from shardstream._native.crc32c import crc32c
from shardstream._native.tar import end_blocks, header
from shardstream.codecs.shard import CRC_SUFFIX, INDEX_MEMBER, SHARD_MEMBER
from shardstream.shardfile import ShardFile

SHARDS: dict[str, Callable[[Path], Path]] = {}
EXPECTED: dict[str, str] = {}
CANARY = "canary"  # a file that no reading may create
MIB = 2**20


def hostile(expected: str):
    """Register a builder that returns the shard's bytes."""

    def register(make: Callable[[], bytes]) -> Callable[[], bytes]:
        name = make.__name__

        def build(folder: Path) -> Path:
            path = folder / f"{name}{'.tar.zst' if name.endswith('_zst') else '.tar.gz' if name.endswith('_gz') else '.tar'}"
            path.write_bytes(make())
            return path

        SHARDS[name], EXPECTED[name] = build, expected
        return make

    return register


def tar(*members: tuple[str, bytes]) -> bytes:
    """Return a sound archive of files."""
    data = b"".join(header(name, len(payload)) + payload + bytes(-len(payload) % 512) for name, payload in members)
    return data + end_blocks(len(data))


def raw_member(name: bytes, size_field: bytes, payload: bytes = b"", kind: bytes = b"0") -> bytes:
    """Return a member whose size field is whatever is given, with a right checksum."""
    head = bytearray(512)
    head[: len(name)] = name
    head[100:108], head[124:136], head[156:157] = b"0000644\0", size_field.ljust(12, b"\0"), kind
    head[257:265], head[148:156] = b"ustar\0" + b"00", b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + payload + bytes(-len(payload) % 512)


def pax(records: bytes, name: bytes = b"a.txt", size: bytes = b"00000000001\0") -> bytes:
    """Return a member behind an extended header of these records."""
    return raw_member(b"pax", b"%011o\0" % len(records), records, b"x") + raw_member(name, size, b"a")


def record(key: bytes, value: bytes) -> bytes:
    length = len(key) + len(value) + 3
    while len(b"%d" % length) + len(key) + len(value) + 3 != length:
        length = len(b"%d" % length) + len(key) + len(value) + 3
    return b"%d %s=%s\n" % (length, key, value)


def binary(number: int) -> bytes:
    """Return a size field in base 256, which may be negative or beyond 64 bits."""
    return (number % 2**95 | 1 << 95).to_bytes(12, "big")


# -- the archive ---------------------------------------------------------------------------------


@hostile("ShardError")
def huge_declared_size() -> bytes:
    """A member says that it has an exabyte, in a file of 2 kB."""
    return raw_member(b"a.txt", binary(2**60)) + bytes(1024)


@hostile("ShardError")
def negative_size() -> bytes:
    return raw_member(b"a.txt", binary(-512)) + tar(("b.txt", b"b"))


@hostile("ShardError")
def size_beyond_64_bits() -> bytes:
    return raw_member(b"a.txt", binary(2**70)) + bytes(1024)


@hostile("ShardError")
def sizes_that_wrap_around() -> bytes:
    """Two members whose sizes add up to 2^64: a sum in 64 bits is back at the first."""
    return raw_member(b"a.txt", binary(2**63 - 512)) + raw_member(b"b.txt", binary(2**63 - 512)) + bytes(1024)


@hostile("ShardError")
def pax_size_of_thirty_digits() -> bytes:
    return pax(record(b"size", b"9" * 30)) + bytes(1024)


@hostile("ShardError")
def pax_size_that_is_negative() -> bytes:
    return pax(record(b"size", b"-1")) + bytes(1024)


@hostile("ShardError")
def pax_header_of_a_gigabyte() -> bytes:
    """An extended header says that it has a gigabyte, which a reader that takes it whole would allocate."""
    return raw_member(b"pax", b"%011o\0" % 2**30, b"", b"x") + bytes(4096)


@hostile("ShardError")
def pax_of_many_records() -> bytes:
    """Extended headers of 4 MiB: 300,000 records for one member."""
    return pax(b"".join(record(b"k%d" % number, b"v") for number in range(300_000))) + bytes(1024)


@hostile("ShardError")
def pax_headers_without_end() -> bytes:
    """50,000 extended headers, one behind the other, and never a member."""
    return raw_member(b"pax", b"%011o\0" % 12, record(b"path", b"a"), b"x") * 50_000 + bytes(1024)


@hostile("ShardError")
def long_name_of_a_gigabyte() -> bytes:
    return raw_member(b"././@LongLink", b"%011o\0" % 2**30, b"", b"L") + bytes(4096)


@hostile("ShardError")
def one_key_a_million_times() -> bytes:
    """A key that comes back again and again, in many small members."""
    return (raw_member(b"a.txt", b"00000000001\0", b"a") + raw_member(b"b.txt", b"00000000001\0", b"b")) * 20_000 + bytes(1024)


@hostile("samples")
def names_that_leave_the_folder() -> bytes:
    """Keys that are paths out of the target; as keys they are texts, and ``export`` refuses them."""
    return tar(("../../../../canary.txt", b"a"), ("b/../../canary.txt", b"b"), ("/canary.txt", b"c"))


@hostile("samples")
def links_and_devices() -> bytes:
    """Links to files of this machine, devices and a pipe beside a sample: nothing of them is opened."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for kind, name in ((tarfile.SYMTYPE, "a.txt"), (tarfile.LNKTYPE, "b.txt"), (tarfile.CHRTYPE, "c.txt"),
                           (tarfile.FIFOTYPE, "d.txt")):  # fmt: skip
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/hostname"
            archive.addfile(member)
        member = tarfile.TarInfo("e.txt")
        member.size = 4
        archive.addfile(member, io.BytesIO(b"text"))
    return out.getvalue()


# -- compression ---------------------------------------------------------------------------------


@hostile("ShardError")
def bomb_gz() -> bytes:
    """100 kB that are 100 MiB of zeros."""
    return gzip.compress(raw_member(b"a.bin", b"%011o\0" % (100 * MIB)) + bytes(100 * MIB + 1024), 9)


@hostile("ShardError")
def bomb_zst() -> bytes:
    """Some kB that are 512 MiB of zeros."""
    compressor = zstandard.ZstdCompressor(level=3).compressobj()
    pieces = [compressor.compress(raw_member(b"a.bin", b"%011o\0" % (512 * MIB)))]
    pieces += [compressor.compress(bytes(MIB)) for _ in range(513)]
    return b"".join([*pieces, compressor.flush()])


@hostile("ShardError")
def window_of_two_gigabytes_zst() -> bytes:
    """A zstd frame that wants a window of 2 GiB."""
    return b"\x28\xb5\x2f\xfd\x00" + bytes([21 << 3]) + b"\x01\x00\x00" + bytes(64)


@hostile("CodecError")
def bomb_in_a_field() -> bytes:
    """A ``.txt.gz`` field of 100 kB that is 100 MiB."""
    return tar(("a.txt.gz", gzip.compress(bytes(100 * MIB), 9)))


@hostile("CodecError")
def bomb_in_an_npz() -> bytes:
    """A zip whose array is 128 MiB of zeros."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.npy", "w") as file:
        for _ in range(128):
            file.write(bytes(MIB))
    return tar(("a.npz", out.getvalue()))


# -- fields --------------------------------------------------------------------------------------


class _Canary:
    def __reduce__(self):
        return os.mkdir, (CANARY,)


@hostile("UnsafeFieldError")
def pickle_that_runs() -> bytes:
    """A pickle that makes a folder when it is loaded."""
    return tar(("a.pyd", pickle.dumps(_Canary())))


@hostile("CodecError")
def pickle_in_an_npy() -> bytes:
    """An array of objects, which numpy would unpickle."""
    out = io.BytesIO()
    np.save(out, np.array([_Canary()], object), allow_pickle=True)
    return tar(("a.npy", out.getvalue()))


@hostile("CodecError")
def json_a_million_deep() -> bytes:
    return tar(("a.json", b"[" * 10**6 + b"]" * 10**6))


@hostile("CodecError")
def number_of_a_million_digits() -> bytes:
    """A class label whose conversion to an integer takes quadratic time."""
    return tar(("a.cls", b"9" * 10**6))


@hostile("CodecError")
def npy_of_a_terabyte() -> bytes:
    head = b"{'descr': '<f8', 'fortran_order': False, 'shape': (%d,), }" % 2**37
    head = head.ljust(117) + b"\n"
    return tar(("a.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + bytes(64)))


@hostile("CodecError")
def msgpack_of_four_billion_items() -> bytes:
    return tar(("a.mp", b"\xdd\xff\xff\xff\xff"))


@hostile("CodecError")
def tenbin_that_goes_backwards() -> bytes:
    return tar(("a.ten", b"~TenBin~" + struct.pack("<q", 8) + bytes(64) + b"~TenBin~" + struct.pack("<q", -80)))


# -- shards of our own format, every checksum right ---------------------------------------------


def own(schema: Schema, columns: dict, change: Callable[[dict], None], compression: str | None = None,
        members: Callable[[str, bytes], bytes] = lambda name, data: data) -> bytes:  # fmt: skip
    """Return a shard whose index was changed after it was made, and given its CRC again; ``members`` changes payloads.
    """
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"hostile-{os.getpid()}.tar"
    shard = ShardFile(str(path), "01890000-0000-7000-8000-000000000000", schema, compression)
    shard.write_block(columns, len(next(iter(columns.values()))) if not isinstance(next(iter(columns.values())), tuple) else 2)
    finished = shard.finish()
    data = path.read_bytes()
    path.unlink()
    index = json.loads(data[finished.index_offset : finished.index_offset + finished.index_nbytes])
    parts = []
    for name, (extent,) in index["columns"].items():
        parts.append((f"000000.{name}", members(name, data[extent[0] : extent[0] + extent[1]])))
    info = data[512 : 512 + int(data[124:135], 8)]
    out, place = tar((SHARD_MEMBER, info))[: 512 + -(-len(info) // 512) * 512], {}
    for name, payload in parts:
        place[name.removeprefix("000000.")] = [[len(out) + 512, len(payload), crc32c(payload)]]
        out += header(name, len(payload)) + payload + bytes(-len(payload) % 512)
    index["columns"] = place
    change(index)
    del index["crc32c"]
    body = json.dumps(index, separators=(",", ":")).encode()[:-1]
    return finish(out, body + CRC_SUFFIX % crc32c(body))


def finish(out: bytes, index: bytes) -> bytes:
    out += header(INDEX_MEMBER, len(index)) + index + bytes(-len(index) % 512)
    return out + end_blocks(len(out))


ONE = Schema(y=Dense("int64"))
Y = {"y": np.arange(2)}


def _set(name: str, place: int, value: int) -> Callable[[dict], None]:
    def change(index: dict) -> None:
        index["columns"][name][0][place] = value

    return change


@hostile("ShardError")
def index_with_a_negative_offset() -> bytes:
    return own(ONE, Y, _set("y.npy", 0, -512))


@hostile("ShardError")
def index_with_an_offset_beyond_64_bits() -> bytes:
    return own(ONE, Y, _set("y.npy", 0, 2**80))


@hostile("ShardError")
def index_with_a_block_of_an_exabyte() -> bytes:
    return own(ONE, Y, _set("y.npy", 1, 2**60))


@hostile("ShardError")
def index_with_extents_that_wrap_around() -> bytes:
    return own(ONE, Y, lambda index: index["columns"]["y.npy"].__setitem__(0, [2**63 - 1, 2**63 - 1, 0]))


@hostile("ChecksumError")
def index_that_names_other_bytes() -> bytes:
    return own(ONE, Y, _set("y.npy", 0, 0))


@hostile("CodecError")
def rows_by_the_trillion() -> bytes:
    """The index says that a block of 200 bytes has 2^40 rows."""
    return own(ONE, Y, lambda index: index.update(block_num_samples=[2**40]))


@hostile("ShardError")
def index_a_million_deep() -> bytes:
    """The index is nested 10^6 deep, under a right checksum."""
    body = b'{"format":1,"sid":' + b"[" * 10**6
    return finish(tar((SHARD_MEMBER, SHARD_JSON))[: 512 + -(-len(SHARD_JSON) // 512) * 512],
                  body + CRC_SUFFIX % crc32c(body))  # fmt: skip


SHARD_JSON = json.dumps({"format": 1, "sid": "01890000-0000-7000-8000-000000000000", "layout": "blocks", "schema": ONE.to_json(),
                         "compression": None}).encode()  # fmt: skip


@hostile("CodecError")
def offsets_of_a_terabyte() -> bytes:
    """A ragged column whose last offset is 2^40, over two bytes of values."""
    offsets = np.array([0, 1, 2**40])
    return own(Schema(t=Ragged("uint8")), {"t": (np.zeros(2, np.uint8), offsets)}, lambda index: None)


@hostile("CodecError")
def offsets_that_descend() -> bytes:
    return own(Schema(t=Bytes()), {"t": (np.zeros(2, np.uint8), np.array([0, 2, -(2**62)]))}, lambda index: None)


def _frame(claimed: int, content: bytes) -> bytes:
    """Return a zstd frame whose header says that it holds ``claimed`` bytes."""
    frame = zstandard.ZstdCompressor(write_content_size=False).compress(content)
    assert frame[:4] == b"\x28\xb5\x2f\xfd"
    block = frame[6:] if not frame[4] & 0x20 else frame[5:]
    return b"\x28\xb5\x2f\xfd" + bytes([0xE0]) + struct.pack("<Q", claimed) + block


@hostile("CodecError")
def zstd_member_that_claims_a_terabyte() -> bytes:
    return own(ONE, Y, lambda index: None, "zstd", lambda name, data: _frame(2**40, bytes(100)))


@hostile("CodecError")
def zstd_member_that_holds_more() -> bytes:
    """A frame that says 144 bytes, as the column needs, and holds 64 MiB."""
    return own(ONE, Y, lambda index: None, "zstd", lambda name, data: _frame(144, bytes(64 * MIB)))


@hostile("CodecError")
def sparse_block_of_four_billion_indices() -> bytes:
    """The header of a sparse block claims 2^32 - 1 indices."""
    change = lambda name, data: sparse.write_header(num_rows=2, dim=1000, num_indices=2**32 - 1, index_nbytes=4) + b"\xff" * 4  # noqa: E731
    return own(Schema(x=Sparse(1000)), {"x": (np.arange(4, dtype=np.uint32), np.array([0, 2, 4]), None)}, lambda index: None, members=change)


def _with_info(info: bytes) -> bytes:
    body = json.dumps({"format": 1, "sid": None, "layout": "blocks", "block_num_samples": [], "columns": {"y.npy": []},
                       "shard_crc32c": crc32c(info)}, separators=(",", ":")).encode()[:-1]  # fmt: skip
    return finish(tar((SHARD_MEMBER, info))[: 512 + -(-len(info) // 512) * 512], body + CRC_SUFFIX % crc32c(body))


@hostile("ShardError")
def shard_json_a_million_deep() -> bytes:
    return _with_info(b'{"format":1,"sid":' + b"[" * 10**6)


@hostile("ShardError")
def schema_of_impossible_shapes() -> bytes:
    """A dense field of shape (2^31, 2^31, 2^31), whose product is no 64-bit number."""
    schema = [{"name": "y", "kind": "dense", "dtype": "int64", "shape": [2**31] * 3}]
    return _with_info(json.dumps({"format": 1, "sid": "s", "layout": "blocks", "schema": schema, "compression": None}).encode())


@hostile("ShardError")
def format_of_the_far_future() -> bytes:
    return _with_info(b'{"format":%d,"sid":"s","layout":"blocks"}' % 10**30)

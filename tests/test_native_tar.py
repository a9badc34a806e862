import io
import mmap
import shutil
import subprocess
import tarfile
from ctypes import CDLL, c_int, c_size_t, c_void_p

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shardstream._native import ffi, tar
from shardstream.errors import ConfigError, ShardError
from tests.twins import tar as twin

KINDS = {tar.FIELD: "field", tar.NO_FIELD: "no field", tar.META: "meta", tar.OTHER: "other"}


def member(name: str, data: bytes = b"") -> bytes:
    return tar.header(name, len(data)) + data + tar.padding(len(data))


def archive(*names: str) -> bytes:
    body = b"".join(member(name, name.encode() * 9) for name in names)
    return body + tar.end_blocks(len(body))


def by_tarfile(files, format, **attributes) -> bytes:
    """Return an archive of ``{name: bytes}`` that Python's tarfile wrote."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as file:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for attribute, value in attributes.items():
                setattr(info, attribute, value)
            file.addfile(info, io.BytesIO(data))
    return out.getvalue()


def raw(name=b"a.b", size=b"%011o\0" % 0, kind=b"0", magic=b"ustar\x0000", prefix=b"", signed=False) -> bytes:
    """Return a header with fields as given and the right checksum."""
    block = bytearray(512)
    block[: len(name)] = name
    block[124 : 124 + len(size)] = size
    block[148:156], block[156:157] = b" " * 8, kind
    block[257 : 257 + len(magic)], block[345 : 345 + len(prefix)] = magic, prefix
    block[148:156] = b"%06o\0 " % sum(byte - 256 * (signed and byte > 127) for byte in block)
    return bytes(block)


def as_twin(table: tar.MemberTable) -> list:
    """Return a table in the twin's words."""
    rows = []
    for i, row in enumerate(table.members):
        name, kind = table.name_bytes(i), KINDS[int(row["kind"])]
        key, field = (name[: row["key_nbytes"]], name[row["key_nbytes"] + 1 :]) if kind == "field" else (None, None)
        numbers = [int(row[column]) for column in ("begin", "data_begin", "data_nbytes")]
        rows.append(twin.Member(*numbers, name, kind, key, field, bool(row["starts_sample"])))
    return [*rows, table.end]


def both(data: bytes, base: int = 0):
    """Return what scan and twin say of ``data``: two equal lists, or two equal ``(problem, offset)``."""
    try:
        got = as_twin(tar.scan(data, base))
    except ShardError as error:
        got = (error.problem, error.offset)
    try:
        expected = list(twin.scan(data, base))
    except twin.Bad as error:
        expected = error.args
    return got, expected


def problem_of(data: bytes) -> tuple[str, int]:
    with pytest.raises(ShardError) as caught:
        tar.scan(data)
    return caught.value.problem, caught.value.offset


PIECES = st.sampled_from([
    raw(), raw(b"d/", kind=b"5", size=b"%011o\0" % 700), raw(b"v7.txt", magic=b"", kind=b"\0"),
    raw(b"old/", kind=b"\0", magic=b""),
    raw(b"x.y", prefix=b"deep/er"), raw(b"x.y", prefix=b"11111111111", magic=b"ustar  \0"), raw(b"__m__/a.b"),
    raw(b"h\xe9.x", signed=True),
    raw(b"big.bin", size=b"\x80" + bytes(9) + b"\x02\x00") + bytes(512), raw(b"huge.bin", size=b"\x80" + b"\xff" * 11),
    raw(b"negative", size=b"\xff" * 12), raw(b"link", kind=b"2", size=b"%011o\0" % 9),
    raw(b"odd", kind=b"Z", size=b"%011o\0" % 1) + bytes(512),
    raw(kind=b"x", size=b"%011o\0" % 14) + b"14 path=a/b.c\n".ljust(512, b"\0"),
    raw(kind=b"x", size=b"%011o\0" % 9) + b"9 size=3\n".ljust(512, b"\0"),
    raw(kind=b"g", size=b"%011o\0" % 11) + b"11 path=g.\n".ljust(512, b"\0"),
    raw(kind=b"g", size=b"%011o\0" % 9) + b"9 size=1\n".ljust(512, b"\0"),
    raw(kind=b"L", size=b"%011o\0" % 600) + b"l" * 599 + bytes(425), raw(kind=b"K", size=b"%011o\0" % 3) + bytes(512),
    raw(kind=b"S"), raw(kind=b"M"), raw(size=b"%012o" % 5) + b"12345".ljust(512, b"\0"),
    raw(size=b"      7 \0") + bytes(512),
    raw(size=b"9"), bytes(512), bytes(1024), b"garbage" * 80, bytes(100),
])  # fmt: skip


@settings(max_examples=400)
@given(st.lists(PIECES, max_size=7), st.sampled_from([0, 512, 10**12]), st.integers(0, 700), st.data())
def test_scan_equals_twin_on_any_bytes(pieces, base, cut, data):
    """Members, kinds, splits, endings, problems and offsets are the twin's, for archives whole, cut and damaged."""
    archive = bytearray(b"".join(pieces))
    del archive[len(archive) - min(cut, len(archive)) :]
    for _ in range(data.draw(st.integers(0, 2)) if archive else 0):
        archive[data.draw(st.integers(0, len(archive) - 1))] = data.draw(st.integers(0, 255))
    got, expected = both(bytes(archive), base)
    assert got == expected


NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=40)


@settings(max_examples=100)
@given(st.dictionaries(NAMES.map(lambda name: name.strip("/") or "x"), st.binary(max_size=700), max_size=6),
       st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
       st.sampled_from([0, 1.5]))  # fmt: skip
def test_scan_equals_tarfile(files, format, mtime):
    """Names, offsets and sizes of what tarfile wrote in any of its formats are those tarfile reads."""
    data = by_tarfile(files, format, mtime=mtime)
    with tarfile.open(fileobj=io.BytesIO(data)) as file:
        expected = [(info.name, info.offset, info.offset_data, info.size) for info in file]
    table = tar.scan(data)
    got = [(table.name(i), *map(int, list(row)[:3])) for i, row in enumerate(table.members)]
    assert got == expected and table.end == tar.END_BLOCKS


@settings(max_examples=100)
@given(st.lists(st.text(st.sampled_from("ab/.é"), min_size=1, max_size=8), max_size=6), st.integers(1, 3000))
def test_scan_in_pieces_equals_scan(names, piece):
    """An archive fed in pieces, each from the first byte still needed, gives the members of one scan of it all."""
    data, parts = archive(*names), []
    scanner, begin = tar.Scanner(), 0
    while True:
        end = min(len(data), begin + piece + 1536)
        table = scanner.feed(data[begin:end], begin, end == len(data))
        parts += as_twin(table)[:-1]
        if end == len(data):
            break
        begin = min(scanner.offset, end)
    assert [*parts, table.end] == as_twin(tar.scan(data))


@pytest.mark.parametrize(("name", "key", "field"), [
    ("a.jpg", "a", "jpg"), ("a.seg.png", "a", "seg.png"), ("d/a.seg.png", "d/a", "seg.png"),
    ("d.x/a.jpg", "d.x/a", "jpg"),
    ("d.1/e.f.g", "d.1/e", "f.g"), ("./d/a.jpg", "./d/a", "jpg"), ("UP.JPG", "UP", "jpg"), ("a b.c", "a b", "c"),
    ("x/ユ.txt", "x/ユ", "txt"),
    ("a.", "a", ""), ("__meta__.json", "__meta__", "json"), ("d/__x__/a.b", "d/__x__/a", "b"),
])  # fmt: skip
def test_names_split_at_first_dot_of_basename(name, key, field):
    """Key and field are those of the table that WebDataset's own splitting gives."""
    table = tar.scan(archive(name))
    assert (table.key(0), table.field(0)) == (key, field)


@pytest.mark.parametrize(("name", "kind"), [
    ("a", tar.NO_FIELD), (".hidden", tar.NO_FIELD), ("d/.hidden", tar.NO_FIELD), ("d.x/a", tar.NO_FIELD),
    ("__shardstream__/shard.json", tar.META), ("__x__", tar.META), ("__a.b__", tar.META), ("____/a.b", tar.META),
])  # fmt: skip
def test_names_without_key_or_field_have_a_kind_of_their_own(name, kind):
    """Files that belong to no sample are told apart, and do not end the run of one."""
    table = tar.scan(archive("k.a", name, "k.b"))
    assert table.members["kind"].tolist() == [tar.FIELD, kind, tar.FIELD]
    assert table.members["starts_sample"].tolist() == [1, 0, 0]


def test_hashes_tell_keys_apart_and_fields_together():
    """Starts of samples carry different hashes for different keys; fields that differ in ASCII case share one."""
    table = tar.scan(archive(*(f"{i:05d}.{field}" for i in range(3000) for field in ("jpg", "JPG"))))
    keys = table.members["key_hash"][table.members["starts_sample"] == 1]
    assert len({tuple(pair) for pair in keys.tolist()}) == 3000
    assert len(set(table.members["field_hash"].tolist())) == 1
    other = tar.scan(archive("a.jpg", "a.jpgjpgjpg", "a.[pg", "a.{pg"))
    assert len(set(other.members["field_hash"].tolist())) == 4


def test_endings_are_told_apart():
    """End blocks, their absence at a member's end, cuts, bad checksums, garbage and trailing data are five things."""
    data = archive("a.x", "b.x")
    body = data[:2048]
    assert tar.scan(data).end == tar.scan(data[:2560]).end == tar.END_BLOCKS
    assert tar.scan(body).end == tar.scan(b"").end == tar.NO_END_BLOCKS
    assert problem_of(body[:1500]) == ("truncated", 1024)
    assert problem_of(body[:2047]) == ("truncated", 2047)
    assert problem_of(body[:1025] + b"!" + body[1026:]) == ("checksum", 1024)
    assert problem_of(body + b"garbage!" * 100) == ("garbage", 2048)
    assert problem_of(data + body) == ("trailing", len(data))


def test_every_cut_and_every_flip_is_seen():
    """A cut anywhere but at a member's end is an error; a flip of a header's byte is one too, or changes nothing."""
    data = by_tarfile(
        {"k/0.txt": b"one", "k/" + "n" * 120 + ".cls": b"2", "é.jpg": b"x" * 600}, tarfile.PAX_FORMAT, mtime=0.5
    )
    table = tar.scan(data)
    members_end = int(table.members["data_begin"][-1]) + 1024
    whole = {*table.members["begin"].tolist(), members_end}
    for cut in range(members_end + 512):
        if cut in whole:
            assert tar.scan(data[:cut]).end == tar.NO_END_BLOCKS
        else:
            assert problem_of(data[:cut])[0] == "truncated"
    sound = as_twin(table)
    damaged = bytearray(data)
    for header in [at for row in table.members for at in (int(row["begin"]), int(row["data_begin"]) - 512)]:
        for at in range(header, header + 512):
            damaged[at] ^= 0x40
            got, expected = both(bytes(damaged))
            assert got == expected and (got == sound or got[1] == header)
            damaged[at] ^= 0x40


@pytest.mark.parametrize(("data", "problem"), [
    (raw(size=b"\x80" + b"\x7f" * 11), "size"), (raw(size=b"\xff" * 12), "size"), (raw(size=b"12x"), "size"),
    (raw(size=b"7" * 12), "truncated"),
    (raw(size=b"\x80\0\0\0" + b"\x40" + bytes(7)), "truncated"),  # 2**62: sums of it stay inside 64 bits
    (raw(kind=b"x", size=b"%011o\0" % 10) + b"11 path=ab\n".ljust(512, b"\0") + raw(), "pax"),
    (raw(kind=b"x", size=b"%011o\0" % 10) + b"99999999999999999999 path=ab\n".ljust(512, b"\0") + raw(), "pax"),
    (raw(kind=b"x", size=b"%011o\0" % 28) + b"28 size=999999999999999999\n".ljust(512, b"\0") + raw(), "pax"),
    (raw(kind=b"x", size=b"%011o\0" % 28) + b"28 size=9999999999999999999\n".ljust(512, b"\0") + raw(), "size"),
    (raw(kind=b"x", size=b"%011o\0" % 20) + b"20 GNU.sparse.map=1\n".ljust(512, b"\0") + raw(), "unsupported"),
    (raw(kind=b"x", size=b"%011o\0" % 9) + b"9 size=3\n".ljust(512, b"\0") + bytes(1024), "pax"),
    (raw(kind=b"L", size=b"%011o\0" % 5000) + b"n" * 5120 + raw(), "limit"),
    (raw(kind=b"x", size=b"%011o\0" % 2**20), "limit"), (raw(kind=b"K") * 2049 + raw(), "limit"),
])  # fmt: skip
def test_hostile_numbers_and_extended_headers_are_errors(data, problem):
    """Overflow, nonsense and endless extended headers end in an error, not in time, memory or a wrong offset."""
    got, expected = both(data)
    assert got == expected and got[0] == problem


def test_a_global_path_does_not_multiply_memory():
    """A global header with a 4 kB path over many members grows the names to what they are, and no further."""
    path = b"p" * 4000 + b".x"
    record = b"%d path=%s\n" % (len(path) + 11, path)
    data = raw(kind=b"g", size=b"%011o\0" % len(record)) + record + tar.padding(len(record)) + raw() * 1000
    table = tar.scan(data)
    assert len(table.names) == 1000 * len(path) and table.name(999) == path.decode()


def test_no_byte_outside_the_buffer_is_read():
    """Archives that end exactly at an inaccessible page are scanned at every length."""
    data = archive("a.x", "long/" + "n" * 130 + ".y")[:4096]
    page = mmap.PAGESIZE
    area = mmap.mmap(-1, 3 * page)
    view = np.frombuffer(area, np.uint8)
    libc = CDLL(None, use_errno=True)
    libc.mprotect.argtypes, libc.mprotect.restype = (c_void_p, c_size_t, c_int), c_int
    assert libc.mprotect(view.ctypes.data + 2 * page, page, 0) == 0
    try:
        for nbytes in [*range(0, 1100), *range(1100, 4097, 61), 4096]:
            view[2 * page - nbytes : 2 * page] = np.frombuffer(data[:nbytes], np.uint8)
            got = both(bytes(data[:nbytes]))[1]
            try:
                assert as_twin(tar.scan(view[2 * page - nbytes : 2 * page])) == got
            except ShardError as error:
                assert (error.problem, error.offset) == got
    finally:
        assert libc.mprotect(view.ctypes.data + 2 * page, page, 3) == 0


@pytest.mark.skipif(shutil.which("tar") is None, reason="there is no tar command here")
@pytest.mark.parametrize("format", ["v7", "oldgnu", "gnu", "ustar", "pax"])
def test_reads_what_the_tar_command_writes(tmp_path, format):
    """Files, folders, links and long names in each dialect of the tar command come out as they are."""
    long = "d" * 88 + "/" + "f" * (5 if format == "v7" else 60) + ".bin"
    for name, nbytes in {"k.txt": 5, "k.cls": 0, long: 1000}.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"z" * nbytes)
    (tmp_path / "in" / "link.txt").symlink_to("k.txt")
    subprocess.run(
        ["tar", f"--format={format}", "-cf", tmp_path / "t.tar", "-C", tmp_path / "in", "--sort=name", "."], check=True
    )
    table = tar.scan((tmp_path / "t.tar").read_bytes())
    fields = {table.name(i): int(row["data_nbytes"]) for i, row in enumerate(table.members) if row["kind"] == tar.FIELD}
    assert fields == {"./k.txt": 5, "./k.cls": 0, "./" + long: 1000}
    assert (table.members["kind"] == tar.OTHER).sum() == 3 and table.end == tar.END_BLOCKS


@settings(max_examples=100)
@given(NAMES.filter(lambda name: not name.endswith("/")), st.integers(0, 2**40))
@example("d" * 100 + "/" + "n" * 100, 0)
@example("d" * 155 + "/" + "n" * 100, 8**11)
@example("n" * 101, 8**11 - 1)
@example("/" + "n" * 100, 0)
@example("é" * 2048, 1)
def test_header_round_trips_through_tarfile_and_scan(name, nbytes):
    """Name and size of a header are what tarfile and the scanner read; mtime, owner and mode are fixed."""
    data = tar.header(name, nbytes)
    info = tarfile.open(fileobj=io.BytesIO(data + bytes(1024))).next()
    assert (info.name, info.size, info.mtime, info.uid, info.gid, info.mode) == (name, nbytes, 0, 0, 0, 0o444)
    table = tar.Scanner().feed(data, 0, False)
    assert (table.name(0), int(table.members["data_begin"][0]), int(table.members["data_nbytes"][0])) == (
        name,
        len(data),
        nbytes,
    )
    assert len(data) == 512 or not name.isascii() or len(name) > 100 or nbytes >= 8**11


@pytest.mark.parametrize("name", ["", "a\0b", "n" * 4097])
def test_header_refuses_names_no_reader_could_return(name):
    """An empty name, a NUL or more than 4,096 bytes is an error when the header is made."""
    with pytest.raises(ConfigError):
        tar.header(name, 0)


def test_end_blocks_pad_to_a_record():
    """What ends an archive is two zero blocks or more, up to a multiple of 10,240 bytes."""
    for nbytes in range(0, 30720, 512):
        end = tar.end_blocks(nbytes)
        assert len(end) >= 1024 and (nbytes + len(end)) % 10240 == 0 and len(end) < 1024 + 10240 and not any(end)


def test_member_dtype_is_the_struct_of_the_header():
    """numpy's and C's idea of a member agree in size and in every offset."""
    assert tar.MEMBER.itemsize == ffi.sizeof("struct ss_tar_member")
    for name, (_, offset) in tar.MEMBER.fields.items():
        assert offset == ffi.offsetof("struct ss_tar_member", name)

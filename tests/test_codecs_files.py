import gzip
import io
import pickle
import re
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import webdataset
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from webdataset.autodecode import decoders, default_decoder
from webdataset.tariterators import base_plus_ext

from shardstream._native import tar
from shardstream.codecs import files, foreign
from shardstream.errors import CodecError, SampleError, ShardError, UnsafeFieldError
from shardstream.storage import Fetcher
from tests.test_native_tar import archive, member, raw

SAFE = sorted(set(decoders) - set(files.UNSAFE_EXTENSIONS) - {"cbor"})  # the cbor package is not a dependency
VALUES = {
    "txt": "tëxt", "cls": 7, "id": -3, "json": {"a": [1, None, "ü"]}, "npy": np.arange(6, dtype="i2").reshape(2, 3),
    "mp": {"k": [1, b"2"]},
    "npz": {"a": np.eye(2), "b": np.zeros(0)}, "ten": [np.arange(3, dtype="f4"), np.ones((2, 2), "u1")],
    "jpg": b"\xff\xd8 not decoded",
    "seg.png": b"\x89PNG", "npy.gz": np.arange(99), "json.gz": [1, 2], "txt.gz": "z", "bin": b"", "html": b"<p>",
    "a.b.cls": 1,
}  # fmt: skip


def tar_of(samples) -> bytes:
    body = b"".join(member(name, data) for sample in samples for name, data in files.encode_sample(sample))
    return body + tar.end_blocks(len(body))


def by_webdataset(path) -> list[dict]:
    """Return the decoded samples that webdataset reads from a file, without what it adds of its own."""
    stream = webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False).decode()
    return [{k: v for k, v in sample.items() if k == "__key__" or not k.startswith("__")} for sample in stream]


def by_us(path) -> list[dict]:
    """Return the decoded samples that the index and the blocks of a file lead to."""
    index, samples = foreign.index_shard(Fetcher(), str(path)), []
    for (begin, nbytes), num_samples in zip(index.extents[:, 0].tolist(), index.num_samples.tolist(), strict=True):
        block = files.read_block(Fetcher().read(str(path), begin, begin + nbytes), begin, num_samples, str(path))
        samples += [files.decode_sample(key, fields) for key, fields in block]
    return samples


def same(a, b) -> bool:
    """Equality of decoded values: arrays by dtype, shape and bytes, containers by parts, else by type and value."""
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a == b or (a != a and b != b))


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tar.bz2", ".tar.xz"])
def test_reads_what_webdatasets_writer_wrote(tmp_path, suffix):
    """ShardWriter's tars (float mtime in pax headers, nested and unicode keys) give webdataset's samples and values."""
    keys = ["0001", "deep.er/dir/0002", "ユ/é 3", "n" * 60 + "/" + "m" * 60]
    with webdataset.ShardWriter(str(tmp_path / f"%06d{suffix}"), maxcount=3, verbose=0) as writer:
        for i, key in enumerate(keys):
            writer.write({"__key__": key, **{f: v for j, (f, v) in enumerate(VALUES.items()) if (i + j) % 3}})
    paths = sorted(tmp_path.iterdir())
    assert len(paths) == 2
    for path in paths:
        ours, theirs = by_us(path), by_webdataset(path)
        assert len(ours) == len(theirs) > 0 and all(map(same, ours, theirs))


def test_webdataset_and_tarfile_read_what_we_write(tmp_path):
    """Samples encoded here come out of webdataset with the values that went in; `python -m tarfile` lists them."""
    samples = [{"__key__": key, **VALUES} for key in ("0001", "d.x/0002", "ユ/é", "n" * 99 + "/" + "m" * 90)]
    path = tmp_path / "s.tar"
    path.write_bytes(tar_of(samples))
    theirs = by_webdataset(path)
    assert all(map(same, by_us(path), theirs))
    for sample, got in zip(samples, theirs, strict=True):
        assert got["__key__"] == sample["__key__"] and set(got) == set(sample)
        assert all(same(got[field], value) for field, value in VALUES.items() if field != "html")
    listing = subprocess.run(
        [sys.executable, "-m", "tarfile", "-l", path], capture_output=True, text=True, check=True
    ).stdout
    assert len(listing.splitlines()) == len(samples) * len(VALUES)


def test_headers_are_small_and_fixed(tmp_path):
    """A member costs one 512-byte header, with integer mtime: half the size that WebDataset's writer makes."""
    sample = {"__key__": "000001", "cls": 1, "txt": "a"}
    data = tar_of([sample])
    assert len(data.rstrip(b"\0")) < 2048
    info = tarfile.open(fileobj=io.BytesIO(data)).next()
    assert (info.mtime, info.uid, info.gid, info.mode, info.pax_headers) == (0, 0, 0, 0o444, {})


def outcome(decode, *arguments):
    try:
        return decode(*arguments)
    except Exception as error:
        return type(error)


@pytest.mark.parametrize("field", VALUES)
def test_values_are_those_of_webdatasets_decoder(field):
    """decode_field equals webdataset's decoder for everything its writer encodes, gunzipping included."""
    data = files.encode_sample({"__key__": "k", field: VALUES[field]})[0][1]
    assert same(files.decode_field(field, memoryview(data)), default_decoder.decode1(field, data))


def test_whole_samples_decode_as_webdataset_decodes_them():
    """Fields that begin with two underscores become text if they can, as in webdataset; others are decoded."""
    fields = {"__note.json": b"[1]", "__raw__": b"\xff", "json": b"[1]", "jpg": b"\xff"}
    assert files.decode_sample("k", fields) == default_decoder.decode({"__key__": "k", **fields})
    with pytest.raises(ShardError, match="named __key__"):
        files.read_block(archive("a.__key__"))[0]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([*SAFE, "jpg", "seg.png", "", "gz", "txt.gz", "x.y"]),
       st.one_of(st.binary(max_size=60),
                 st.sampled_from([b"null", b"0", b"1_0", b" 7\n", b"NaN", b"[]", b"9" * 5000, b"\xc0"])))  # fmt: skip
@example("json", b"[" * 100_000)
@example("ten", b"~TenBin~" + bytes(8))
def test_any_bytes_decode_as_webdataset_does_or_are_an_error(field, data):
    """On arbitrary bytes the value is webdataset's; where that raises, and only there, a CodecError is raised."""
    theirs, ours = outcome(default_decoder.decode1, field, data), outcome(files.decode_field, field, data)
    if isinstance(theirs, type):
        assert ours is CodecError
    else:
        assert same(ours, theirs) or ours is CodecError and field in ("ten", "tb")  # cut chunks, which it pads out


@pytest.mark.parametrize("field", ["pyd", "pickle", "pkl", "pth", "x.pyd", "pickle.gz"])
def test_pickles_run_only_when_asked(field):
    """Decoding a pickle or torch file is an UnsafeFieldError that names the field, until allow_unsafe=True."""
    with pytest.raises(UnsafeFieldError) as caught:
        files.decode_sample("k", {field: b"\x80\x04."})
    assert (caught.value.key, caught.value.field) == ("k", field)
    data = pickle.dumps({"a": 1})
    assert files.decode_field("pyd", data, allow_unsafe=True) == {"a": 1}
    assert {e for e, decoder in decoders.items() if "pickle" in str(decoder) or e == "pth"} <= set(
        files.UNSAFE_EXTENSIONS
    )


def tenbin(*sizes) -> bytes:
    return b"".join(b"~TenBin~" + struct.pack("<q", size) + bytes(64 * (size > 0)) for size in sizes)


def npz_bomb() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.npy", "w") as file:
        for _ in range(1100):
            file.write(bytes(2**20))
    return out.getvalue()


@pytest.mark.parametrize(("field", "data"), [
    ("ten", tenbin(8, -80)), ("ten", tenbin(2**62)), ("ten", b"~TenBin~"), ("npz", npz_bomb()),
    ("json", b"[" * 10**6), ("cls", b"9" * 10**6),
    ("npy", b"\x93NUMPY\x01\x00\x46\x00{'descr': '<f8', 'fortran_order': False, 'shape': (9999999999999,)}   \n"),
    ("mp", b"\xdd\xff\xff\xff\xff"),
    ("txt.gz", gzip.compress(bytes(2**21))[:-9]),
])  # fmt: skip
def test_hostile_fields_are_errors(field, data):
    """Chunks that go backwards for ever, bombs, endless nesting and huge claims are errors, soon and cheaply."""
    with pytest.raises(CodecError) as caught:
        files.decode_field(field, data)
    assert caught.value.field == field


def test_a_field_may_not_unpack_beyond_its_limit(monkeypatch):
    """A gzipped field stops at MAX_FIELD_NBYTES, whatever its ratio."""
    data = files.encode_sample({"__key__": "k", "txt.gz": "x" * 5000})[0][1]
    assert files.decode_field("txt.gz", data) == "x" * 5000
    monkeypatch.setattr(files, "MAX_FIELD_NBYTES", 4999)
    with pytest.raises(CodecError, match="limit of 4999"):
        files.decode_field("txt.gz", data)


def test_decoding_takes_the_fields_asked_for():
    """decode_sample gives __key__ and the named fields; one that is missing is named beside those that are there."""
    assert files.decode_sample("k", {"cls": b"3", "pyd": b"unread"}, ["cls"]) == {"__key__": "k", "cls": 3}
    with pytest.raises(SampleError, match=r"\['cls'\].*key k, field jpg"):
        files.decode_sample("k", {"cls": b"3"}, ["jpg"])


@pytest.mark.parametrize(("sample", "field"), [
    ({"cls": 1}, None), ({"__key__": 5, "cls": 1}, None), ({"__key__": "", "cls": 1}, None),
    ({"__key__": "a.b", "cls": 1}, None),
    ({"__key__": "d/", "cls": 1}, None), ({"__key__": "/a", "cls": 1}, None), ({"__key__": "../a", "cls": 1}, None),
    ({"__key__": "a/../b", "cls": 1}, None), ({"__key__": "a\0", "cls": 1}, None),
    ({"__key__": "\ud800", "cls": 1}, None),
    ({"__key__": "__x__/a", "cls": 1}, "cls"), ({"__key__": "__a", "b__": b""}, "b__"), ({"__key__": "k"}, None),
    ({"__key__": "k", "__url__": "u"}, None), ({"__key__": "k", "": b""}, None), ({"__key__": "k", "_x": b""}, None),
    ({"__key__": "k", 3: b""}, None),
    ({"__key__": "k", "a/b": b""}, None), ({"__key__": "k", "x": 3}, "x"), ({"__key__": "k", "cls": None}, "cls"),
    ({"__key__": "k", "jpg": 3}, "jpg"),
    ({"__key__": "k", "a.cls.gz": "x", "a.CLS.GZ": 1}, "a.CLS.GZ"), ({"__key__": "k", "a.cls": [1]}, "a.cls"),
    ({"__key__": "k", "json": {1, 2}}, "json"),
    ({"__key__": "k" * 4096, "x": b""}, "x"), ([("__key__", "k")], None), (None, None),
])  # fmt: skip
def test_samples_that_could_not_be_read_back_are_refused(sample, field):
    """What a reader would split, skip or fail on is a SampleError when it is written, naming the field."""
    with pytest.raises(SampleError) as caught:
        files.encode_sample(sample)
    assert caught.value.field == field


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=12).filter(lambda key: "\0" not in key), st.text("aB.é_", max_size=5), st.binary(max_size=20))
@example("a\udcff", "x", b"")
def test_what_is_written_is_read_back(key, field, data):
    """Any key and field are refused, or come back unchanged (the field in lower case) with the same bytes."""
    try:
        members = files.encode_sample({"__key__": key, field: data})
    except SampleError:
        return
    block = b"".join(member(name, payload) for name, payload in members)
    ((got_key, fields),) = files.read_block(block)
    assert (got_key, {name: bytes(view) for name, view in fields.items()}) == (key, {field.lower(): data})


def test_members_are_sorted_and_metadata_of_webdataset_left_out():
    """Fields are in order, in lower case; __url__ and its like are not stored."""
    members = files.encode_sample(
        {"__key__": "k", "txt": "t", "JPG": bytearray(b"j"), "__url__": "u", "cls": np.int64(4)}
    )
    assert members == [("k.cls", b"4"), ("k.jpg", b"j"), ("k.txt", b"t")]


def test_the_worked_bytes_of_the_format_are_what_is_written():
    """The hex dump in docs/FORMAT.md, section 5.2, is the member that the code writes."""
    text = (Path(__file__).parents[1] / "docs/FORMAT.md").read_text().split("(what is not shown is zero)")[1]
    rows = re.findall(r"^([0-9a-f]{3})  ((?:[0-9a-f]{2} )+) *\S", text.split("```")[1], re.MULTILINE)
    dumped = bytearray(1024)
    for offset, row in rows:
        dumped[int(offset, 16) : int(offset, 16) + len(bytes.fromhex(row))] = bytes.fromhex(row)
    assert bytes(dumped) == member(*files.encode_sample({"__key__": "d/7", "cls": 3})[0]) and len(rows) == 7


@settings(max_examples=300)
@given(st.text(st.sampled_from("ab._/ \nÉ"), max_size=12))
def test_names_are_split_as_webdataset_does(name):
    """Key and field are webdataset's, but for basenames that begin with a dot and for newlines in folders."""
    assume(not name.rpartition("/")[2].startswith(".") and "\n" not in name)
    key, field = base_plus_ext(name)
    table = tar.scan(raw(name.encode()))
    if tar.META == table.members["kind"][0]:
        assert re.match(r"__[^/]*__($|/)", name)
    elif tar.FIELD == table.members["kind"][0]:
        assert (table.key(0), table.field(0)) == (key, field.lower())
    else:
        assert key is None


def test_views_are_read_only_and_copy_nothing():
    """A sample's fields show the block's own memory, at any offset of the shard, and keep it alive."""
    block = np.frombuffer(archive("a.x", "b.x", "b.y")[1024:3072], np.uint8).copy()  # may be written to, as memory of a pool
    samples = files.read_block(block, 1024, 1)
    key, fields = samples[0]
    assert key == "b" and list(fields) == ["x", "y"] and bytes(fields["y"]) == b"b.y" * 9
    assert np.shares_memory(np.frombuffer(fields["x"], np.uint8), block) and fields["x"].readonly
    assert samples[-1][0] == "b" and len(samples) == 1
    with pytest.raises(IndexError):
        samples[1]


def test_blocks_that_are_not_what_the_index_says_are_errors():
    """A wrong count, a cut block and a field that comes twice are errors with shard and offset in the shard."""
    block = archive("a.x", "b.x")[:2048]
    for arguments, offset in (((block, 5120, 3, "u"), 5120), ((block[:1500], 5120, 2, "u"), 5120 + 1024)):
        with pytest.raises(ShardError) as caught:
            files.read_block(*arguments)
        assert (caught.value.shard, caught.value.offset) == ("u", offset)
    with pytest.raises(ShardError, match="twice"):
        files.read_block(archive("a.x", "a.X"))[0]


def test_importing_the_codec_loads_no_webdataset():
    """webdataset, which takes seconds to import, is loaded by the first field, not by the module."""
    code = "import shardstream.codecs.files, shardstream.codecs.foreign, sys\n"
    code += "print('webdataset' in sys.modules, 'rich' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "False False\n"
    )


def test_the_tables_are_webdatasets_own():
    """No decoder is written here: a table that webdataset changes is the one that is used."""
    assert files._webdataset()[0] is decoders and callable(files._webdataset()[1])

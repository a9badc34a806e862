import bz2
import gzip
import lzma
import tarfile
import threading

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from shardstream._native import tar
from shardstream._native.crc32c import crc32c
from shardstream.codecs import compression, files, foreign
from shardstream.codecs.shard import MAX_BLOCK_NBYTES, MAX_BLOCK_SAMPLES
from shardstream.errors import ShardError, ShardNotFoundError
from shardstream.storage import Fetcher
from tests.test_native_tar import PIECES, by_tarfile, member, raw
from tests.twins import tar as twin

COMPRESSORS = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstandard.ZstdCompressor().compress,
}


class Memory:
    """A fetcher of byte strings that notes what is asked of it."""

    def __init__(self, **objects: bytes):
        self.objects, self.reads, self.lock = objects, [], threading.Lock()

    def identify(self, url):
        return len(self.objects[url]), f"tag of {hash(self.objects[url])}"

    def read(self, url, begin, end):
        with self.lock:
            self.reads.append((url, begin, end))
        data = np.frombuffer(self.objects[url][begin:end], np.uint8)
        assert len(data) == end - begin
        return data


def shard(names, size=lambda i: 100) -> bytes:
    body = b"".join(member(name, bytes([i % 251]) * size(i)) for i, name in enumerate(names))
    return body + tar.end_blocks(len(body))


def index_of(data: bytes):
    return foreign.index_shard(Memory(u=data), "u")


def error_of(data: bytes) -> ShardError:
    with pytest.raises(ShardError) as caught:
        index_of(data)
    return caught.value


def samples_of(data: bytes, index) -> list:
    """Return all samples that the index leads to, after checking each block's CRC."""
    samples = []
    for (begin, nbytes), num_samples, crc in zip(
        index.extents[:, 0].tolist(), index.num_samples, index.crc32c[:, 0], strict=True
    ):
        block = data[begin : begin + nbytes]
        assert crc32c(block) == crc
        samples += [
            (key, {f: bytes(v) for f, v in fields.items()})
            for key, fields in files.read_block(block, begin, int(num_samples))
        ]
    return samples


def samples_by_twin(data: bytes) -> list:
    """Return the samples of an archive by the slow scan and WebDataset's grouping."""
    samples = []
    for one in twin.scan(data):
        if not isinstance(one, str) and one.kind == "field":
            if one.starts_sample:
                samples.append((one.key.decode("utf-8", "surrogateescape"), {}))
            samples[-1][1][one.field.decode().lower()] = data[one.data_begin : one.data_begin + one.data_nbytes]
    return samples


def test_blocks_are_cut_as_the_format_says(monkeypatch):
    """A block closes with the sample that brings it to 1 MiB or to 8,192 samples; blocks tile the members."""
    monkeypatch.setattr(foreign, "PIECE_NBYTES", 3 * 2**20)  # pieces and blocks end at different places
    data = shard([f"{i:05d}.x" for i in range(9000)], lambda i: 300_000 if 8500 < i < 8600 else 0)
    index = index_of(data)
    begins, sizes = index.extents[:, 0, 0], index.extents[:, 0, 1]
    assert index.num_samples.sum() == 9000 and index.layout == "files" and index.columns == ("",)
    assert (begins[1:] == begins[:-1] + sizes[:-1]).all() and begins[0] == 0
    assert begins[-1] + sizes[-1] == len(data.rstrip(b"\0")) + -len(data.rstrip(b"\0")) % 512
    at = 0
    for nbytes, count in zip(sizes[:-1], index.num_samples[:-1], strict=True):
        last = 512 + (300_032 if 8500 < at + count - 1 < 8600 else 0)
        assert nbytes >= MAX_BLOCK_NBYTES > nbytes - last
        at += count
    assert samples_of(data, index) == samples_by_twin(data)


def test_a_block_holds_at_most_8192_samples(monkeypatch):
    """The limit on samples cuts a block before the limit on bytes does."""
    monkeypatch.setattr("shardstream.codecs.counting.MAX_BLOCK_NBYTES", 2**30)
    index = index_of(shard([f"{i}.x" for i in range(2 * MAX_BLOCK_SAMPLES + 1)]))
    assert index.num_samples.tolist() == [MAX_BLOCK_SAMPLES, MAX_BLOCK_SAMPLES, 1]


FIELDS = st.lists(st.sampled_from(["jpg", "cls", "seg.png", "txt"]), min_size=1, max_size=3, unique=True)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(FIELDS, st.integers(0, 3000), st.sampled_from(["", "README", "__m__/x.y"])), max_size=20),
       st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]), st.integers(2, 12),
       st.booleans())  # fmt: skip
def test_index_and_blocks_give_the_samples_of_the_archive(samples, format, piece_kib, with_end):
    """Whatever the dialect, the pieces and the members in between, blocks hold each sample once, whole, in order."""
    contents = {}
    for i, (fields, nbytes, between) in enumerate(samples):
        contents.update(
            {f"long{'x' * (60 * (i % 3))}/k{i}.{field}": bytes([i]) * (nbytes + j) for j, field in enumerate(fields)}
        )
        contents.update({f"{between}{i}": b"!" * nbytes} if between else {})
    data = by_tarfile(contents, format, mtime=0.5)
    if not with_end and contents:
        *_, last, _ = twin.scan(data)
        data = data[: last.data_begin + twin.padded(last.data_nbytes)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(foreign, "PIECE_NBYTES", piece_kib * 1024)
        patch.setattr(tar, "MAX_PREFIX_NBYTES", 2048)
        patch.setattr("shardstream.codecs.counting.MAX_BLOCK_NBYTES", 8000)
        expected = samples_by_twin(data)
        try:
            index = index_of(data)
        except ShardError as error:
            last = set(expected[-1][1])
            assert (
                error.problem == "truncated"
                and not with_end
                and all(set(fields) != last for _, fields in expected[:-1])
            )
            return
        assert samples_of(data, index) == expected


@settings(max_examples=200, deadline=None)
@given(st.lists(PIECES, max_size=8), st.integers(0, 600), st.sampled_from(["", "gz"]))
def test_any_bytes_give_an_error_or_an_index_that_reads(pieces, cut, kind):
    """Whatever an archive is made of: a ShardError, or blocks from which the twin's samples are read."""
    data = b"".join(pieces)
    data = data[: len(data) - min(cut, len(data))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shardstream.codecs.counting.MAX_BLOCK_NBYTES", 1500)
        stored = gzip.compress(data) if kind else data
        try:
            assert samples_of(stored, index_of(stored)) == samples_by_twin(data)
        except ShardError:
            pass


@pytest.mark.parametrize("kind", COMPRESSORS)
def test_a_compressed_shard_is_one_block(kind):
    """Its block is the whole object, whose CRC is that of the compressed bytes, and gives the same samples."""
    data = shard([f"{i // 2:05d}.{'ab'[i % 2]}" for i in range(3000)], lambda i: 700 + i % 5)
    packed = COMPRESSORS[kind](data)
    index = index_of(packed)
    assert index.extents.tolist() == [[[0, len(packed)]]] and index.num_samples.tolist() == [1500]
    assert samples_of(packed, index) == samples_by_twin(data)
    assert compression.detect(data) is None


@pytest.mark.parametrize("kind", COMPRESSORS)
def test_cut_compressed_shards_are_errors(kind):
    """A compressed shard that ends early is an error, wherever it is cut."""
    packed = COMPRESSORS[kind](shard([f"{i}.x" for i in range(40)]))
    for cut in range(1, len(packed), 1 + len(packed) // 150):
        error_of(packed[:cut])


@pytest.mark.parametrize("kind", COMPRESSORS)
def test_a_decompression_bomb_costs_little(kind):
    """More than 250-fold and 64 MiB is an error when that much has come out."""
    assert "limit" in str(error_of(COMPRESSORS[kind](bytes(70 * 2**20))))


def test_several_streams_end_to_end_are_one_shard():
    """What pigz, bgzip and cat make of parts, with zeros behind, reads as one."""
    data = shard(["a.x", "b.x"])
    for kind, compress in COMPRESSORS.items():
        assert index_of(compress(data[:700]) + compress(data[700:]) + bytes(512)).num_samples.tolist() == [2], kind


def test_our_own_shard_compressed_as_a_whole_is_refused():
    """Its blocks layout would look like other samples; the message says to decompress it."""
    assert "decompress it" in str(error_of(gzip.compress(shard(["__shardstream__/shard.json", "000000.y.npy"]))))


def test_a_field_that_comes_twice_is_an_error():
    """The second of two equal fields in a sample is named with key, field and offset, also across pieces."""
    error = error_of(shard(["a.x", "b.jpg", "b.y", "b.JPG", "c.x"]))
    assert (error.key, error.field, error.offset) == ("b", "jpg", 3072)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(foreign, "PIECE_NBYTES", 1024)
        assert error_of(shard(["a.x", "b.jpg", "b.y", "b.JPG", "c.x"])).offset == 3072


@pytest.mark.parametrize("pack", [bytes, *COMPRESSORS.values()])
def test_interleaved_members_are_an_error(pack):
    """A key that comes back after another is named, with both places: WebDataset would give torn samples."""
    error = error_of(pack(shard(["a.jpg", "b.jpg", "c.jpg", "b.cls"])))
    assert (error.key, error.offset) == ("b", 3072) and "1024" in error.message


def test_an_unfinished_last_sample_is_never_given():
    """Cut at a member's end inside a sample, an archive without end blocks is an error; between samples a warning."""
    data = shard([f"{i}.{field}" for i in range(4) for field in ("cls", "jpg")])
    for members in range(1, 9):
        cut = data[: 1024 * members]
        if members % 2 and members > 1:
            error = error_of(cut)
            assert (error.problem, error.offset, error.key) == ("truncated", 1024 * members, str(members // 2))
        else:
            assert index_of(cut).num_samples.sum() == (members + 1) // 2


def test_missing_end_blocks_are_said(caplog):
    """An archive that ends at a member's end is read, and a warning names the place."""
    index_of(shard(["a.x"])[:1024])
    assert "no end blocks at byte 1024" in caplog.text


def test_every_cut_of_a_shard_is_an_error_or_whole_samples():
    """Cut at each byte of its first 4 kB, a foreign shard gives an error, or whole samples from its begin."""
    data = by_tarfile(
        {f"{i}.{field}": bytes([i]) * 40 for i in range(3) for field in ("cls", "jpg")}, tarfile.PAX_FORMAT, mtime=0.5
    )
    whole = samples_by_twin(data)
    for cut in range(4096):
        try:
            got = samples_of(data[:cut], index_of(data[:cut]))
        except ShardError:
            continue
        assert cut == 2048 or got == whole[: len(got)]  # one member: nothing tells that its sample had two


def test_every_flipped_byte_is_an_error_or_sound_samples():
    """Flip each byte of a small foreign shard: an error, or samples that the slow twin reads from the same bytes."""
    data = bytearray(by_tarfile({"a/0.cls": b"1", "a/0.jpg": b"x" * 300, "a/1.cls": b"2"}, tarfile.USTAR_FORMAT)[:4096])
    for at in range(len(data)):
        bit = 1 << at % 8
        data[at] ^= bit
        try:
            assert samples_of(bytes(data), index_of(bytes(data))) == samples_by_twin(bytes(data))
        except ShardError:
            pass
        data[at] ^= bit


def test_global_headers_stay_in_their_block():
    """After a global header that sets a path or size no block is cut, so that each can be read by itself."""
    record = b"9 size=5\n"
    head = raw(kind=b"g", size=b"%011o\0" % len(record)) + record + tar.padding(len(record))
    for lead in (b"", raw(b"folder/", kind=b"5"), member("README", b"text")):
        data = head + lead + b"".join(raw(b"%d.x" % i) + b"12345" + bytes(507) for i in range(3)) + bytes(1024)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("shardstream.codecs.counting.MAX_BLOCK_NBYTES", 1)
            index = index_of(data)
        assert index.num_samples.tolist() == [3] and [s[1]["x"] for s in samples_of(data, index)] == [b"12345"] * 3


@pytest.mark.parametrize(("data", "word"), [
    (b"", "empty"), (b"not a tar at all" * 100, "not a tar header"),
    (b"\xff\xd8\xff\xe0" + bytes(9000), "not a tar header"), (b"x" * 100, "truncated"),
])  # fmt: skip
def test_what_is_no_tar_is_said(data, word):
    """Empty, foreign and short objects are errors at offset 0."""
    error = error_of(data)
    assert word in str(error) and error.offset == 0


def test_archives_without_samples_have_no_blocks():
    """A tar of nothing, or of files without field, has an index of no blocks."""
    for data in (bytes(1024), shard(["README"]), gzip.compress(bytes(10240))):
        index = index_of(data)
        assert index.num_blocks == 0 and index.extents.shape == (0, 1, 2) and index.crc32c.shape == (0, 1)
        assert foreign.ShardIndex.decode(index.encode()).num_blocks == 0


def test_shards_are_counted_once_and_remembered(tmp_path, caplog):
    """The second opening reads nothing; other bytes under the same URL are counted anew; one line says what is read."""
    cache = foreign.IndexCache(tmp_path)
    memory = Memory(u=shard(["a.x", "b.x"]), v=shard(["c.x"]))
    first = foreign.open_shards(["u", "v"], memory, cache=cache)
    assert [int(one.index.num_samples.sum()) for one in first] == [2, 1]
    assert "20.5 kB once" in caplog.text and "`shardstream index u`" in caplog.text and len(caplog.records) == 1
    memory.reads.clear()
    again = foreign.open_shards(["u", "v"], memory, cache=foreign.IndexCache(tmp_path))
    assert not memory.reads and len(caplog.records) == 1
    assert [one.index.encode() for one in again] == [one.index.encode() for one in first]
    memory.objects["u"] = shard(["a.x", "b.x", "c.x"])
    assert foreign.open_shards(["u"], memory, cache=cache)[0].index.num_samples.tolist() == [3]


def test_damaged_and_unwritable_caches_cost_a_count_only(tmp_path, caplog):
    """Each damaged byte of a remembered index is as good as none; a folder that can't be made is no error."""
    memory = Memory(u=shard(["a.x", "b.x"]))
    cache = foreign.IndexCache(tmp_path)
    expected = foreign.open_shards(["u"], memory, cache=cache)[0].index.encode()
    (path,) = tmp_path.rglob("*.json")
    good = path.read_bytes()
    for at in range(len(good)):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        assert cache.get("u", *memory.identify("u")) is None
    path.write_bytes(good[:-1])
    assert foreign.open_shards(["u"], memory, cache=cache)[0].index.encode() == expected
    assert path.read_bytes() == good and [p.suffix for p in tmp_path.rglob("*.*")] == [".json"]
    blocked = foreign.IndexCache(path / "below-a-file")
    assert foreign.open_shards(["u"], memory, cache=blocked)[0].index.encode() == expected


def test_cache_follows_xdg(monkeypatch, tmp_path):
    """The default folder is the user's cache, as the XDG base directory specification places it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert foreign.IndexCache().folder == tmp_path / "x" / "shardstream" / "indexes"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert foreign.IndexCache().folder == tmp_path / ".cache" / "shardstream" / "indexes"


def test_objects_without_identity_are_never_remembered(tmp_path):
    """Where a store tells neither etag nor time, an index might be another object's, so none is kept."""
    cache = foreign.IndexCache(tmp_path)
    cache.put("u", 5, None, index_of(shard(["a.x"])))
    assert cache.get("u", 5, None) is None and not list(tmp_path.iterdir())


def test_local_files_are_opened_and_told_apart(tmp_path):
    """Through the real fetcher: counted, remembered, counted again when overwritten; a missing one is named."""
    path, cache = tmp_path / "s.tar", foreign.IndexCache(tmp_path / "cache")
    for names in (["a.x"], ["b.x"]):
        path.write_bytes(shard(names))
        (one,) = foreign.open_shards([str(path)], Fetcher(), cache=cache)
        assert one.nbytes == 10240 and one.schema is None and one.index.num_samples.tolist() == [1]
    assert len(list(cache.folder.rglob("*.json"))) == 2
    with pytest.raises(ShardNotFoundError, match="gone.tar"):
        foreign.open_shards([str(path), str(tmp_path / "gone.tar")], Fetcher(), cache=cache)


def test_progress_counts_the_bytes_and_an_error_stops_all_threads(tmp_path):
    """The callback sees about the objects' sizes; after an error in one shard the others end at their next piece."""
    memory = Memory(u=shard([f"{i}.x" for i in range(100)], lambda i: 20000))
    seen = []
    foreign.open_shards(["u"], memory, seen.append, foreign.IndexCache(tmp_path))
    assert len(memory.objects["u"]) <= sum(seen) < len(memory.objects["u"]) + 4096
    memory.objects["bad"] = b"bad" * 1000
    with pytest.MonkeyPatch.context() as patch, pytest.raises(ShardError):
        patch.setattr(foreign, "PIECE_NBYTES", 4096)
        foreign.open_shards(["bad", "u"], memory, cache=foreign.IndexCache(tmp_path / "other"))


def test_memory_is_bounded_by_pieces():
    """No read is longer than a piece, however large the shard."""
    memory = Memory(u=shard(["a.x", "b.x"], lambda i: 9_000_000))
    foreign.index_shard(memory, "u")
    assert max(end - begin for _, begin, end in memory.reads) <= foreign.PIECE_NBYTES
    assert sum(end - begin for _, begin, end in memory.reads) < len(memory.objects["u"]) + 2**17

"""``shardstream cat``, ``verify``, ``export`` and ``index --energon``: samples seen, checked, and given to others."""

from __future__ import annotations

import io
import json
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import webdataset as wds
from PIL import Image

import shardstream as ss
from shardstream.cli import main
from shardstream.export import export
from shardstream.look import Looker, image_kind, to_png
from tests.tiers import SCHEMA, samples

NUM = 500


def jpeg(value: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((16, 16, 3), value, np.uint8)).save(out, "JPEG")
    return out.getvalue()


@pytest.fixture(scope="module")
def blocks(tmp_path_factory) -> str:
    """A dataset in the blocks layout, of several shards."""
    url = str(tmp_path_factory.mktemp("blocks"))
    with ss.ShardWriter(url, schema=SCHEMA, shard_nbytes="20kB") as writer:
        for row in samples(NUM):
            writer.write(row)
    assert len(ss.Dataset(url).shards) > 1
    return url


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> str:
    """A dataset in the files layout."""
    url = str(tmp_path_factory.mktemp("images"))
    with ss.ShardWriter(url) as writer:
        for number in range(20):
            writer.write({"__key__": f"k/{number:04d}", "jpg": jpeg(number * 10), "cls": number})
    return url


def run(capfd, *arguments) -> tuple[int, str, str]:
    status = main([str(argument) for argument in arguments])
    return status, *capfd.readouterr()


# -- cat ------------------------------------------------------------------------------------------


def test_cat_shows_a_sample_of_every_kind(capfd, blocks):
    status, out, err = run(capfd, "cat", blocks, 7)
    wanted = samples(NUM)[7]
    assert status == 0 and err == "" and out.startswith("row 7, ")
    assert f"x: {len(wanted['x'])} of 1,024: {' '.join(map(str, wanted['x'].tolist()))}\n" in out
    assert "v: 2 of 50: 0=3.5 1=3.5\n" in out and "text: añ中\n" in out and "y: 7\n" in out


def test_cat_json_is_a_line_a_sample(capfd, blocks):
    status, out, _ = run(capfd, "cat", blocks, NUM - 2, "--num", 5, "--json", "--field", "y", "--field", "tokens")
    assert status == 0
    assert [json.loads(line)["fields"]["y"] for line in out.splitlines()] == [NUM - 2, NUM - 1]
    assert json.loads(out.splitlines()[0])["fields"]["tokens"] == samples(NUM)[NUM - 2]["tokens"].tolist()


def test_cat_shows_whatever_foreign_members_hold(capfd, tmp_path):
    """Half a surrogate pair in JSON, and arrays within a dict, are printed both ways."""
    arrays = io.BytesIO()
    np.savez(arrays, a=np.arange(3))
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, data in (("0.json", b'{"half": ["\\ud800"]}'), ("1.json", b'"\\ud800"'),
                           ("2.npz", arrays.getvalue())):  # fmt: skip
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    status, out, _ = run(capfd, "cat", tmp_path / "a.tar", "--num", 3)
    assert status == 0 and out.count("\\ud800") == 2
    status, out, _ = run(capfd, "cat", tmp_path / "a.tar", "--num", 3, "--json")
    found = [json.loads(line)["fields"] for line in out.splitlines()]
    assert status == 0 and found == [{"json": {"half": ["\\ud800"]}}, {"json": "\\ud800"}, {"npz": {"a": [0, 1, 2]}}]


def test_rows_count_from_the_end_as_in_python(blocks):
    looker = Looker(blocks)
    for row in (0, 1, len(looker) - 1):
        assert looker.sample(row - len(looker)).id == looker.sample(row).id and looker.sample(row - len(looker)).row == row
    assert looker.sample(-1).fields["y"] == NUM - 1
    for row in (len(looker), -len(looker) - 1):
        with pytest.raises(ss.ConfigError, match=f"no row {row}"):
            looker.sample(row)


def test_each_row_of_each_block_is_found(tmp_path):
    """By its number, wherever blocks and shards begin; and named by its shard, also in the files layout."""
    with ss.ShardWriter(str(tmp_path / "b"), schema=ss.Schema(y=ss.Dense("int64"))) as writer, ss.ShardWriter(str(tmp_path / "f")) as files:
        for number in range(50):
            writer.write({"y": number})
            files.write({"__key__": f"k{number}", "cls": number})
            if number % 7 == 6:
                writer._close_block()
            if number % 20 == 19:
                writer._close_block()
                writer._roll(False)
    for name, field in (("b", "y"), ("f", "cls")):
        looker = Looker(str(tmp_path / name))
        found = [looker.sample(row) for row in range(50)]
        assert [sample.fields[field] for sample in found] == list(range(50)) == [looker.row_of(sample.id) for sample in found]


def test_a_sample_is_found_by_its_id(capfd, blocks):
    sample = Looker(blocks).sample(NUM - 1)
    assert Looker(blocks).row_of(sample.id) == NUM - 1
    for row in (sample.id, "last"):
        assert f"y: {NUM - 1}\n" in run(capfd, "cat", blocks, row)[1]


def test_cat_writes_images_as_png(capfd, images, tmp_path):
    """An encoded image becomes a PNG file named by row and field."""
    status, out, _ = run(capfd, "cat", images, 3, "--images", tmp_path / "out")
    assert status == 0 and "jpg: JPEG image" in out
    assert abs(int(np.array(Image.open(tmp_path / "out/3-jpg.png"))[0, 0, 0]) - 30) < 3


@pytest.mark.parametrize("shape, mode", [((8, 9), "L"), ((8, 9, 1), "L"), ((8, 9, 3), "RGB"), ((3, 8, 9), "RGB"), ((8, 9, 4), "RGBA")])
def test_arrays_of_pixels_are_images(shape, mode):
    """uint8 arrays of an image's shape become that image; others are none."""
    value = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    image = Image.open(io.BytesIO(to_png(value)))
    pixels = np.moveaxis(value, 0, 2) if shape[0] == 3 else value
    assert image.mode == mode and np.array_equal(np.array(image), pixels.squeeze())
    assert image_kind(value) == "array" and image_kind(value.astype(np.int16)) is None and image_kind(np.zeros((2, 3), np.uint8)) is None


def test_damaged_and_giant_images_are_errors():
    with pytest.raises(ss.CodecError, match="can be decoded"):
        to_png(b"\xff\xd8\xff nothing")
    other = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(other, "PPM")  # pillow reads it; a sample is never taken for it
    with pytest.raises(ss.CodecError, match="can be decoded"):
        to_png(other.getvalue())
    giant = bytearray(to_png(np.zeros((8, 8), np.uint8)))
    giant[16:24] = (60_000).to_bytes(4, "big") * 2
    with pytest.raises(ss.CodecError):
        to_png(bytes(giant))
    giant[16:24] = (8300).to_bytes(4, "big") * 2  # of which pillow itself only warns
    giant[29:33] = zlib.crc32(giant[12:29]).to_bytes(4, "big")
    with pytest.raises(ss.CodecError, match="8300 x 8300 pixels is not shown"):
        to_png(bytes(giant))


@pytest.mark.parametrize("arguments, status, message", [
    (["99999"], 2, "there is no row 99999"),
    (["abc"], 2, "neither a row number"),
    (["00000000-0000-0000-0000-000000000000:1"], 2, "no shard of version"),
    (["0", "--field", "nope"], 2, "the dataset has"),
])  # fmt: skip
def test_cat_mistakes_are_one_line(capfd, blocks, arguments, status, message):
    found, out, err = run(capfd, "cat", blocks, *arguments)
    assert found == status and out == "" and message in err and err.count("\n") == 1


# -- verify ---------------------------------------------------------------------------------------


def test_verify_counts_what_is_good(capfd, blocks, images):
    status, out, _ = run(capfd, "verify", blocks, "--json")
    report = json.loads(out)
    assert status == 0 and report["errors"] == [] and report["num_samples"] == NUM and report["num_shards"] == len(ss.Dataset(blocks).shards)
    assert run(capfd, "verify", images)[1].endswith(": all good\n")


@pytest.fixture
def fresh(tmp_path) -> Path:
    with ss.ShardWriter(str(tmp_path), schema=SCHEMA, shard_nbytes="20kB") as writer:
        for row in samples(NUM):
            writer.write(row)
    return tmp_path


def test_verify_lists_every_bad_block(capfd, fresh):
    """A flipped byte, a missing shard and a cut one are each found, and the rest is still read."""
    first, second, *_ = paths = [Path(url) for url in ss.Dataset(str(fresh)).shards]
    data = bytearray(first.read_bytes())
    data[first.stat().st_size // 2] ^= 1
    first.write_bytes(data)
    second.unlink()
    status, out, _ = run(capfd, "verify", fresh, "--json")
    errors = json.loads(out)["errors"]
    assert status == 1 and {error["shard"] for error in errors} == {str(first), str(second)}
    assert 0 < json.loads(out)["num_samples"] < NUM or len(paths) == 2
    text = run(capfd, "verify", fresh)[1]
    assert text.count("bad: ") == len(errors) and text.endswith(f"{len(errors)} bad\n")


def test_verify_lists_all_that_is_bad_of_one_shard(capfd, tmp_path, monkeypatch):
    """Each damaged block of a shard and its first member are errors of their own; of very many the first are shown, all
    are counted.
    """
    with ss.ShardWriter(str(tmp_path), schema=ss.Schema(y=ss.Dense("int64"))) as writer:
        writer.write_batch({"y": np.arange(4 * 8192)})
    (path,) = tmp_path.glob("*.tar")
    (blocks,) = (Looker(str(tmp_path))._reader.index(0)[0].extents[:, 0, 0].tolist(),)
    data = bytearray(path.read_bytes())
    for place in (512 + 3, blocks[0] + 300, blocks[1] + 300, blocks[3] + 300):
        data[place] ^= 1
    path.write_bytes(data)
    status, out, _ = run(capfd, "verify", tmp_path, "--json")
    report = json.loads(out)
    assert status == 1 and [error["block"] for error in report["errors"]] == [0, 1, 3, None] and report["num_bad"] == 4
    monkeypatch.setattr("shardstream.verify.MAX_ERRORS", 2)
    status, out, _ = run(capfd, "verify", tmp_path)
    assert status == 1 and out.count("block ") == 2 and "bad: 2 more\n" in out and out.endswith("; 4 bad\n")


def test_verify_sees_a_damaged_first_member(capfd, fresh):
    """shard.json is not needed to read a logged shard, and is checked all the same."""
    path = Path(ss.Dataset(str(fresh)).shards[0])
    data = bytearray(path.read_bytes())
    data[512 + 3] ^= 1
    path.write_bytes(data)
    status, out, _ = run(capfd, "verify", fresh)
    assert status == 1 and out.count("bad: ") == 1 and path.name in out


def test_verify_of_a_broken_log_is_an_error(capfd, fresh):
    (fresh / "_log" / f"{0:020d}.json").write_text("{")
    status, out, err = run(capfd, "verify", fresh)
    assert status == 1 and out == "" and err.count("\n") == 1


# -- export ---------------------------------------------------------------------------------------


def test_exported_samples_read_as_plain_webdataset(blocks, tmp_path):
    """webdataset decodes the very values, in order; none of our own members are in the tars."""
    done = export(blocks, str(tmp_path / "x-%03d.tar"), shard_nbytes="300kB")
    assert done.num_samples == NUM and len(done.urls) > 2 and sum(Path(url).stat().st_size for url in done.urls) == done.nbytes
    assert not [name for url in done.urls for name in tarfile.open(url).getnames() if "__" in name]
    read = list(wds.WebDataset(done.urls, shardshuffle=False, empty_check=False).decode())
    assert len(read) == NUM and len({sample["__key__"] for sample in read}) == NUM
    for got, wanted in zip(read, samples(NUM)):
        assert got["y.cls"] == wanted["y"] and got["text.txt"] == wanted["text"] and got["raw"] == wanted["raw"]
        assert got["x.npy"].tolist() == wanted["x"].tolist() and got["v_values.npy"].tolist() == wanted["v"][1].tolist()
        assert got["img.npy"].tolist() == wanted["img"].tolist() and got["tokens.npy"].dtype == np.uint16


def test_the_files_layout_keeps_keys_and_bytes(images, tmp_path):
    done = export(images, str(tmp_path / "y-%d.tar"), fields=["jpg"])
    with tarfile.open(done.urls[0]) as tar:
        assert tar.getnames() == [f"k/{number:04d}.jpg" for number in range(20)]
        assert tar.extractfile("k/0003.jpg").read() == jpeg(30)


def test_samples_of_one_key_do_not_become_one(tmp_path):
    """Two shards may use a key each; side by side in one tar they would read as one sample."""
    with ss.ShardWriter(str(tmp_path / "d"), producer="p") as writer:
        for text in ("first", "second"):
            writer.write({"__key__": "a", "txt": text})
            writer.flush()
    done = export(str(tmp_path / "d"), str(tmp_path / "x-%d.tar"))
    assert [sample["txt"] for sample in wds.WebDataset(done.urls, shardshuffle=False, empty_check=False).decode()] == ["first", "second"]


@pytest.mark.parametrize("name", ["../escape.txt", "/etc/passwd.txt", "a/../../b.txt"])
def test_unsafe_names_of_a_hostile_shard_are_refused(tmp_path, name):
    """A key that would leave the folder it is unpacked in is not passed on; nothing is written."""
    with tarfile.open(tmp_path / "hostile.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(ss.SampleError) as caught:
        export([str(tmp_path / "hostile.tar")], str(tmp_path / "x-%d.tar"))
    assert caught.value.shard.endswith("hostile.tar") and not list(tmp_path.glob("x-*"))


@pytest.mark.parametrize("pattern", ["x.tar", "x-%d-%d.tar", "x-%s.tar", "x-%d.txt", "%d/x.tar", "x-%%d.tar"])
def test_a_pattern_has_one_number(blocks, tmp_path, pattern):
    with pytest.raises(ss.ConfigError, match="one number"):
        export(blocks, str(tmp_path / pattern))


def test_fields_that_would_be_one_member_are_refused(tmp_path):
    """The values of a sparse field x go to x_values.npy, where a field x_values would go, too."""
    schema = ss.Schema(x=ss.Sparse(9, values="float32"), x_values=ss.Dense("float32", (2,)))
    with ss.ShardWriter(str(tmp_path / "d"), schema=schema) as writer:
        writer.write({"x": ([1, 2], [0.5, 0.5]), "x_values": [7.0, 8.0]})
    with pytest.raises(ss.ConfigError, match=r"the member x_values\.npy"):
        export(str(tmp_path / "d"), str(tmp_path / "x-%d.tar"))
    assert export(str(tmp_path / "d"), str(tmp_path / "x-%d.tar"), fields=["x"]).num_samples == 1


def test_an_existing_shard_is_not_replaced(capfd, blocks, tmp_path):
    assert run(capfd, "export", blocks, tmp_path / "x-%d.tar", "--field", "y")[0] == 0
    before = (tmp_path / "x-0.tar").read_bytes()
    status, _, err = run(capfd, "export", blocks, tmp_path / "x-%d.tar")
    assert status == 2 and "exists" in err and (tmp_path / "x-0.tar").read_bytes() == before


# -- Energon --------------------------------------------------------------------------------------


def test_energon_index_is_where_samples_begin(capfd, images, tmp_path):
    """The offsets are those that tarfile gives of each sample's first member, and the end of the last member."""
    done = export(images, str(tmp_path / "y-%d.tar"))
    assert run(capfd, "index", tmp_path, "--energon")[0] == 0
    found = np.fromfile(f"{done.urls[0]}.idx", "<u8").tolist()
    with tarfile.open(done.urls[0]) as tar:
        starts = [member.offset for member in tar.getmembers() if member.name.endswith(".cls")]
        assert found == [*starts, tar.offset]


def test_energon_index_of_a_compressed_shard_is_refused(capfd, images, tmp_path):
    import gzip

    done = export(images, str(tmp_path / "y-%d.tar"))
    Path(f"{done.urls[0]}.gz").write_bytes(gzip.compress(Path(done.urls[0]).read_bytes()))
    status, _, err = run(capfd, "index", f"{done.urls[0]}.gz", "--energon")
    assert status == 1 and "compressed" in err

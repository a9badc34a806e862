"""Each source of packing jobs: its rows in order, its columns, what it says of bad input; cut anywhere, the same rows.
"""

import csv
import gzip
import io
import json
import os
import tarfile
import threading
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

import shardstream as ss
from shardstream.errors import ConfigError, SampleError
from shardstream.packing import pack, sources
from shardstream.packing.document import Document
from shardstream.packing.job import load, prepare
from shardstream.packing.sources import files
from shardstream.packing.sources.jsonl import JsonlSource
from shardstream.packing.sources.kinds import SOURCES
from shardstream.packing.sources.lines import blocks_of_lines, ranges_of
from shardstream.storage.find import FoundFile, find_files

DATA = Path(os.environ.get("SHARDSTREAM_DATA", Path(__file__).resolve().parents[2] / "shared/data"))
with_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no real data at {DATA}")


def read(**source) -> tuple[list[dict], list[str]]:
    """Return ``(rows, messages of the rejects)`` that a source gives."""
    document = Document({"source": source}, {})
    kind, kind_settings = SOURCES[source.pop("kind")]
    reader = kind(document.convert(("source",), source, kind_settings), document)
    rows, rejects = [], []
    for part in reader.parts():
        for chunk in reader.read(part):
            columns = {name: aslist(column, len(chunk)) for name, column in chunk.columns.items()}
            rows += [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
            rejects += [str(reject) for reject in chunk.rejects]
    return rows, rejects


def aslist(column, count):
    if isinstance(column, tuple):
        return [column[0][column[1][row] : column[1][row + 1]].tolist() for row in range(count)]
    return column.tolist() if isinstance(column, np.ndarray) else column


def write(path: Path, data: bytes) -> Path:
    """Write a file, compressed as its name says."""
    if path.suffix == ".gz":
        data = gzip.compress(data)
    elif path.suffix == ".zst":
        data = zstandard.ZstdCompressor().compress(data)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


@pytest.fixture
def tiny(monkeypatch):
    """Cut every input into parts of a few bytes, and read a few bytes at a time."""
    monkeypatch.setattr(sources, "MIN_PART_NBYTES", 8)
    monkeypatch.setattr(sources, "FEW_PARTS", 1000)
    monkeypatch.setattr("shardstream.packing.sources.lines.CHUNK_NBYTES", 16)


@pytest.mark.parametrize(
    "total_mib, part_mib", [(0, 1), (1, 1), (100, 6.25), (512, 32), (1 << 20, 32), (4 << 20, 128), (1 << 30, 256)]
)
def test_size_of_parts(total_mib, part_mib):
    """Parts follow from the input's size alone."""
    assert sources.part_nbytes(total_mib << 20) == part_mib * 2**20


# -- lines ----------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=9).map(lambda line: line.replace(b"\n", b"")), max_size=12), st.booleans(), st.integers(1, 30))
@settings(max_examples=150, deadline=None)
def test_every_line_is_in_one_range(tmp_path_factory, lines, ends, nbytes):
    """However a file is cut, each line is read once, at its offset; with or without an end of the last."""
    path = tmp_path_factory.mktemp("lines") / "a"
    data = b"\n".join(lines) + b"\n" * ends
    path.write_bytes(data)
    found = []
    for piece in ranges_of(find_files(str(path)), nbytes):
        for offset, block in blocks_of_lines(piece, {}):
            for line in block.split(b"\n"):
                found.append((offset, line))
                offset += len(line) + 1
    expected, offset = [], 0
    for line in data.removesuffix(b"\n").split(b"\n") if data else []:
        expected.append((offset, line))
        offset += len(line) + 1
    assert found == expected


@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
def test_jsonl(tmp_path, tiny, ending):
    """An object a line; its own key or its place; empty lines are passed over; compressed is the same."""
    rows = [{"n": number, "text": "é\n" * number} for number in range(20)]
    data = "\n".join(json.dumps(row) for row in rows) + "\n\n" + json.dumps({"key": 7, "n": 20})
    path = write(tmp_path / f"a.jsonl{ending}", data.encode())
    found, rejects = read(kind="jsonl", paths=str(path))
    assert rejects == [] and [row["n"] for row in found] == list(range(21))
    assert [row.get("text") for row in found[:20]] == [row["text"] for row in rows]
    assert [row["key"] for row in found[:2]] == [f"a.jsonl{ending}:0",
                                                 f"a.jsonl{ending}:{len(json.dumps(rows[0])) + 1}"]  # fmt: skip
    assert found[20]["key"] == "7"
    assert [row["key"] for row in read(kind="jsonl", paths=str(path), key="n")[0]] == [str(n) for n in range(21)]


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_jsonl_errors_name_file_and_line(tmp_path, tiny, ending):
    """What is not JSON, not UTF-8 or no object is a reject with file and line; the other lines are read."""
    path = write(tmp_path / f"a.jsonl{ending}",
                 b'{"n": 1}\n{"n": \n[1]\n{"n": "\xff"}\n{"n": 5}\n' + b"[" * 10**5 + b"\n")  # fmt: skip
    found, rejects = read(kind="jsonl", paths=str(path))
    assert [row["n"] for row in found] == [1, 5] and len(rejects) == 4
    for number, message in zip((2, 3, 4, 6), rejects, strict=True):
        assert message.startswith(f"line {number} of {path}: ")


JSON_LINES = ['{"n": 1}', '{"n": 2, "key": "k"}', '{"n":', '2}', '{"n": [', '{}]}', '{}', '{} {}', "", " ", "[1]", "7",
              '{"n": "\\n"}', "{", "}", '{"n": 1}\r']  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(JSON_LINES), max_size=6), st.booleans())
def test_jsonl_lines_taken_together_are_those_taken_one_by_one(lines, ends):
    """Whatever lines hold, also values that go on in the next one: the records, keys and errors of each line by itself.
    """
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = write(Path(folder) / "a.jsonl", ("\n".join(lines) + "\n" * ends).encode())
        together = read(kind="jsonl", paths=str(path))
        patch.setattr(JsonlSource, "records", lambda self, data: None)
        assert together == read(kind="jsonl", paths=str(path))


def test_jsonl_object_without_the_key_that_is_named_is_a_reject(tmp_path):
    """A misspelt or missing key never becomes a place in silence: splits by a hash of it would be others."""
    path = write(tmp_path / "a.jsonl", b'{"id": 5}\n{"n": 1}\n{"id": null}\n')
    found, rejects = read(kind="jsonl", paths=str(path), key="id")
    assert [row["key"] for row in found] == ["5"]
    assert [reject.partition(" [")[0] for reject in rejects] == [f"line {line} of {path}: there is no 'id', which is to be the key." for line in (2, 3)]


def test_jsonl_of_whole_objects_is_not_decoded_line_by_line(tmp_path, monkeypatch):
    """A file as others write it costs one call for thousands of lines."""
    path = write(tmp_path / "a.jsonl", b"".join(b'{"n": %d}\n' % n for n in range(5000)))
    monkeypatch.delattr(JsonlSource, "record")
    rows = read(kind="jsonl", paths=str(path))[0]
    assert [row["n"] for row in rows] == list(range(5000)) and rows[1]["key"] == "a.jsonl:9"


def test_jsonl_error_ends_a_job_with_its_line(tmp_path):
    """Under ``on_error: raise`` the first bad line in order of rows is the error, whatever worker met it."""
    lines = [json.dumps({"n": number}) for number in range(3000)]
    lines[1234] = "{"
    lines[2345] = "["
    path = write(tmp_path / "a.jsonl", "\n".join(lines).encode())
    config = {"source": {"kind": "jsonl", "paths": str(path)}, "fields": {"n": {"kind": "dense", "dtype": "int64"}}}
    with pytest.raises(SampleError, match=f"line 1235 of {path}: not JSON"):
        pack({**config, "output": {"url": str(tmp_path / "out")}})


def test_compressed_file_that_is_cut_off(tmp_path):
    """What can be read is; the rest is one reject that names the file."""
    data = b"".join(b'{"n": %d}\n' % number for number in range(50_000))
    for ending in (".gz", ".zst"):
        path = write(tmp_path / f"a.jsonl{ending}", data)
        path.write_bytes(path.read_bytes()[:-30])
        found, rejects = read(kind="jsonl", paths=str(path))
        assert len(rejects) <= 2 and f"a.jsonl{ending}" in rejects[-1] and len(found) < 50_000


def test_libsvm(tmp_path, tiny):
    """Labels as they are written and as numbers; 1-based indices; comments; explicit zeros are no members."""
    path = write(tmp_path / "a", b"+1 1:1 3:1 # c\n\n-1 qid:4 2:1 4:0\nspam\n")
    found, rejects = read(kind="libsvm", paths=str(path), dim=4)
    assert rejects == []
    assert [(row["label"], row["x"], row.get("target")) for row in found] == [
        ("+1", [0, 2], 1.0), ("-1", [1], -1.0), ("spam", [], None),
    ]  # fmt: skip
    path.write_bytes(b"1 0:0.5 3:2\n")
    assert read(kind="libsvm", paths=str(path), dim=4, zero_based=True,
                values="float32")[0][0]["x"] == ([0, 3], [0.5, 2.0])  # fmt: skip


@pytest.mark.parametrize(
    "line, message",
    [
        (b"1 5:1", "the index 5 is not from 1 to 4."),
        (b"1 0:1", "the index 0 is not from 1 to 4."),
        (b"1 2", "'2' is not index:value."),
        (b"1 a:1", "'a:1' is not index:value."),
        (b"1 1:0.5", "the value 0.5 is neither 0 nor 1: say values: float32."),
        (b"1 1:\xff", "not LIBSVM: bytes that are not ASCII."),
    ],
)
def test_libsvm_errors(tmp_path, line, message):
    """A bad line is a reject that says file, line and rule."""
    path = write(tmp_path / "a", b"1 1:1\n" + line + b"\n1 2:1")
    found, rejects = read(kind="libsvm", paths=str(path), dim=4)
    assert len(found) == 2 and rejects[0].startswith(f"line 2 of {path}: {message}")


@with_data
def test_libsvm_of_agaricus():
    """6,513 rows of 22 features each, as its description says."""
    found, rejects = read(kind="libsvm", paths=str(DATA / "sparse/agaricus.txt.train"), dim=127)
    assert len(found) == 6513 and rejects == [] and all(len(row["x"]) == 22 for row in found)
    assert sum(row["label"] == "1" for row in found) == 3140


# -- CSV ------------------------------------------------------------------------------------------

cells = st.text(alphabet=st.sampled_from('ab1", \n\ré'), max_size=6)


@given(st.lists(st.tuples(cells, cells), max_size=15), st.sampled_from(["\n", "\r\n"]), st.integers(1, 60))
@settings(max_examples=150, deadline=None)
def test_csv_rows_are_the_same_however_the_file_is_cut(tmp_path_factory, rows, end, nbytes):
    """Values with quotes, delimiters and line ends in them survive any cut into parts."""
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        bare = nbytes % 2 == 0 and not any("\r" in cell for row in rows for cell in row)  # the writer leaves those bare
        writer = csv.writer(file, lineterminator=end, quoting=csv.QUOTE_MINIMAL if bare else csv.QUOTE_ALL)
        writer.writerows([("a", "b"), *rows])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "MIN_PART_NBYTES", nbytes)
        patch.setattr(sources, "FEW_PARTS", 1000)
        found, rejects = read(kind="csv", paths=str(path))
    assert rejects == [] and [(row["a"], row["b"]) for row in found] == rows


def test_csv_stray_quotes_do_not_move_rows(tmp_path, tiny):
    """A quote inside an unquoted value is a character, as the csv module has it; it hides no line end."""
    text = 'a,b\n5" pipe,x\n"two\nlines",y\n6" pipe,z\n' * 1
    path = write(tmp_path / "a.csv", text.encode())
    assert [(row["a"], row["b"]) for row in read(kind="csv", paths=str(path))[0]] == [
        ('5" pipe', "x"), ("two\nlines", "y"), ('6" pipe', "z"),
    ]  # fmt: skip


def test_csv_types_keys_and_dialects(tmp_path):
    """Types by column, keys by column or line; other delimiters, no header, other encodings, a BOM, .gz."""
    path = write(tmp_path / "a.csv", "\ufeffname,n,x\nä,1,0.5\nb,,2\n".encode())
    found, _ = read(kind="csv", paths=str(path), types={"n": "int", "x": "float"}, key="name")
    assert [(row["key"], row["n"], row["x"]) for row in found] == [("ä", 1, 0.5), ("b", None, 2.0)]
    path = write(tmp_path / "b.tsv.gz", 'é\t"\nx\ty\n'.encode("latin-1"))
    found, _ = read(kind="csv", paths=str(path), delimiter="\t", quote=None, header=False, names=["p", "q"],
                    encoding="latin-1")  # fmt: skip
    assert [(row["key"], row["p"], row["q"]) for row in found] == [("b.tsv.gz:1", "é", '"'), ("b.tsv.gz:2", "x", "y")]
    long = "x" * 500_000
    assert read(kind="csv", paths=str(write(tmp_path / "c.csv", f"a\n{long}\n".encode())))[0][0]["a"] == long


def test_csv_errors_name_file_and_line(tmp_path, tiny):
    """Too few values, no number, no text, an open quote: rejects with file and line; other rows are read."""
    data = b'a,n\nx,1\n"l1\nl2",2\nshort\nx,many\n\xff,5\nz,6\n"y"z,7\nlast,8\n'
    path = write(tmp_path / "a.csv", data)
    found, rejects = read(kind="csv", paths=str(path), types={"n": "int"})
    assert [row["n"] for row in found] == [1, 2, 6, 8]
    expected = {5: "1 values for 2 columns", 6: "'many' is not int", 7: "not utf-8 text", 9: "not CSV"}
    assert len(rejects) == 4
    for (line, words), message in zip(expected.items(), rejects, strict=True):
        assert message.startswith(f"line {line} of {path}: {words}")
    other = write(tmp_path / "b.csv", b"a,b\n1,2\n")
    found, rejects = read(kind="csv", paths=[str(path), str(other)], types={"n": "int"})
    assert any(f"line 1 of {other}: another header" in message for message in rejects)


# -- pyarrow --------------------------------------------------------------------------------------


@pytest.fixture
def arrow():
    return pytest.importorskip("pyarrow", reason="pyarrow, of the extra 'arrow', is not installed")


def table_of(arrow, count):
    return arrow.table({
        "name": [f"n{number}" for number in range(count)],
        "n": arrow.array(range(count), arrow.int32()),
        "x": arrow.array([[float(number)] * (number % 4) for number in range(count)], arrow.list_(arrow.float32())),
        "v": arrow.array([[number, number + 1] for number in range(count)], arrow.list_(arrow.int16(), 2)),
        "raw": arrow.array([b"%d" % number for number in range(count)], arrow.binary()),
        "maybe": arrow.array([None if number % 3 else number for number in range(count)], arrow.int64()),
        "label": arrow.array(["a", "b"] * (count // 2)).dictionary_encode(),
    })  # fmt: skip


def check_table(rows, count):
    for number, row in enumerate(rows):
        assert row["name"] == f"n{number}" and row["n"] == number and row["v"] == [number, number + 1]
        assert row["x"] == [float(number)] * (number % 4) and row["raw"] == b"%d" % number
        assert row["maybe"] == (None if number % 3 else number) and row["label"] == "ab"[number % 2]
    assert len(rows) == count


def test_parquet(tmp_path, tiny, arrow):
    """Row groups in order; numbers, lists, texts, bytes, nulls and dictionaries become columns of known kinds."""
    import pyarrow.parquet

    pyarrow.parquet.write_table(table_of(arrow, 100), tmp_path / "a.parquet", row_group_size=30)
    rows, rejects = read(kind="parquet", paths=str(tmp_path))
    assert rejects == [] and [rows[0]["key"], rows[99]["key"]] == ["a.parquet:0", "a.parquet:99"]
    check_table(rows, 100)
    rows, _ = read(kind="parquet", paths=str(tmp_path / "a.parquet"), columns=["n"], key="name")
    assert list(rows[5]) == ["n", "name", "key"] and rows[5]["key"] == "n5"
    config = {"source": {"kind": "parquet", "paths": str(tmp_path / "a.parquet"), "key": "name"},
              "fields": {"n": None, "x": None, "v": None, "raw": None, "name": None, "y": {"from": "label", "classes": "auto"}},
              "output": {"url": str(tmp_path / "out")}}  # fmt: skip
    pack(config)
    assert ss.Dataset(str(tmp_path / "out")).schema == ss.Schema(
        n=ss.Dense("int32"), x=ss.Ragged("float32"), v=ss.Dense("int16", (2,)), raw=ss.Bytes(), name=ss.Text(),
        y=ss.Dense("int64"))  # fmt: skip
    assert [int(row["y"]) for row in ss.ShardStream(str(tmp_path / "out"))][:4] == [0, 1, 0, 1]


def test_parquet_that_is_none(tmp_path, arrow):
    """Another file under that name is an error with its place."""
    write(tmp_path / "a.parquet", b"not parquet")
    with pytest.raises(ConfigError, match=r"source\.paths: .*a\.parquet cannot be read"):
        read(kind="parquet", paths=str(tmp_path))


def test_hugging_face_dataset_on_disk(tmp_path, tiny, arrow):
    """The files that state.json names, in its order; a folder of splits says which there are."""
    saved = tmp_path / "train"
    saved.mkdir()
    table = table_of(arrow, 40)
    for number, rows in enumerate((table.slice(0, 25), table.slice(25))):
        with arrow.OSFile(str(saved / f"data-{number}.arrow"), "wb") as sink:
            with arrow.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(rows, max_chunksize=7)
    (saved / "state.json").write_text(json.dumps({"_data_files": [{"filename": f"data-{n}.arrow"} for n in (0, 1)]}))
    rows, rejects = read(kind="hf", paths=str(saved))
    assert rejects == [] and rows[30]["key"] == "data-1.arrow:5"
    check_table(rows, 40)
    with pytest.raises(ConfigError, match="it holds train: name one of these"):
        read(kind="hf", paths=str(tmp_path))


def test_hugging_face_s_own_files(tmp_path, arrow):
    """What the datasets package itself saves is read."""
    datasets = pytest.importorskip("datasets", reason="the rival package datasets is not installed")
    datasets.Dataset.from_dict({"t": ["a", "b"], "n": [1, 2]}).save_to_disk(str(tmp_path / "d"))
    assert [(row["t"], row["n"]) for row in read(kind="hf", paths=str(tmp_path / "d"))[0]] == [("a", 1), ("b", 2)]


# -- images, IDX, WebDataset ----------------------------------------------------------------------


@pytest.fixture
def pillow():
    return pytest.importorskip("PIL.Image", reason="Pillow, of the extra 'image', is not installed")


def png(pillow, array) -> bytes:
    file = io.BytesIO()
    pillow.fromarray(array).save(file, "PNG")
    return file.getvalue()


def test_image_folders(tmp_path, pillow):
    """Bytes as they are, or pixels of one size; the folder is the class; what is no image is a reject."""
    array = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    for name in ("cat/1.png", "dog/2.png"):
        write(tmp_path / name, png(pillow, array))
    write(tmp_path / "dog/notes.txt", b"no image")
    rows, rejects = read(kind="images", paths=str(tmp_path))
    assert rejects == [] and [(row["key"], row["top"]) for row in rows] == [("cat/1.png", "cat"), ("dog/2.png", "dog")]
    assert rows[0]["image"] == png(pillow, array)
    rows, _ = read(kind="images", paths=str(tmp_path), size=[4, 6])
    assert (rows[0]["image"] == array).all()
    assert read(kind="images", paths=str(tmp_path), size=[2, 3], mode="L")[0][0]["image"].shape == (2, 3)
    write(tmp_path / "dog/3.png", png(pillow, array)[:50])
    write(tmp_path / "dog/4.png", b"")
    rows, rejects = read(kind="images", paths=str(tmp_path), size=[4, 6])
    assert len(rows) == 2 and [f"dog/{n}.png is not an image" in message for n, message in zip((3, 4), rejects)] == [True] * 2
    write(tmp_path / "dog/5.png", b"no image")
    assert "dog/5.png is not an image: it is of no format that Pillow knows." in read(kind="images", paths=str(tmp_path), size=[4, 6])[1][2]


def idx(array) -> bytes:
    codes = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}
    head = bytes([0, 0, codes[array.dtype.str[1:]], array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_idx(tmp_path, tiny, ending):
    """Arrays side by side, in native byte order; rows are numbered."""
    pixels = np.arange(20 * 6, dtype=np.uint8).reshape(20, 2, 3)
    weights = np.arange(20, dtype=np.float32) / 3
    files = {"pixels": str(write(tmp_path / f"p{ending}", idx(pixels))),
             "w": str(write(tmp_path / f"w{ending}", idx(weights)))}  # fmt: skip
    rows, rejects = read(kind="idx", arrays=files)
    assert rejects == [] and [row["key"] for row in rows] == [str(number) for number in range(20)]
    assert [row["pixels"] for row in rows] == pixels.tolist() and [row["w"] for row in rows] == weights.tolist()
    if not ending:
        Path(files["w"]).write_bytes(idx(weights)[:-4])
        rows, rejects = read(kind="idx", arrays=files)
        assert 0 < len(rows) < 20 and "is cut off or damaged: 20 rows are announced" in rejects[0]


@pytest.mark.parametrize("data", [b"", b"\0\0\x08", b"\0\0\x08\x01\0\0", b"\0\0\x07\x01\0\0\0\x01a", b"\x89PNG....", b"\0\0\x08\x00"])
def test_idx_that_is_none(tmp_path, data):
    """Any other bytes are an error with the key and the file."""
    with pytest.raises(ConfigError, match=r"source\.arrays\.x: .* is no IDX file"):
        read(kind="idx", arrays={"x": str(write(tmp_path / "a", data))})


@with_data
def test_idx_of_mnist():
    """10,000 digits of 28 x 28 pixels, a thousand or so of each class."""
    names = {"image": "t10k-images-idx3-ubyte.gz", "label": "t10k-labels-idx1-ubyte.gz"}
    config = {"source": {"kind": "idx", "arrays": {name: str(DATA / "images" / file) for name, file in names.items()}},
              "fields": {"image": None, "label": None}, "output": {"url": "none"}}  # fmt: skip
    job = prepare(load(config))
    assert job.source.num_rows == 10_000 and job.schema["image"] == ss.Dense("uint8", (28, 28))
    labels = list(job.source.peek("label"))
    assert min(labels.count(digit) for digit in range(10)) > 800


def tar_of(samples: list[tuple[str, bytes]]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, data in samples:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return file.getvalue()


def test_webdataset_shards(tmp_path):
    """Fields by WebDataset's rule and tables; braces expand; our own members are invisible; compressed is the same."""
    for number, ending in enumerate(("", ".zst")):
        write(tmp_path / f"s-00{number}.tar{ending}", tar_of([
            ("__shardstream__/shard.json", b"{}"),
            (f"d/{number}a.CLS", b"3"), (f"d/{number}a.txt", "é".encode()), (f"d/{number}a.left.jpg", b"\xff"),
            (f"d/{number}b.json", b'{"k": [1]}'),
        ]))  # fmt: skip
    rows, rejects = read(kind="webdataset", paths=[str(tmp_path / "s-{000..000}.tar"), str(tmp_path / "s-001.tar.zst")])
    assert rejects == [] and [row["key"] for row in rows] == ["d/0a", "d/0b", "d/1a", "d/1b"]
    assert (rows[0]["cls"], rows[0]["txt"], rows[0]["left.jpg"], rows[1]["json"]) == (3, "é", b"\xff", {"k": [1]})


def test_webdataset_shards_of_webdataset_s_own_writer(tmp_path):
    """What ``webdataset.ShardWriter`` writes comes back."""
    import webdataset

    with webdataset.ShardWriter(str(tmp_path / "s-%03d.tar"), maxcount=3, verbose=0) as sink:
        for number in range(7):
            sink.write({"__key__": f"{number:03d}", "cls": number, "npy": np.arange(number), "txt": str(number)})
    rows, rejects = read(kind="webdataset", paths=str(tmp_path))
    assert rejects == [] and [(row["cls"], row["npy"].tolist(), row["txt"]) for row in rows] == [
        (number, list(range(number)), str(number)) for number in range(7)
    ]


def test_webdataset_errors(tmp_path):
    """A bad value costs its sample; a damaged archive the rest, with the sample before it, which may have gone on."""
    data = tar_of([("a.cls", b"x"), ("b.cls", b"1"), ("c.cls", b"2" * 2000)])
    for damage, whole in ((data[:2500], []), (data[:3000], ["b"]), (data[:2048] + b"x" * 600, [])):
        write(tmp_path / "s.tar", damage)
        rows, rejects = read(kind="webdataset", paths=str(tmp_path))
        assert [row["key"] for row in rows] == whole and len(rejects) == 2
        assert rejects[0].startswith(f"the member a.cls of {tmp_path}/s.tar: ") and "s.tar is cut off or damaged" in rejects[1]


# -- whole jobs -----------------------------------------------------------------------------------


def test_sources_on_s3(s3, arrow, tmp_path):
    """Ranges, compressed files, Parquet and shards are read from an object store as from a disk."""
    import pyarrow.parquet

    from shardstream.storage import Store

    store = Store(f"{s3.url}/in")
    lines = b"".join(b'{"n": %d, "pad": "%s"}\n' % (number, b"x" * 100) for number in range(30_000))
    store.put_bytes("a.jsonl", lines)
    store.put_bytes("b.jsonl.gz", gzip.compress(lines))
    sink = io.BytesIO()
    pyarrow.parquet.write_table(arrow.table({"n": list(range(1000))}), sink, row_group_size=300)
    store.put_bytes("c.parquet", sink.getvalue())
    store.put_bytes("d.tar", tar_of([(f"{number}.cls", str(number).encode()) for number in range(10)]))
    store.put_bytes("e.csv", b"n,m\n" + b"".join(b'%d,"a\nb"\n' % number for number in range(200_000)))
    assert [row["n"] for row in read(kind="jsonl", paths=f"{s3.url}/in/a.jsonl")[0]] == list(range(30_000))
    assert [row["n"] for row in read(kind="jsonl", paths=f"{s3.url}/in/b.jsonl.gz")[0]] == list(range(30_000))
    assert [row["n"] for row in read(kind="parquet", paths=f"{s3.url}/in")[0]] == list(range(1000))
    assert [row["cls"] for row in read(kind="webdataset", paths=f"{s3.url}/in")[0]] == list(range(10))
    rows, _ = read(kind="csv", paths=f"{s3.url}/in/e.csv", types={"n": "int"})
    assert [row["n"] for row in rows] == list(range(200_000)) and rows[5]["m"] == "a\nb"


def test_options_of_lines_may_be_nested(tmp_path):
    """storage_options hold what fsspec takes, dicts in dicts too, as S3's client_kwargs."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"n": 1}\nno\n{"n": 2}\n')
    config = {
        "source": {"kind": "jsonl", "paths": str(path), "storage_options": {"client_kwargs": {"region_name": "x"}}},
        "fields": {"n": {"kind": "dense", "dtype": "int64"}}, "on_error": "skip", "output": {"url": str(tmp_path / "out")},
    }  # fmt: skip
    report = ss.pack(config, progress=False)
    assert (report.datasets[0].num_samples, report.num_rejected) == (2, 1)


def test_a_line_without_end_is_a_reject(tmp_path, tiny, monkeypatch):
    """What would not fit in memory is counted as one bad record of its file, and the other files are read."""
    monkeypatch.setattr("shardstream.packing.sources.lines.MAX_LINE_NBYTES", 64)
    write(tmp_path / "a.jsonl", b'{"n": "' + b"x" * 100 + b'"}\n')
    write(tmp_path / "b.jsonl", b'{"n": 2}\n')
    rows, rejects = read(kind="jsonl", paths=str(tmp_path))
    assert [row["n"] for row in rows] == [2] and len(rejects) >= 1 and "a.jsonl has a line of more than 64 bytes" in rejects[0]


def test_many_remote_paths_are_looked_at_together(monkeypatch):
    """Each costs a request, so their answers are waited for at once; files come in the order of the paths all the same."""
    meet = threading.Barrier(8)

    def look(url, storage_options, exclude):
        meet.wait(20)
        return [FoundFile(url, url.rpartition("/")[2], 1)]

    monkeypatch.setattr(files, "find_files", look)
    paths = [f"s3://bucket/{number}.jsonl" for number in range(8)]
    found = files.find(files.FilesSettings(paths=paths), Document({"source": {}}, {}))
    assert [file.url for file in found] == paths

"""What docs/packing.md and configs/ show is run, on files that are made here or that every machine has."""

import gzip
import io
import json
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
import yaml

import shardstream as ss
from shardstream.packing import pack

ROOT = Path(__file__).resolve().parents[1]
BLOCKS = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/packing.md").read_text(), re.DOTALL)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """The files that the page speaks of, in the working directory."""
    monkeypatch.chdir(tmp_path)
    for folder in ("data/saved/train", "photos/cat", "photos/dog", "mnist", "shards"):
        Path(folder).mkdir(parents=True)
    rows = [{"id": f"i{n}", "text": "word " * n, "tags": [n, n + 5], "stars": n % 5} for n in range(9)]
    Path("data/a.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    Path("data/people.csv").write_text("name,age,height,city\n" + "".join(f"p{n},{n},1.{n},c{n % 2}\n" for n in range(9)))
    Path("data/train.svm").write_text("+1 1:1 126:1\n-1 5:1\n" * 4 + "+1 7:1\n")
    for name, shape in (("images-idx3", (9, 4, 4)), ("labels-idx1", (9,))):
        head = bytes([0, 0, 8, len(shape)]) + np.array(shape, ">u4").tobytes()
        Path(f"mnist/{name}-ubyte.gz").write_bytes(gzip.compress(head + bytes(int(np.prod(shape)))))
    for number in range(2):
        with tarfile.open(f"shards/train-00000{number}.tar", "w") as tar:
            for row in range(5 - number):
                for ending, data in (("jpg", b"\xff\xd8"), ("cls", b"1")):
                    member = tarfile.TarInfo(f"{number}{row}.{ending}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))


def needs(block: str) -> None:
    """Make what a block needs of the extras, or skip."""
    if "kind: parquet" in block or "kind: hf" in block:
        arrow = pytest.importorskip("pyarrow", reason="pyarrow, of the extra 'arrow', is not installed")
        import pyarrow.parquet

        table = arrow.table({"ids": [[n] * n for n in range(9)], "score": [n / 2 for n in range(9)]})
        pyarrow.parquet.write_table(table, "data/table.parquet")
        saved = arrow.table({"text": ["a"] * 9, "label": list(range(9))})
        with arrow.OSFile("data/saved/train/data-0.arrow", "wb") as sink, arrow.ipc.new_stream(sink, saved.schema) as writer:
            writer.write_table(saved)
        Path("data/saved/train/state.json").write_text('{"_data_files": [{"filename": "data-0.arrow"}]}')
    if "kind: images" in block:
        pillow = pytest.importorskip("PIL.Image", reason="Pillow, of the extra 'image', is not installed")
        for number in range(9):
            pillow.new("RGB", (40, 30)).save(f"photos/{'cat' if number % 2 else 'dog'}/{number}.png")
    if "kind: dask" in block:
        pytest.importorskip("distributed", reason="Dask, of the extra 'dask', is not installed")


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: re.search(r"kind: (\w+)", block)[1])
def test_every_block_of_the_page_packs_its_files(files, block):
    """Each configuration, with an output, gives the nine rows of its input with the fields that it names."""
    needs(block)
    config = yaml.safe_load(block)
    report = pack({**config, "output": {"url": "out"}})
    assert report.num_records == report.datasets[0].num_samples == 9 and report.num_rejected == 0
    assert list(ss.Dataset("out").schema) == list(config["fields"])
    assert len(list(ss.ShardStream("out", sparse="indices"))) == 9


def test_records_configuration(tmp_path, monkeypatch):
    """configs/pack_records.yaml packs what its function gives, as it stands."""
    from examples.records import functions

    monkeypatch.chdir(ROOT)
    config = ROOT / "configs/pack_records.yaml"
    report = pack(config, [f"output.url={tmp_path / 'out'}"])
    expected = list(functions(yaml.safe_load(config.read_text())["source"]["args"]["modules"]))
    rows = list(ss.ShardStream(str(tmp_path / "out"), sparse="indices"))
    assert report.num_records == len(expected) > 100
    assert [(row["doc"], bool(row["private"])) for row in rows] == [(record["doc"], record["private"]) for record in expected]


def test_dask_configuration(tmp_path):
    """configs/pack_dask.yaml gives the very shards of the same job without Dask (here of one small package of it)."""
    pytest.importorskip("distributed", reason="Dask, of the extra 'dask', is not installed")
    config = ROOT / "configs/pack_dask.yaml"
    small = ['source.include=["json/*.py", "asyncio/*.py"]', "engine.workers=1"]
    found = pack(config, [*small, f"output.url={tmp_path}/dask/{{split}}"])
    alone = pack(config, [*small[:1], "engine=local", f"output.url={tmp_path}/local/{{split}}"])
    for ours, theirs in zip(found.datasets, alone.datasets, strict=True):
        assert (ours.num_samples, ours.nbytes, ours.num_shards) == (theirs.num_samples, theirs.nbytes,
                                                                    theirs.num_shards)  # fmt: skip
        rows = [[(row["key"], row["x"].tolist()) for row in ss.ShardStream(d.url, sparse="indices")] for d in (ours, theirs)]
        assert rows[0] == rows[1]

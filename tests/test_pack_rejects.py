"""A record that can't be packed is named by its place: file and line, row of a table, member of a shard; in errors and
in the rejects file.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import shardstream as ss
from shardstream.codecs import rows
from shardstream.errors import ConfigError, TextError
from shardstream.packing import pack, sources
from shardstream.packing.batch import Batch
from shardstream.packing.job import load, prepare
from shardstream.packing.refusals import without_refused
from shardstream.packing.sources.lines import _Counter, _counter
from shardstream.text import CategoryHasher, FeatureHasher
from tests.test_pack_sources import idx, tar_of, write

LABELS = ["a", "b", "a", "z", "b"]  # z is none of the classes: the fourth record is at fault
CLASSES = {"classes": ["a", "b"]}


def jsonl(folder: Path, ending: str = "", before: str = ""):
    lines = "".join(json.dumps({"y": label}) + "\n" for label in LABELS)
    path = write(folder / f"a.jsonl{ending}", (before + lines).encode())
    return {"kind": "jsonl", "paths": str(path)}, {"y": CLASSES}, f"line {4 + before.count(chr(10))} of {path}: "


def csv_rows(folder: Path):
    rows = "".join(f'{label},"two\nlines"\n' for label in LABELS)
    path = write(folder / "a.csv", f"y,t\n{rows}".encode())
    return {"kind": "csv", "paths": str(path)}, {"y": CLASSES}, f"line 8 of {path}: "


def libsvm(folder: Path):
    path = write(folder / "a.svm", "".join(f"{label} 1:1\n" for label in LABELS).encode())
    return {"kind": "libsvm", "paths": str(path), "dim": 4}, {"y": {"from": "label", **CLASSES}}, f"line 4 of {path}: "


def files(folder: Path, kind: str, name: str):
    for number, label in enumerate(LABELS):
        write(folder / "in" / label / f"{number}.{name}", b"\x89PNG")
    settings = {"encoding": "latin-1"} if kind == "text" else {}
    return {"kind": kind, "paths": str(folder / "in"), **settings}, {"y": {"from": "top", **CLASSES}}, f"{folder}/in/z/3.{name}: "


def parquet(folder: Path):
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    import pyarrow.parquet

    pyarrow.parquet.write_table(arrow.table({"y": LABELS}), folder / "a.parquet", row_group_size=2)
    return {"kind": "parquet", "paths": str(folder / "a.parquet")}, {"y": CLASSES}, f"row 3 of {folder}/a.parquet: "


def hugging_face(folder: Path):
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    table = arrow.table({"y": LABELS})
    (folder / "d").mkdir()
    with arrow.OSFile(str(folder / "d/data.arrow"), "wb") as sink, arrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    (folder / "d/state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}]}))
    return {"kind": "hf", "paths": str(folder / "d")}, {"y": CLASSES}, f"row 3 of {folder}/d/data.arrow: "


def idx_files(folder: Path):
    path = write(folder / "labels", idx(np.array([0, 1, 0, 7, 1], np.uint8)))
    return {"kind": "idx", "arrays": {"y": str(path)}}, {"y": {"classes": ["0", "1"]}}, f"row 3 of {path}: "


def webdataset(folder: Path):
    path = write(folder / "s.tar", tar_of([(f"d/{number}.txt", label.encode()) for number, label in enumerate(LABELS)]))
    return {"kind": "webdataset", "paths": str(path)}, {"y": {"from": "txt", **CLASSES}}, f"the member d/3 of {path}: "


def records(folder: Path):
    return [{"key": f"k{number}", "y": label} for number, label in enumerate(LABELS)], {"y": CLASSES}, "record 3: "


CASES = {
    "jsonl": jsonl, "jsonl.gz": lambda folder: jsonl(folder, ".gz"), "jsonl with empty lines": lambda folder: jsonl(folder, "", "\n\n"),
    "csv": csv_rows, "libsvm": libsvm, "text": lambda folder: files(folder, "text", "txt"), "images": lambda folder: files(folder, "images", "png"),
    "parquet": parquet, "hf": hugging_face, "idx": idx_files, "webdataset": webdataset, "records": records,
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_value_that_does_not_fit_is_named_by_its_place(tmp_path, name):
    """The error of the job says it, and so does the line in the rejects file; the other rows are packed."""
    source, fields, place = CASES[name](tmp_path)
    config = {"source": source, "fields": fields, "output": {"url": str(tmp_path / "out")}}
    with pytest.raises(ss.SampleError) as caught:
        pack(config, progress=False)
    assert str(caught.value).startswith(place) and caught.value.field == "y"
    report = pack({**config, "on_error": "skip", "rejects": str(tmp_path / "rejects.jsonl")}, progress=False)
    (reject,) = [json.loads(line) for line in (tmp_path / "rejects.jsonl").read_text().splitlines()]
    assert reject["message"].startswith(place) and reject["field"] == "y" and report.rejects == [reject["message"]]
    kept = [int(row["y"]) for row in ss.ShardStream(str(tmp_path / "out"))]
    assert kept == ([0, 0, 1, 1] if name in ("text", "images") else [0, 1, 0, 1])  # files come sorted by their folder


def test_places_hold_in_every_range_of_a_file(tmp_path, monkeypatch):
    """Lines are counted from the file's beginning, whichever range of it they are in, beside lines that are no JSON at
    all.
    """
    for name in ("MIN_PART_NBYTES", "PART_NBYTES", "MAX_PART_NBYTES"):
        monkeypatch.setattr(sources, name, 300)
    monkeypatch.setattr("shardstream.packing.sources.lines.CHUNK_NBYTES", 100)
    read, real = [], _Counter._count
    monkeypatch.setattr(_Counter, "_count", lambda self, offset, options: (read.append(offset - self._offset), real(self, offset, options)))
    lines = ["nothing" if number % 7 == 3 else json.dumps({"y": "z" if number % 5 == 0 else "a"}) for number in range(1, 101)]
    path = write(tmp_path / "a.jsonl", "\n".join(lines).encode())
    report = pack({"source": {"kind": "jsonl", "paths": str(path)}, "fields": {"y": CLASSES}, "output": {"url": str(tmp_path / "out")},
                   "on_error": "skip", "rejects": str(tmp_path / "rejects.jsonl")}, progress=False)  # fmt: skip
    messages = [json.loads(line)["message"] for line in (tmp_path / "rejects.jsonl").read_text().splitlines()]
    bad = [number for number in range(1, 101) if number % 7 == 3 or number % 5 == 0]
    assert sorted(messages) == sorted(next(m for m in messages if m.startswith(f"line {number} of {path}: ")) for number in bad)
    assert report.num_rejected == len(bad)
    # All ranges of a process go on with one count, so no byte is counted twice.
    job = prepare(load({"source": {"kind": "jsonl", "paths": str(path)}, "fields": {"y": CLASSES}, "output": {"url": "none"}}))
    _counter.cache_clear()
    read.clear()
    for part in job.source.parts():
        for chunk in job.source.read(part):
            assert all(chunk.where(record).startswith("line ") for record in range(len(chunk)))
    assert min(read) > 0 and sum(read) <= path.stat().st_size


def twice(row):
    """Make two rows of each."""
    return [{"text": row["text"], "key": f"{row['key']}/{half}"} for half in "ab"]


def refuse(row):
    if "three" in row["text"]:
        raise ValueError("three")
    return row


@pytest.mark.parametrize("steps, kept", [
    ([twice, refuse], 6), ([{"passages": {"chars": 6}}, refuse], None), ([twice, {"hash": {"dim": 16, "field": "text"}}, refuse], 6),
], ids=["several rows of one", "passages", "hashed"])  # fmt: skip
def test_places_survive_steps_that_make_other_rows(tmp_path, steps, kept):
    """A row that a later step refuses is named by the record that it was made of."""
    path = write(tmp_path / "a.jsonl", "".join(json.dumps({"text": f"{word} lines"}) + "\n" for word in ("one", "two", "three", "four")).encode())
    config = {"source": {"kind": "jsonl", "paths": str(path)}, "steps": steps, "fields": {"text": {"kind": "text"}},
              "output": {"url": str(tmp_path / "out")}}  # fmt: skip
    with pytest.raises(ss.SampleError, match=rf"^line 3 of {path}: .*refuse failed: ValueError: three"):
        pack(config, progress=False)
    report = pack({**config, "on_error": "skip"}, progress=False)
    assert all(message.startswith(f"line 3 of {path}: ") for message in report.rejects) and report.num_rejected in (1, 2)
    assert kept is None or report.datasets[0].num_samples == kept


def test_a_record_without_what_splits_are_made_by_is_named(tmp_path):
    path = write(tmp_path / "a.jsonl", b'{"y": "a", "user": 1}\n{"y": "b"}\n')
    with pytest.raises(ss.SampleError, match=rf"^line 2 of {path}: the record has no 'user' to split by"):
        pack({"source": {"kind": "jsonl", "paths": str(path)}, "fields": {"y": CLASSES}, "splits": {"by": "user", "parts": {"all": 1}},
              "output": {"url": str(tmp_path / "{split}")}}, progress=False)  # fmt: skip


@given(st.integers(1, 700).flatmap(lambda num_rows: st.tuples(st.just(num_rows), st.sets(st.integers(0, num_rows - 1)))))
def test_refused_rows_are_found_by_parts(drawn):
    """Exactly those are left out, in their order and by their own messages; a batch without any is done once."""
    num_rows, bad = drawn
    worked = []

    def work(batch):
        worked.append(len(batch))
        for row, value in enumerate(batch.columns["n"]):
            if value in bad:
                raise TextError(f"texts[{row}] is {value}.", index=row)
        return batch.columns["n"]

    batch, result = without_refused(Batch({"key": [f"k{n}" for n in range(num_rows)], "n": list(range(num_rows))}), work, "n")
    assert result == batch.columns["n"] == [n for n in range(num_rows) if n not in bad]
    assert [(e.key, e.field, e.message) for e in batch.rejects] == [(f"k{n}", "n", f"the text is {n}.") for n in sorted(bad)]
    depth = next(depth for depth in range(9) if 16**depth >= num_rows)
    assert worked == [num_rows] if not bad else sum(worked) <= num_rows * (2 + max(depth, 1)) and len(worked) <= 2 + 16 * max(depth, 1) * len(bad)


@pytest.mark.parametrize("error", [ConfigError("no row is at fault"), ss.SampleError("nor here", field="n"), ValueError("nor here")])
def test_what_is_no_row_s_fault_ends_the_work(error):
    calls = []

    def work(batch):
        calls.append(len(batch))
        raise error

    with pytest.raises(type(error)) as caught:
        without_refused(Batch({"key": ["a", "b"]}), work)
    assert caught.value is error and calls == [2]


def test_an_error_that_no_part_repeats_is_raised():
    """Such as one that depends on how many rows there are: nothing is left out, and nothing is tried for ever."""

    def work(batch):
        if len(batch) > 1:
            raise TextError("texts[0] came in company.", index=0)

    with pytest.raises(TextError, match="in company"):
        without_refused(Batch({"key": ["a", "b"]}), work)


BAD = "\ud800"
STEPS = {
    "hash": (FeatureHasher, "sets", {"hash": {"dim": 64, "analyzer": "char", "field": "t"}}, {"x": None}, "the text has a lone surrogate"),
    "categories": (CategoryHasher, "transform", {"categories": {"dim": 64, "fields": ["t"]}}, {"x": None}, "the row has the name 't="),
    "no step": (rows, "check_batch", None, {"t": {"kind": "text"}}, "a text with a lone surrogate is not UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize("bad", [{777}, set(range(0, 2000, 2)), set(range(1, 2000))], ids=["one", "every second", "all but one"])
@pytest.mark.parametrize("name", STEPS)
def test_many_refused_rows_do_not_repeat_the_work_for_each(tmp_path, monkeypatch, name, bad):
    """2,000 rows, of which many are no Unicode, are hashed (or checked) five times in all, not a thousand times."""
    owner, method, step, fields, message = STEPS[name]
    worked, real = [], getattr(owner, method)

    def counted(first, second, **options):
        worked.append(len(second["t"][1] if isinstance(second.get("t"), tuple) else second["t"]) if owner is rows else len(second))
        return real(first, second, **options)

    monkeypatch.setattr(owner, method, counted)
    records = [{"key": f"k{n}", "t": BAD if n in bad else "good"} for n in range(2000)]
    config = {"source": records, "steps": [step] if step else [], "fields": {**fields, "key": None},
              "output": {"url": str(tmp_path / "out")}, "on_error": "skip", "engine": {"kind": "local", "workers": 1}}  # fmt: skip
    report = pack(config, progress=False)
    assert report.num_rejected == len(bad) and all(message in reject for reject in report.rejects)
    assert [row["key"] for row in ss.ShardStream(str(tmp_path / "out"))] == [f"k{n}" for n in range(2000) if n not in bad]
    assert 2000 < sum(worked) <= (4 if len(bad) == 1 else 6) * 2000
    with pytest.raises(ss.SampleError, match=message) as caught:
        pack({**config, "on_error": "raise", "output": {"url": str(tmp_path / "other")}}, progress=False)
    assert caught.value.key == f"k{min(bad)}"

"""Whole packing jobs: from files and records to datasets that read back as what went in."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import shardstream as ss
from shardstream.errors import ConfigError, DatasetError, EmptyDatasetError, SampleError
from shardstream.log import Log
from shardstream.packing import class_names, pack
from shardstream.packing.classes import NAME
from shardstream.storage import Store
from shardstream.text import CategoryHasher, FeatureHasher

POEMS = {
    "rain/1.txt": "the rain falls\non the roof\n",
    "rain/2.txt": "rain again, and again rain\n",
    "sun/1.txt": "the sun is up\n",
    "sun/deep/2.txt": "noon without shade\n",
    "top.txt": "neither rain nor sun\n",
}


@pytest.fixture
def poems(tmp_path):
    for name, text in POEMS.items():
        path = tmp_path / "poems" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "poems"


def config_of(poems, **more) -> dict:
    """Return a configuration that packs the texts and keys of the poems as they are."""
    config = {"source": {"kind": "text", "paths": str(poems)}, "fields": {"key": None, "text": None}}
    return {**config, **({"output": {"url": str(poems.parent / "out")}} if "output" not in more else {}), **more}


def rows_of(url) -> list[dict]:
    """Return all samples of a dataset in the order in which they were written."""
    return list(ss.ShardStream(str(url), sparse="indices"))


def test_texts_read_back_in_sorted_order(poems):
    """Each file is a row; rows are in the order of the sorted keys."""
    report = pack(config_of(poems))
    assert [(row["key"], row["text"]) for row in rows_of(report.datasets[0].url)] == sorted(POEMS.items())
    assert report.num_records == 5 and report.num_rejected == 0 and report.nbytes_in == sum(map(len, POEMS.values()))
    assert report.datasets[0].num_samples == report.datasets[0].num_samples_added == 5


def test_hashed_passages_are_the_hasher_s_sets(poems):
    """Passages and the hash step give what cutting and hashing by hand give."""
    steps = [{"passages": {"chars": 16}}, {"hash": {"dim": 512, "to": "grams"}}]
    pack(config_of(poems, steps=steps, fields={"x": "grams", "key": None}))
    rows = rows_of(poems.parent / "out")
    assert [row["key"] for row in rows][:3] == ["rain/1.txt:0", "rain/1.txt:1", "rain/2.txt:0"]
    hasher = FeatureHasher(512, (1, 2))
    for row, text in zip(rows[:3], ["the rain falls\n", "on the roof\n", "rain again, and "], strict=True):
        assert np.asarray(row["x"]).tolist() == hasher.transform([text])[0].tolist()


def test_settings_of_the_hash_step_are_the_hasher_s(poems):
    """Letter case, analyzer and n-grams are those of the settings."""
    settings = {"lowercase": False, "analyzer": "char", "ngrams": [2, 3]}
    source = [{"key": "a", "text": "The Rain"}]
    pack(config_of(poems, source=source, splits=None, steps=[{"hash": {"dim": 4096, **settings}}], fields={"x": None}))
    expected = FeatureHasher(4096, (2, 3), lowercase=False, analyzer="char").sets(["The Rain"])[0]
    assert np.asarray(rows_of(poems.parent / "out")[0]["x"]).tolist() == expected.tolist()


@pytest.mark.parametrize("values, dtype", [("counts", "int32"), ("signed", "float32")])
def test_hash_values_are_stored(poems, values, dtype):
    """``values`` keeps counts or signed sums beside the indices."""
    pack(config_of(poems, steps=[{"hash": {"dim": 64, "values": values}}], fields={"x": None}))
    indices, weights = rows_of(poems.parent / "out")[1]["x"]
    expected = FeatureHasher(64, (1, 2), signed=values == "signed").transform([POEMS["rain/2.txt"]])
    assert np.asarray(indices).tolist() == expected[0].tolist()
    assert (
        np.asarray(weights).tolist() == expected[2].tolist()
        and dtype == ss.Dataset(str(poems.parent / "out")).schema["x"].values
    )


def test_named_features_are_packed(poems):
    """Columns become the rows of the hasher; what a record lacks gives nothing, and one that can't be hashed is a reject."""
    rows = [{"city": "Oslo", "age": 31}, {"city": "Rome"}, {"age": 0}, {"city": ["Rome"], "age": 1}, {"city": "\ud800"}, {"age": 2.5}]
    records = [{"key": str(number), **row} for number, row in enumerate(rows)]
    step = {"categories": {"dim": 4096, "fields": ["city", "age"], "signed": True}}
    report = pack(config_of(poems, source=records, steps=[step], fields={"x": None, "key": None}, on_error="skip"))
    good = [0, 1, 2, 5]
    indices, indptr, values = CategoryHasher(4096, signed=True).transform([rows[number] for number in good])
    found = rows_of(poems.parent / "out")
    assert [row["key"] for row in found] == [str(number) for number in good] and report.num_rejected == 2
    for row, begin, end in zip(found, indptr, indptr[1:]):
        assert np.asarray(row["x"][0]).tolist() == indices[begin:end].tolist()
        assert np.asarray(row["x"][1]).tolist() == values[begin:end].tolist()


@pytest.mark.parametrize("steps, message", [
    ([{"categories": {"dim": 8, "fields": []}}], "no column is named"), ([{"categories": {"dim": 0, "fields": ["text"]}}], "dim=0"),
    ([{"categories": {"dim": 8, "fields": ["txt"]}}], "txt"),
    ([{"hash": {"dim": 8}}, {"categories": {"dim": 8, "fields": ["x"]}}], "is sparse, not text or dense"),
])  # fmt: skip
def test_wrong_settings_of_named_features_are_errors_before_the_job(poems, steps, message):
    """Nothing is written."""
    with pytest.raises(ConfigError, match=message):
        pack(config_of(poems, steps=steps, fields={"x": None}))
    assert not (poems.parent / "out").exists()


def test_folders_are_classes(poems):
    """``from: top`` with classes numbers the top folders; the names stand beside the shards."""
    fields = {"y": {"from": "top", "classes": {"min_records": 2, "other": "rest"}}}
    report = pack(config_of(poems, fields=fields))
    assert [int(row["y"]) for row in rows_of(poems.parent / "out")] == [0, 0, 1, 1, 2]
    assert report.classes == class_names(str(poems.parent / "out")) == {"y": ["rain", "sun", "rest"]}


def test_rare_classes_without_other_are_left_out(poems):
    """Rows of labels below ``min_records`` are dropped and counted."""
    report = pack(config_of(poems, fields={"y": {"from": "top", "classes": {"min_records": 2}}}))
    assert report.num_dropped == 1 and report.num_rejected == 0 and report.datasets[0].num_samples == 4


def test_splits_share_files_out_and_keep_their_passages_together(poems):
    """Every passage is in exactly one split, and the passages of one file are in the same."""
    for number in range(40):
        (poems / f"more-{number}.txt").write_text("word " * 30)
    config = config_of(
        poems, steps=[{"passages": {"chars": 40}}], fields={"key": None},
        splits={"parts": {"train": 0.6, "test": 0.4}}, output={"url": str(poems.parent / "{split}")},
    )  # fmt: skip
    report = pack(config)
    keys = {data.split: [row["key"] for row in rows_of(data.url)] for data in report.datasets}
    files = {split: {key.rpartition(":")[0] for key in split_keys} for split, split_keys in keys.items()}
    assert files["train"] and files["test"] and not files["train"] & files["test"]
    assert files["train"] | files["test"] == {path.relative_to(poems).as_posix() for path in poems.rglob("*.txt")}


def test_same_configuration_gives_the_same_rows_in_the_same_shards(poems):
    """Sids and times differ between two runs, nothing else."""
    records = [{"text": "word " * (number % 50)} for number in range(20_000)]
    seen = []
    for name in ("one", "two"):
        url = str(poems.parent / name)
        config = {"source": records, "steps": [{"hash": {"dim": 4096}}], "fields": {"x": None, "key": None}}
        pack({**config, "output": {"url": url, "shard_nbytes": "100kB"}})
        shards = Log(Store(url)).snapshot().shards
        seen.append((shards.num_samples.tolist(), [row["key"] for row in rows_of(url)]))
    assert seen[0] == seen[1] and len(seen[0][0]) > 1 and seen[0][1] == [str(number) for number in range(20_000)]


def test_paths_may_be_files_globs_and_folders(poems):
    """A list of paths keeps its order; a file named twice comes once."""
    paths = [str(poems / "sun/**/*.txt"), str(poems / "rain/2.txt"), str(poems / "rain")]
    pack(config_of(poems, source={"kind": "text", "paths": paths}))
    assert [row["key"] for row in rows_of(poems.parent / "out")] == ["1.txt", "deep/2.txt", "2.txt", "1.txt"]


def test_from_s3_to_s3(poems, s3):
    """Source and output may both be on S3, by folder or glob, and give what local ones give."""
    for name, text in POEMS.items():
        Store(f"{s3.url}/poems").put_bytes(name, text.encode())
    for source, url in (
        (poems, f"{s3.url}/here"),
        (f"{s3.url}/poems", f"{s3.url}/there"),
        (f"{s3.url}/poems/**/*.txt", str(poems.parent / "out")),
    ):
        fields = {"key": None, "text": None, "y": {"from": "top", "classes": "auto"}}
        pack(config_of(source, fields=fields, output={"url": url}))
        assert [(row["key"], row["text"]) for row in rows_of(url)] == sorted(POEMS.items())
        assert class_names(url) == {"y": ["rain", "sun", "top"]}


def test_include_and_exclude_choose_files(poems):
    """Hidden files are left out unless asked for; excluded folders go with all they hold."""
    (poems / ".hidden").write_text("x")
    source = {"kind": "text", "paths": str(poems), "include": ["*.txt"], "exclude": ["deep", "rain/1.txt"]}
    pack(config_of(poems, source=source))
    assert [row["key"] for row in rows_of(poems.parent / "out")] == ["rain/2.txt", "sun/1.txt", "top.txt"]


def test_byte_order_mark_is_no_text(poems):
    """A BOM is removed; line ends stay as they are."""
    (poems / "top.txt").write_bytes(b"\xef\xbb\xbfa\r\nb")
    pack(config_of(poems))
    assert rows_of(poems.parent / "out")[-1]["text"] == "a\r\nb"


def test_undecodable_file_is_an_error_that_says_where(poems):
    """A file that is not UTF-8 stops the job with its name and the byte; nothing is committed."""
    (poems / "sun/1.txt").write_bytes(b"caf\xe9 au lait")
    with pytest.raises(SampleError, match="line 1 of .*/sun/1.txt: not utf-8 text") as refused:
        pack(config_of(poems))
    assert refused.value.key == "sun/1.txt" and refused.value.offset == 3
    assert not Log(Store(str(poems.parent / "out"))).exists()


def test_undecodable_file_is_skipped_and_counted_on_request(poems):
    """``on_error: skip`` goes on; the report counts the file and says what was wrong."""
    (poems / "sun/1.txt").write_bytes(b"caf\xe9 au lait")
    report = pack(config_of(poems, on_error="skip"))
    assert report.num_records == 5 and report.num_rejected == 1 and "sun/1.txt" in report.rejects[0]
    assert len(rows_of(poems.parent / "out")) == 4


def test_undecodable_bytes_are_replaced_on_request(poems):
    """``decode_errors: replace`` keeps the file."""
    (poems / "top.txt").write_bytes(b"caf\xe9")
    pack(config_of(poems, source={"kind": "text", "paths": str(poems), "decode_errors": "replace"}))
    assert rows_of(poems.parent / "out")[-1]["text"] == "caf\ufffd"


def test_other_encodings_are_decoded(poems):
    """``encoding`` names any text encoding of Python's."""
    (poems / "top.txt").write_bytes("cafés".encode("utf-16"))
    pack(config_of(poems, source={"kind": "text", "paths": str(poems / "top.txt"), "encoding": "utf-16"}))
    assert rows_of(poems.parent / "out")[0]["text"] == "cafés"


def test_records_of_an_iterable(tmp_path):
    """``source`` may be any iterable of dicts; kinds of fields are said, keys default to numbers."""
    records = ({"x": [number], "y": number % 3} for number in range(5))
    fields = {"key": None, "x": {"kind": "sparse", "dim": 8}, "y": {"kind": "dense", "dtype": "int64"}}
    pack({"source": records, "fields": fields, "output": {"url": str(tmp_path / "out")}})
    rows = rows_of(tmp_path / "out")
    assert [row["key"] for row in rows] == ["0", "1", "2", "3", "4"]
    assert [(np.asarray(row["x"]).tolist(), int(row["y"])) for row in rows] == [([n], n % 3) for n in range(5)]


def test_field_of_unknown_kind_must_say_it(tmp_path):
    """What records hold is not known before reading, so the kind is asked for."""
    with pytest.raises(ConfigError, match=r"fields\.x: say its kind"):
        pack({"source": [{"x": 1}], "fields": {"x": None}, "output": {"url": str(tmp_path / "out")}})


def test_classes_of_records_are_found_by_a_first_pass(tmp_path):
    """A list or function can be read twice; an iterator cannot, and the message says what to do."""
    records = [{"label": "b"}, {"label": "a"}]
    fields = {"y": {"from": "label", "classes": "auto"}}
    pack({"source": records, "fields": fields, "output": {"url": str(tmp_path / "out")}})
    assert [int(row["y"]) for row in rows_of(tmp_path / "out")] == [1, 0]
    with pytest.raises(ConfigError, match="list the classes"):
        pack({"source": iter(records), "fields": fields, "output": {"url": str(tmp_path / "other")}})


STEPS_MODULE = """
def numbers(count):
    return ({"key": f"n{number}", "n": number} for number in range(count))

def square(row, times=1):
    if row["n"] == 13:
        raise ValueError("unlucky")
    if row["n"] % 2:
        return None
    return [{"key": f"{row['key']}.{copy}", "n": row["n"] ** 2} for copy in range(times)]
"""


@pytest.fixture
def my_steps(tmp_path, monkeypatch):
    (tmp_path / "my_steps.py").write_text(STEPS_MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    return {
        "source": {"kind": "records", "records": "my_steps.numbers", "args": {"count": 6}},
        "steps": [{"my_steps.square": {"times": 2}}],
        "fields": {"key": None, "n": {"kind": "dense", "dtype": "int64"}},
        "output": {"url": str(tmp_path / "out")},
    }


def test_functions_by_dotted_path(my_steps):
    """A source and a step of the user's: rows change, vanish (None) and multiply (a list)."""
    pack(my_steps)
    rows = [(row["key"], int(row["n"])) for row in rows_of(my_steps["output"]["url"])]
    assert rows == [("n0.0", 0), ("n0.1", 0), ("n2.0", 4), ("n2.1", 4), ("n4.0", 16), ("n4.1", 16)]


def test_failing_function_names_itself_and_the_record(my_steps):
    """An exception in a step becomes an error with step, cause and key, or a counted reject."""
    my_steps["source"]["args"]["count"] = 14
    with pytest.raises(SampleError, match=r"my_steps\.square failed: ValueError: unlucky \[key n13\]") as failed:
        pack(my_steps)
    assert isinstance(failed.value.__cause__, ValueError)
    assert pack({**my_steps, "on_error": "skip"}).num_rejected == 1


def test_key_of_the_writer_s_error_is_the_record_s(tmp_path):
    """What only the check before writing sees, such as a lone surrogate, is reported by the record's key."""
    records = [{"key": "a", "t": "x"}, {"key": "b", "t": "\ud800"}, {"key": "c", "t": "y"}]
    config = {"source": records, "fields": {"t": {"kind": "text"}}, "output": {"url": str(tmp_path / "out")}}
    with pytest.raises(SampleError, match="lone surrogate") as refused:
        pack(config)
    assert refused.value.key == "b"
    report = pack({**config, "on_error": "skip"})
    assert report.num_rejected == 1 and [row["t"] for row in rows_of(tmp_path / "out")] == ["x", "y"]


def test_running_twice_does_not_double_a_dataset(poems):
    """A dataset that stands is left alone, unless appending is asked for."""
    pack(config_of(poems))
    with pytest.raises(ConfigError, match="output.url: a dataset stands at .*if_exists: append"):
        pack(config_of(poems))
    report = pack(config_of(poems, output={"url": str(poems.parent / "out"), "if_exists": "append"}))
    assert (report.datasets[0].num_samples_added, report.datasets[0].num_samples) == (5, 10)


def test_appending_keeps_the_numbers_of_classes(poems):
    """``auto`` takes the classes of the dataset that stands; others named are refused."""

    def config(classes):
        return config_of(poems, fields={"y": {"from": "top", "classes": classes}}, on_error="skip",
                         output={"url": str(poems.parent / "out"), "if_exists": "append"})  # fmt: skip

    pack(config(["sun", "rain", "top"]))
    (poems / "fog").mkdir()
    (poems / "fog/1.txt").write_text("grey")
    report = pack(config("auto"))
    assert report.classes == {"y": ["sun", "rain", "top"]} and report.num_rejected == 1
    with pytest.raises(ConfigError, match="has other classes: sun, rain, top"):
        pack(config(["rain", "sun", "top"]))


def test_a_job_whose_steps_leave_nothing_says_so(poems):
    with pytest.raises(EmptyDatasetError, match="got none of 5 records, so nothing was committed. The steps made no row of any"):
        pack(config_of(poems, steps=[{"passages": {"chars": 2000, "min_chars": 1000}}]))


def test_split_without_rows_commits_nothing(poems):
    """An empty split is an error before any split is committed."""
    config = config_of(
        poems, splits={"parts": {"all": 0.999999, "none": 0.000001}}, output={"url": str(poems.parent / "{split}")}
    )
    with pytest.raises(EmptyDatasetError, match="the split 'none' got none of 5 records"):
        pack(config)
    assert not Log(Store(str(poems.parent / "all"))).exists()


def test_classes_record_that_is_damaged_is_an_error(poems):
    """Any bytes in the classes' place give names, none, or a typed error."""
    pack(config_of(poems))
    url = str(poems.parent / "out")
    assert class_names(url) == {}
    for data in (b"", b"[]", b"{", b'{"format": 1}', b"\xff", json.dumps({"format": 2, "classes": {}}).encode()):
        Store(url).put_bytes(NAME, data)
        with pytest.raises(DatasetError):
            class_names(url)


def test_job_without_a_terminal_prints_nothing(poems, capfd):
    """The bar belongs to terminals; logs stay clean."""
    pack(config_of(poems))
    assert capfd.readouterr() == ("", "")


SLOW_JOB = """
import sys, time
from shardstream.packing import pack

def records():
    for number in range(10**6):
        if number == 3000:
            print("going", flush=True)
        time.sleep(0.0001 if number > 3000 else 0)
        yield {"n": number}

fields = {"n": {"kind": "dense", "dtype": "int64"}}
output = {"url": sys.argv[1], "shard_nbytes": "4kB"}
pack({"source": {"kind": "records", "records": records}, "fields": fields, "output": output})
"""


@pytest.mark.parametrize("settings, wanted", [
    ({}, "\u00e9 \ufb01\n A"), ({"form": "NFD"}, "e\u0301 \ufb01\n A"), ({"form": "NFKC"}, "\u00e9 fi\n A"),
    ({"form": None, "lowercase": True}, "e\u0301 \ufb01\n a"), ({"spaces": True}, "\u00e9 \ufb01 A"),
], ids=str)  # fmt: skip
def test_texts_are_normalised(tmp_path, settings, wanted):
    """Unicode's form, lower case and white space, each if asked; what is no text is a reject, and an unknown form a
    mistake.
    """
    config = {"source": [{"text": "e\u0301 \ufb01\n A"}, {"text": 5}], "steps": [{"normalise": settings}], "on_error": "skip",
              "fields": {"text": {"kind": "text"}}, "output": {"url": str(tmp_path / "out")}}  # fmt: skip
    assert pack(config).rejects == ["record 1: the value is int, not text. [key 1, field text]"]
    assert [row["text"] for row in ss.ShardStream(str(tmp_path / "out"))] == [wanted]
    with pytest.raises(ConfigError, match="form"):
        pack({**config, "steps": [{"normalise": {"form": "NFX"}}]})


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_killed_job_publishes_nothing(tmp_path, how):
    """After kill -9 or Ctrl-C in the middle there is no dataset, and the next run of the job succeeds."""
    url = str(tmp_path / "out")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    job = subprocess.Popen(
        [sys.executable, "-c", SLOW_JOB, url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    assert job.stdout.readline() == b"going\n"
    time.sleep(0.2)
    job.send_signal(how)
    job.communicate(timeout=30)
    assert job.returncode != 0 and not Log(Store(url)).exists()
    assert (
        pack(
            {"source": [{"n": 1}], "fields": {"n": {"kind": "dense", "dtype": "int64"}}, "output": {"url": url}}
        ).num_records
        == 1
    )

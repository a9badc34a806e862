"""Packing steps of tokens: what ``tokenize`` and ``sequences`` make, and what they refuse."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import shardstream as ss
from shardstream.errors import ConfigError, SampleError
from shardstream.packing import pack
from shardstream.packing.job import fingerprint, load, prepare
from tests import texts
from tests.twins import sequences as twin

ROOT = Path(__file__).resolve().parents[1]
TEXTS = [text[:3000] for text in texts.library_text(200_000)] + ["", "\u4e2d\u6587 na\u00efve", "text <|begin|> text"]


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocabulary") / "tokenizer.json"
    ss.tokenizers.train(TEXTS, 1000, "cl100k", special_tokens=["<|endoftext|>", "<|begin|>"]).save(path)
    return path


def config(vocabulary, url, sequences=None, records=TEXTS, fields=None, **settings) -> dict:
    steps = [{"tokenize": {"tokenizer": str(vocabulary), **settings}}]
    if sequences is not None:
        steps.append({"sequences": sequences})
    return {
        "source": [{"key": f"k{number}", "text": text} for number, text in enumerate(records)], "steps": steps,
        "fields": fields or {"key": None, "ids": None}, "output": {"url": str(url)},
    }  # fmt: skip


def rows_of(url, *names) -> list[tuple]:
    rows = ss.ShardStream(str(url), dtypes=None)
    return [tuple(row[name] if isinstance(row[name], str) else row[name].tolist() for name in names) for row in rows]


def test_ids_are_the_tokenizer_s(vocabulary, tmp_path):
    """Each text becomes its ids, with the end's id behind it and the begin's before it; uint16 where that suffices."""
    pack(config(vocabulary, tmp_path / "d", end="<|endoftext|>", begin="<|begin|>"))
    tokenizer = ss.tokenizers.load(vocabulary)
    expected = [
        (f"k{i}", [999, *tokenizer.encode(text, disallowed_special=()).tolist(), 998]) for i, text in enumerate(TEXTS)
    ]
    assert rows_of(tmp_path / "d", "key", "ids") == expected
    assert ss.Dataset(str(tmp_path / "d")).schema["ids"] == ss.Ragged("uint16")


def test_dtypes_are_chosen_and_checked_against_the_vocabulary(vocabulary, tmp_path):
    """A vocabulary of more than 65,536 ids takes uint32; a dtype without room for all ids is refused with its place."""
    large = tmp_path / "large.tiktoken"
    ss.tokenizers.load(vocabulary).save(large)
    special = {"<far>": 2**16}
    pack(config(large, tmp_path / "d", pattern="cl100k", special_tokens=special, end="<far>"))
    assert ss.Dataset(str(tmp_path / "d")).schema["ids"] == ss.Ragged("uint32")
    assert all(row[-1] == 2**16 for (row,) in rows_of(tmp_path / "d", "ids"))
    with pytest.raises(ConfigError, match=r"steps\[0\]\.tokenize\.dtype: uint16 has no room for the 65537 ids"):
        pack(config(large, tmp_path / "e", pattern="cl100k", special_tokens=special, dtype="uint16"))
    pack(config(large, tmp_path / "g", pattern="cl100k", special_tokens={"<far>": 2**16 - 1}, end="<far>"))
    assert ss.Dataset(str(tmp_path / "g")).schema["ids"] == ss.Ragged("uint16")
    assert all(row[-1] == 2**16 - 1 for (row,) in rows_of(tmp_path / "g", "ids"))
    pack(config(vocabulary, tmp_path / "f", dtype="int64"))
    assert ss.Dataset(str(tmp_path / "f")).schema["ids"] == ss.Ragged("int64")


@pytest.mark.parametrize("method", ["concatenate", "best_fit"])
def test_sequences_are_those_of_the_documents(vocabulary, tmp_path, method):
    """Rows are the twin's: tokens, positions and borders; the key names the first document and its first token."""
    fields = {"key": None, "ids": None, "positions": None, "borders": None}
    pack(config(vocabulary, tmp_path / "d", {"length": 256, "method": method}, end="<|endoftext|>", fields=fields))
    tokenizer = ss.tokenizers.load(vocabulary)
    documents = [[*tokenizer.encode(text, disallowed_special=()).tolist(), 998] for text in TEXTS]
    layout = getattr(twin, method)([len(ids) for ids in documents], 256)
    expected = [
        (f"k{pieces[0][0]}@{pieces[0][1]}", *row) for pieces, row in zip(layout, twin.arrange(documents, layout))
    ]
    assert rows_of(tmp_path / "d", *fields) == expected


def test_padded_sequences_are_dense(vocabulary, tmp_path):
    """With ``pad_id`` all rows have the full length; the last border says where the tokens end."""
    fields = {"ids": None, "positions": None, "borders": None}
    pack(config(vocabulary, tmp_path / "d", {"length": 128, "method": "best_fit", "pad_id": 7}, fields=fields))
    assert ss.Dataset(str(tmp_path / "d")).schema["ids"] == ss.Dense("uint16", (128,))
    total = 0
    for ids, positions, borders in rows_of(tmp_path / "d", *fields):
        total += borders[-1]
        assert (
            len(ids) == len(positions) == 128 and set(ids[borders[-1] :]) <= {7} and not any(positions[borders[-1] :])
        )
    tokenizer = ss.tokenizers.load(vocabulary)
    assert total == len(tokenizer.encode_batch(TEXTS)[0])


def test_no_token_is_lost_between_batches(vocabulary, tmp_path):
    """A job of several batches gives every token once, each batch's sequences by themselves, the same on every run."""
    records = [TEXTS[number % len(TEXTS)][: number % 300] for number in range(2500)]
    tokenizer = ss.tokenizers.load(vocabulary)
    expected = np.sort(tokenizer.encode_batch(records)[0]).tolist()
    seen = []
    for name in ("one", "two"):
        pack(config(vocabulary, tmp_path / name, {"length": 512}, records=records))
        seen.append(rows_of(tmp_path / name, "key", "ids"))
    assert seen[0] == seen[1]
    assert sorted(token for _, ids in seen[0] for token in ids) == expected
    assert sum(len(ids) < 512 for _, ids in seen[0]) <= 3


def test_sequences_need_to_know_what_documents_hold(tmp_path):
    """What records of an iterable hold is not known before they are read, and a dtype cannot be guessed."""
    records = [{"key": "a", "ids": [1, 2, 3]}, {"key": "b", "ids": [4]}]
    job = {
        "source": records,
        "steps": [{"sequences": {"length": 2}}],
        "fields": {"ids": None},
        "output": {"url": str(tmp_path / "d")},
    }
    with pytest.raises(ConfigError, match=r"steps\[0\]\.sequences\.field: what 'ids' holds is not known"):
        pack(job)


@pytest.mark.parametrize(("settings", "sequences", "message"), [
    ({"tokenizer": "no_such_vocabulary"}, None, r"steps\[0\]\.tokenize\.tokenizer: no_such_vocabulary is neither"),
    ({"end": "<|end|>"}, None, r"tokenize\.end: '<\|end\|>' is not a token of .*; its special tokens: <\|endoftext\|>, <\|begin\|>"),
    ({"dtype": "float32"}, None, "ids are uint16, int32, uint32 or int64, not 'float32'"),
    ({"pattern": "cl100k"}, None, "holds its pattern"),
    ({"field": "txt"}, None, r"tokenize\.field"), ({"too": "x"}, None, "did you mean 'to'"),
    ({}, {"length": 0}, r"sequences\.length: must be from 1"), ({}, {}, "'length' is missing"),
    ({}, {"length": 8, "method": "worst_fit"}, "worst_fit"), ({}, {"length": 8, "field": "text"}, "is text, not ragged"),
    ({}, {"length": 8, "pad_id": 70_000}, r"sequences\.pad_id: 70000 does not fit uint16"),
])  # fmt: skip
def test_wrong_settings_are_named(vocabulary, tmp_path, settings, sequences, message):
    """A mistake is an error before anything is read, with the step and the key."""
    job = config(vocabulary, tmp_path / "d", sequences, **settings)
    if "field" in {**settings, **(sequences or {})}:  # records of an iterable may have any column; files may not
        job["source"] = {"kind": "text", "paths": str(vocabulary)}
    with pytest.raises(ConfigError, match=message):
        pack(job)
    assert not (tmp_path / "d").exists()


def test_records_without_text_are_named(vocabulary, tmp_path):
    """A record whose text is none is an error with its key, or skipped and counted."""
    job = config(vocabulary, tmp_path / "d", {"length": 64}, records=["some text", None, 3, "more"])
    with pytest.raises(SampleError, match="k1"):
        pack(job)
    assert pack({**job, "on_error": "skip"}).num_rejected == 2


def test_tokens_are_counted_once(vocabulary, tmp_path):
    """The report has the tokens of the texts, begin and end counted, whatever else is done with them."""
    report = pack(config(vocabulary, tmp_path / "d", {"length": 64, "pad_id": 0}, end="<|endoftext|>"))
    assert report.num_tokens == len(ss.tokenizers.load(vocabulary).encode_batch(TEXTS)[0]) + len(TEXTS)


def test_jobs_go_on_with_the_same_vocabulary_only(vocabulary, tmp_path):
    """Another vocabulary under the same name makes another job: one dataset never has the ids of both."""
    path = tmp_path / "tokenizer.json"
    found = []
    for size in (300, 301, 300):
        path.unlink(missing_ok=True)
        ss.tokenizers.train(TEXTS, size).save(path)
        found.append(fingerprint(prepare(load(config(path, tmp_path / "d")))))
    assert found[0] == found[2] != found[1]


def test_workers_give_the_same_sequences(vocabulary, tmp_path):
    """The steps are pickled to worker processes, and sequences do not depend on how many there are."""
    for number in range(8):
        (tmp_path / "texts" / f"{number}.txt").parent.mkdir(exist_ok=True)
        (tmp_path / "texts" / f"{number}.txt").write_text("\n".join(TEXTS) * 2)
    job = config(vocabulary, tmp_path / "2", {"length": 512, "method": "best_fit"}, end="<|endoftext|>")
    job["source"] = {"kind": "text", "paths": str(tmp_path / "texts")}
    for workers in (2, 1):
        pack({**job, "engine": {"kind": "local", "workers": workers}, "output": {"url": str(tmp_path / str(workers))}})
    assert rows_of(tmp_path / "2", "key", "ids") == rows_of(tmp_path / "1", "key", "ids")


def test_the_bar_shows_megabytes_and_tokens_a_second(vocabulary, tmp_path):
    """On a terminal a job of several parts says how fast it is, and the bar is gone at the end."""
    for number in range(4):
        (tmp_path / f"{number}.txt").write_text("\n".join(TEXTS) * 40)
    job = tmp_path / "job.yaml"
    job.write_text(f"source: {{kind: text, paths: {tmp_path}, include: ['*.txt']}}\nsteps: [tokenize: {{tokenizer: {vocabulary}}}]\n"
                   f"fields: {{ids: }}\noutput: {{url: {tmp_path}/d}}\n")  # fmt: skip
    ours, theirs = pty.openpty()
    command = subprocess.Popen([sys.executable, "-m", "shardstream", "pack", str(job)], stdout=subprocess.PIPE, stderr=theirs,
                               env={**os.environ, "TERM": "xterm", "COLUMNS": "200", "PYTHONPATH": str(ROOT)})  # fmt: skip
    os.close(theirs)
    shown = b""
    try:
        while data := os.read(ours, 4096):
            shown += data
    except OSError:  # the other end is closed
        pass
    out = command.communicate(timeout=60)[0].decode()
    os.close(ours)
    assert command.returncode == 0 and b"MB/s" in shown and b"M tokens/s" in shown
    assert "M tokens/s" in out and "MB/s" in out

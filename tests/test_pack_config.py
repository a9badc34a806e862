"""What a packing configuration may say, and what is said back when it is wrong: file, line, key, rule."""

import textwrap

import pytest

from shardstream.errors import ConfigError
from shardstream.packing.document import Document
from shardstream.packing.job import load, prepare

GOOD = """\
source:
  kind: text
  paths: {folder}
steps:
  - hash: {{dim: 64}}
fields:
  x:
output:
  url: {folder}/out
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a/1.txt").write_text("one two three")
    (tmp_path / "b/2.txt").write_text("four five")
    return tmp_path


def message_of(folder, text: str, overrides=()) -> str:
    """Return the message that a configuration is refused with, less the folder's name."""
    path = folder / "job.yaml"
    path.write_text(textwrap.dedent(text).replace("FOLDER", str(folder)))
    with pytest.raises(ConfigError) as refused:
        prepare(load(path, overrides))
    return str(refused.value).replace(str(folder), "FOLDER")


def replaced(old: str, new: str) -> str:
    text = GOOD.format(folder="FOLDER")
    assert old in text
    return text.replace(old, new)


def test_good_configuration_is_accepted(folder):
    """The configuration that the tests below break one by one is right."""
    (folder / "job.yaml").write_text(GOOD.format(folder=folder))
    assert list(prepare(load(folder / "job.yaml")).schema) == ["x"]


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("fields:", "feilds:", "6: feilds: unknown key 'feilds'; did you mean 'fields'?"),
        ("{dim: 64}", "{dmi: 64}", "5: steps[0].hash.dmi: unknown key 'dmi'; did you mean 'dim'?"),
        ("{dim: 64}", "{dim: lots}", "5: steps[0].hash.dim: expected int, got str."),
        ("{dim: 64}", "{dim: 0}", "5: steps[0].hash: dim=0 must be an integer from 1 to 2147483647."),
        ("{dim: 64}", "{dim: 64, field: txt}", "5: steps[0].hash.field: unknown column 'txt'; did you mean 'text'?"),
        ("- hash:", "- hsah:", "5: steps[0]: unknown step 'hsah'; did you mean 'hash'?"),
        (
            "  - hash: {dim: 64}",
            "  - no_such_module.f",
            "5: steps[0]: cannot import 'no_such_module': No module named 'no_such_module'.",
        ),
        ("  - hash: {dim: 64}", "  - os.path.nothing", "5: steps[0]: the module 'os.path' has no 'nothing'."),
        ("  - hash: {dim: 64}", "  - 7", "5: steps[0]: a step is a name, or one name with its settings below it."),
        ("kind: text", "kind: texts", "2: source.kind: unknown source 'texts'; did you mean 'text'?"),
        (
            "  kind: text\n",
            "",
            "1: source: the key 'kind' is missing; known sources: text, jsonl, csv, "
            "parquet, hf, libsvm, images, idx, webdataset, records.",
        ),
        (
            "kind: text",
            "kind: text\n  encoding: utf-99",
            "3: source.encoding: 'utf-99' is not a text encoding that Python knows.",
        ),
        ("kind: text", "kind: text\n  decode_errors: ignore", "3: source.decode_errors: unknown value 'ignore'; known: strict, replace."),
        ("paths: FOLDER", "paths: FOLDER/none", "3: source.paths: there is nothing at 'FOLDER/none'."),
        (
            "paths: FOLDER",
            "paths: FOLDER/*.md",
            "3: source.paths: no file at 'FOLDER/*.md' that include and exclude let pass.",
        ),
        (
            "paths: FOLDER",
            "paths: ${NO_SUCH_NAME}",
            "3: source.paths: ${NO_SUCH_NAME} is neither 'stdlib' nor a variable of the environment.",
        ),
        ("  x:\n", "  x: grams\n", "7: fields.x: unknown column 'grams'; known: key, path, top, folder, text, x."),
        (
            "  x:\n",
            "  X: x\n",
            "6: fields: field name 'X' must match [a-z][a-z0-9_]* and be none of "
            "['npy', 'offsets', 'sparse', 'values'].",
        ),
        ("output:\n", "output:\n  shard_nbyte: 9\n", "9: output.shard_nbyte: unknown key 'shard_nbyte'; did you mean 'shard_nbytes'?"),
        ("output:\n", "splits: {train: 0.9}\noutput:\n", "8: splits.train: unknown key 'train'; known: parts, by, seed."),
        ("kind: text\n", "kind: csv\n  types: {a: itn}\n", "3: source.types: unknown value 'itn'; known: int, float, text."),
        ("output:\n", "output:\n  compression: gzip\n", "9: output.compression: unknown value 'gzip'; known: zstd."),
        ("  x:\n", "  x: {kind: spares}\n", "7: fields.x.kind: unknown kind 'spares'; did you mean 'sparse'?"),
        ("  x:\n", "  x: {kind: sparse}\n", "7: fields.x: a sparse field needs its dim."),
        ("  x:\n", "  x: {kind: text, dim: 3}\n", "7: fields.x.dim: a text field has no dim."),
        ("  x:\n", "  x: {dtype: int8}\n", "7: fields.x.dtype: say the field's kind, too."),
        (
            "  x:\n",
            "  x: {from: top, classes: some}\n",
            "7: fields.x.classes: write auto, a list of names, or keys with values, not 'some'.",
        ),
        (
            "  x:\n",
            "  x: {from: top, classes: [a, a]}\n",
            "7: fields.x.classes: the names of classes are distinct, and there is at least one.",
        ),
        (
            "  x:\n",
            "  x: {from: top, classes: {min_records: 3}}\n",
            "7: fields.x.classes: none of 3 labels has 3 records.",
        ),
        (
            "  x:\n",
            "  x: {from: text, classes: auto}\n",
            "7: fields.x.classes: the labels are not known before the records are read and the steps done; "
            "list the classes.",
        ),
        ("fields:\n  x:\n", "fields: {}\n", "6: fields: a dataset needs at least one field."),
        (
            "output:\n",
            "output:\n  shard_nbytes: 64 parsecs\n",
            "9: output.shard_nbytes: size='64 parsecs' is not a size; write bytes or one of "
            "B, kB, KB, MB, GB, TB, KiB, MiB, GiB, TiB.",
        ),
        ("FOLDER/out", "FOLDER/{split}", "9: output.url: {split} stands here, but the configuration has no splits."),
        (
            "output:\n",
            "splits: {parts: {a: 0.5, b: 0.5}}\noutput:\n",
            "10: output.url: several splits need {split} in the URL, which stands for their names.",
        ),
        (
            "output:\n",
            "splits: {parts: {a: 0.5, b: 0.4}}\noutput:\n",
            "8: splits.parts: the shares add up to 0.9, not to 1.",
        ),
        (
            "output:\n",
            "splits: {parts: {a: 1.5}}\noutput:\n",
            "8: splits.parts.a: a share is more than 0 and at most 1, not 1.5.",
        ),
        ("output:\n  url: FOLDER/out\n", "", "1: the key 'output' is missing."),
        ("output:\n", "output:\n  url: x\n", "10: output.url: this key stands twice."),
        ("output:\n", "output: [\n", "10: not YAML: expected ',' or ']', but got '<stream end>'."),
        ("output:\n", "on_error: &loop [*loop]\noutput:\n", "8: on_error[0]: an alias that contains itself."),
    ],
)
def test_a_mistake_is_named_with_its_place(folder, old, new, message):
    """Each mistake gives one line: the file, the line, the key, the rule."""
    assert message_of(folder, replaced(old, new)) == f"FOLDER/job.yaml:{message}"


def test_override_replaces_a_key_and_is_named_when_wrong(folder):
    """--set changes one key; a mistake in it is reported as its own, not as the file's."""
    text = GOOD.format(folder="FOLDER")
    assert message_of(folder, text, ["steps[0].hash.dim=many"]) == "--set steps[0].hash.dim: expected int, got str."


def test_override_makes_sections_that_are_not_there(folder):
    """--set splits.parts={...} adds what the file has not."""
    (folder / "job.yaml").write_text(GOOD.format(folder=folder))
    overrides = ["splits.parts={train: 0.5, test: 0.5}", f"output.url={folder}/{{split}}", "steps.0.hash.dim=128"]
    job = prepare(load(folder / "job.yaml", overrides))
    assert job.top.splits.parts == {"train": 0.5, "test": 0.5} and job.schema["x"].dim == 128


@pytest.mark.parametrize(
    "assignment", ["output.url", "=3", "steps[7].hash.dim=3", "output..url=3", "source.kind.deeper=1"]
)
def test_override_that_fits_nowhere_is_refused(folder, assignment):
    """--set without a value, or for what cannot hold one, is an error that repeats it."""
    assert message_of(folder, GOOD.format(folder="FOLDER"), [assignment]).startswith(f"--set {assignment}: ")


def test_override_spares_the_variable_that_it_replaces(folder, monkeypatch):
    """A variable that is not set matters only if its text is used."""
    monkeypatch.delenv("NO_SUCH_NAME", raising=False)
    (folder / "job.yaml").write_text(GOOD.format(folder=folder).replace(f"{folder}/out", "${NO_SUCH_NAME}/out"))
    assert prepare(load(folder / "job.yaml", [f"output.url={folder}/o"])).top.output.url == f"{folder}/o"


def test_variables_of_the_environment_are_replaced(folder, monkeypatch):
    """${NAME} in any text is the environment's."""
    monkeypatch.setenv("CORPUS", str(folder))
    (folder / "job.yaml").write_text(GOOD.format(folder="${CORPUS}"))
    assert prepare(load(folder / "job.yaml")).top.output.url == f"{folder}/out"


def test_missing_file_is_one_line(tmp_path):
    """A configuration that is not there is an error that names it."""
    with pytest.raises(ConfigError, match="cannot read the configuration .*none.yaml"):
        load(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    "text",
    ["", "- a\n", "text\n", "\x00", "{a: 1", "? [1, 2]\n: 3\n", "<<: {a: 1}\n", "a: !!python/object:os.system 1\n"],
)
def test_what_is_not_a_mapping_of_keys_is_refused(text):
    """Any other YAML, or none, is a ConfigError that names the file; nothing is executed."""
    with pytest.raises(ConfigError, match="job.yaml"):
        Document.from_yaml(text, "job.yaml")


def test_dict_is_the_same_without_lines(folder):
    """A dict is checked as the file is; messages name the key only."""
    config = {"source": {"kind": "text", "paths": str(folder)}, "fields": {"x": "nothing"}, "output": {"url": "o"}}
    with pytest.raises(ConfigError, match=r"^fields\.x: unknown column 'nothing'"):
        prepare(load(config))


def test_dict_of_the_caller_is_not_changed(folder):
    """Overrides and defaults are applied to a copy."""
    config = {"source": {"kind": "text", "paths": "${X}"}, "fields": {"text": None}, "output": {"url": "o"}}
    load(config, [f"source.paths={folder}"])
    assert config["source"]["paths"] == "${X}"

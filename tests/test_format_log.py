"""docs/FORMAT.md, section 1, is true: its example is a log, and its Python reader reads one."""

import json
import re
from pathlib import Path

from shardstream.log import Log, entries, folds
from shardstream.log.state import Step, fold
from shardstream.schema import Dense, Schema
from shardstream.storage import Store
from tests.synthetic_log import SyntheticLog, record

SECTION = Path(__file__).parents[1].joinpath("docs/FORMAT.md").read_text().split("\n## ")[1]
EXAMPLE = [text.encode() for text in re.findall(r"```json\n(.*?)\n```", SECTION, re.DOTALL)]


def test_the_example_is_a_log():
    """The worked entries decode, fold to what the text says, and are byte for byte what this library writes."""
    found = [entries.decode(data, version) for version, data in enumerate(EXAMPLE)]
    assert [entry.kind for entry in found] == ["create", "claim", "append"]
    assert [entries.encode(entry) for entry in found] == EXAMPLE
    state = fold(None, map(Step.of, found))
    assert state.shards.sid(0) == "01890000-0000-7000-8000-0000000000aa"
    assert state.producers["web"].source == {"byte": 4096}
    assert Schema.from_json(state.schema) == Schema(y=Dense("int64"))


def test_the_reader_in_the_text_reads_a_dataset(tmp_path):
    """The dozen lines of Python in the text see the same live shards as the library."""
    code = re.search(r"```python\n(.*?)\n```", SECTION, re.DOTALL)[1]
    names: dict = {}
    exec(code, names)  # the document's own code
    log = Log(Store(tmp_path))
    log.create(None)
    old = [record(), record(), record()]
    log.append(old)
    log.replace([old[1].sid], [record()])
    shards = log.snapshot().shards
    assert names["live_shards"](tmp_path) == (2, [shards.sid(row) for row in range(3)])


def test_every_key_of_an_entry_is_described():
    """Each key that entries and folds can have stands in the text."""
    keys = [*entries.Entry.__struct_fields__, *entries.ShardRecord.__struct_fields__, *folds._Meta.__struct_fields__]
    assert [key for key in keys if f"`{key}`" not in SECTION] == []


def test_fold_layout_is_as_described():
    """Members of a fold, their order and dtypes are those of the table."""
    import io
    import zipfile

    with zipfile.ZipFile(io.BytesIO(folds.encode_all(SyntheticLog(1024).state(1024)))) as archive:
        members = [info.filename.removesuffix(".npy") for info in archive.infolist()]
        meta = json.loads(archive.read("meta.npy")[128:])
    assert members == ["meta", "sid", "num_samples", "nbytes", "index_offset", "index_nbytes", "index_crc32c", "entry"]
    assert (meta["begin"], meta["end"], meta["format"]) == (-1, 1024, 1)

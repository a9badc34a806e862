"""JSON Lines, plain or as .gz or .zst: one object a line. Its keys are the columns, and ``key``.

The key is the value at the key that ``key:`` names, else the file's name and the byte at which the line
begins (``a/b.jsonl:1042``): unlike its number, that is known without reading all lines before.
"""

from __future__ import annotations

import msgspec

from shardstream.packing.document import Document
from shardstream.packing.sources.files import FilesSettings
from shardstream.packing.sources.lines import BadLine, LinesSource
from shardstream.packing.steps import ANY, Column
from shardstream.schema import Text

decode = msgspec.json.Decoder().decode


class JsonlSettings(FilesSettings):
    """The keys of ``source`` with ``kind: jsonl``."""

    key: str = "key"


class JsonlSource(LinesSource):
    """The objects of files in the order of their lines; empty lines are passed over."""

    columns = {"key": Column(Text(), is_source=True), ANY: Column(None, is_source=True)}

    def __init__(self, settings: JsonlSettings, document: Document):
        self._key = settings.key
        super().__init__(settings, document)

    def record(self, line: bytes) -> dict | None:
        try:
            value = decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            if not line.strip():
                return None
            raise BadLine(f"not JSON: {error}") from error
        if not isinstance(value, dict):
            raise BadLine(f"an object was expected, not {value!r:.80}.")
        key = value.get(self._key)
        value["key"] = None if key is None else str(key)
        return value

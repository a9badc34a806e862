"""JSON Lines, plain or as .gz or .zst: one object a line. Its keys are the columns, and ``key``.

The key is the value at the key that ``key:`` names, which every object must have then. Without ``key:`` it is the value
at "key", else the file's name and the byte at which the line begins (``a/b.jsonl:1042``): unlike its number, that is
known without reading all lines before.
"""

from __future__ import annotations

import msgspec
import numpy as np

from shardstream.packing.document import Document
from shardstream.packing.sources.files import FilesSettings
from shardstream.packing.sources.lines import BadLine, LinesSource
from shardstream.packing.steps import ANY, Column
from shardstream.schema import Text

decoder = msgspec.json.Decoder()


class JsonlSettings(FilesSettings):
    """The keys of ``source`` with ``kind: jsonl``."""

    key: str | None = None


class JsonlSource(LinesSource):
    """The objects of files in the order of their lines; empty lines are passed over."""

    columns = {"key": Column(Text(), is_source=True), ANY: Column(None, is_source=True)}

    def __init__(self, settings: JsonlSettings, document: Document):
        self._key = settings.key
        super().__init__(settings, document)

    def record(self, line: bytes) -> dict | None:
        try:
            value = decoder.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            if not line.strip():
                return None
            raise BadLine(f"not JSON: {error}") from error
        if not isinstance(value, dict):
            raise BadLine(f"an object was expected, not {value!r:.80}.")
        if not self._set_key(value):
            raise BadLine(f"there is no {self._key!r}, which is to be the key.", "key")
        return value

    def records(self, data: bytes) -> list[dict] | None:
        # Between } and { no value goes on, so if all lines end and begin so, each holds whole values, and then one each
        # if there are as many values as lines. The decoder alone would take several in a line, and one in several.
        codes = np.frombuffer(data, np.uint8)
        ends = np.flatnonzero(codes == ord("\n"))
        if not data.startswith(b"{") or not data.endswith(b"}"):
            return None
        if (codes[ends - 1] != ord("}")).any() or (codes[ends + 1] != ord("{")).any():
            return None
        try:
            values = decoder.decode_lines(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        if len(values) != len(ends) + 1:
            return None
        return values if all([self._set_key(value) for value in values]) else None  # noqa: C419  (all of them get one)

    def _set_key(self, value: dict) -> bool:
        """Set an object's key; return whether it has the one that the settings name."""
        key = value.get(self._key or "key")
        value["key"] = None if key is None else str(key)
        return key is not None or self._key is None

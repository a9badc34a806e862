"""``passages``: cut each text into passages, a row each."""

from __future__ import annotations

from collections.abc import Iterator

from shardstream.packing.batch import Batch
from shardstream.packing.config import Settings
from shardstream.packing.document import Document, Path
from shardstream.packing.steps import Column, Columns, need
from shardstream.schema import Text


class PassagesSettings(Settings):
    """The keys of ``passages``."""

    field: str = "text"
    chars: int = 2000
    min_chars: int = 1


def cut(text: str, chars: int) -> Iterator[str]:
    """Give consecutive pieces of at most ``chars`` characters that together are the text.

    A piece ends after the last line end that fits, else after the last space, else at ``chars``.
    """
    begin = 0
    while begin < len(text):
        end = begin + chars
        if end < len(text):
            last = text.rfind("\n", begin, end)
            last = last if last >= 0 else text.rfind(" ", begin, end)
            end = last + 1 if last >= 0 else end
        yield text[begin:end]
        begin = end


class PassagesStep:
    """Replaces a row by the passages of its text; their keys are ``<key>:<number from 0>``, other columns repeat.

    Passages with fewer than ``min_chars`` characters between the white space at their ends are left out.
    """

    def __init__(self, settings: PassagesSettings, document: Document, path: Path):
        self.settings, self.document, self.path = settings, document, path
        for name in ("chars", "min_chars"):
            if getattr(settings, name) < 1:
                raise document.error((*path, name), f"must be at least 1, not {getattr(settings, name)}.")

    def columns(self, before: Columns) -> Columns:
        need(self.document, (*self.path, "field"), before, self.settings.field, Text)
        return {**before, self.settings.field: Column(Text()), "key": Column(Text())}

    def run(self, batch: Batch) -> Batch:
        batch = batch.checked(self.settings.field, str, "text")
        keys = batch.columns["key"]
        rows, passages, passage_keys = [], [], []
        for row, text in enumerate(batch.columns[self.settings.field]):
            kept = (piece for piece in cut(text, self.settings.chars) if len(piece.strip()) >= self.settings.min_chars)
            for number, piece in enumerate(kept):
                rows.append(row)
                passages.append(piece)
                passage_keys.append(f"{keys[row]}:{number}")
        batch = batch.take(rows)
        batch.columns |= {self.settings.field: passages, "key": passage_keys}
        return batch

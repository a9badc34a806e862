"""``normalise``: texts that look alike made alike, before they are hashed or tokenized."""

from __future__ import annotations

import unicodedata
from typing import Literal

from shardstream.packing.batch import Batch
from shardstream.packing.config import Settings
from shardstream.packing.document import Document, Path
from shardstream.packing.steps import Column, Columns, need
from shardstream.schema import Text


class NormaliseSettings(Settings):
    """The keys of ``normalise``."""

    field: str = "text"
    form: Literal["NFC", "NFD", "NFKC", "NFKD"] | None = "NFC"
    lowercase: bool = False
    spaces: bool = False


class NormaliseStep:
    """Replaces a text by its Unicode normal form (UAX #15, by Python's data), and more if asked.

    ``lowercase`` is ``str.lower``; ``spaces`` makes each run of white space one space, and strips the ends.
    """

    def __init__(self, settings: NormaliseSettings, document: Document, path: Path):
        self.settings, self.document, self.path = settings, document, path
        self.identity = unicodedata.unidata_version  # a job goes on with the same data only

    def columns(self, before: Columns) -> Columns:
        need(self.document, (*self.path, "field"), before, self.settings.field, Text)
        return {**before, self.settings.field: Column(Text())}

    def run(self, batch: Batch) -> Batch:
        batch = batch.checked(self.settings.field, str, "text")
        texts = [self._normal(text) for text in batch.columns[self.settings.field]]
        return Batch({**batch.columns, self.settings.field: texts}, batch.rejects, batch.num_tokens)

    def _normal(self, text: str) -> str:
        if self.settings.form is not None and not text.isascii():  # ASCII is in all four forms
            text = unicodedata.normalize(self.settings.form, text)
        if self.settings.lowercase:
            text = text.lower()
        return " ".join(text.split()) if self.settings.spaces else text

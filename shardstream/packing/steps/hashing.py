"""``hash``: the set of a text's hashed words, or of its word n-grams, made in C."""

from __future__ import annotations

from typing import Literal

from shardstream.errors import ConfigError
from shardstream.packing.batch import Batch
from shardstream.packing.config import Settings
from shardstream.packing.document import Document, Path
from shardstream.packing.refusals import without_refused
from shardstream.packing.steps import Column, Columns, need
from shardstream.packing.threads import num_threads
from shardstream.schema import Sparse, Text
from shardstream.text import FeatureHasher


class HashSettings(Settings):
    """The keys of ``hash``."""

    dim: int
    field: str = "text"
    to: str = "x"
    ngrams: tuple[int, int] = (1, 2)
    lowercase: bool = True
    analyzer: str = "word"
    values: Literal["counts", "signed"] | None = None


DTYPES = {None: None, "counts": "int32", "signed": "float32"}


class HashStep:
    """Adds the column ``to``: a sparse row a text, the set of its n-grams' hashes in ``[0, dim)``.

    With ``values: counts`` each index has the number of its n-grams, int32; with ``signed`` the sum of
    their hashes' signs, float32 (both as scikit-learn's ``HashingVectorizer(norm=None)``).
    """

    def __init__(self, settings: HashSettings, document: Document, path: Path):
        self.settings, self.document, self.path = settings, document, path
        try:
            self.hasher = FeatureHasher(
                settings.dim, settings.ngrams, lowercase=settings.lowercase, analyzer=settings.analyzer,
                signed=settings.values == "signed", binary=settings.values is None,
            )  # fmt: skip
        except ConfigError as error:
            raise document.error(path, error.message) from None

    def columns(self, before: Columns) -> Columns:
        need(self.document, (*self.path, "field"), before, self.settings.field, Text)
        return {**before, self.settings.to: Column(Sparse(self.settings.dim, values=DTYPES[self.settings.values]))}

    def run(self, batch: Batch) -> Batch:
        batch = batch.checked(self.settings.field, str, "text")
        hashed = self.hasher.sets if self.settings.values is None else self.hasher.transform
        batch, column = without_refused(
            batch, lambda part: hashed(part.columns[self.settings.field], num_threads=num_threads()), self.settings.field
        )
        return Batch({**batch.columns, self.settings.to: column}, batch.rejects, batch.num_tokens)

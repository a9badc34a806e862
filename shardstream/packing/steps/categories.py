"""``categories``: the hashed ``name=value`` features of several columns, made in C."""

from __future__ import annotations

from numbers import Real

from shardstream.errors import ConfigError
from shardstream.packing.batch import Batch
from shardstream.packing.config import Settings
from shardstream.packing.document import Document, Path
from shardstream.packing.refusals import without_refused
from shardstream.packing.steps import Column, Columns, need
from shardstream.schema import Dense, Sparse, Text
from shardstream.text import CategoryHasher
from shardstream.text.categories import rows_of_columns


class CategoriesSettings(Settings):
    """The keys of ``categories``."""

    dim: int
    fields: list[str]
    to: str = "x"
    signed: bool = False


class CategoriesStep:
    """Adds the column ``to``: a sparse row with float32 values, of the columns ``fields`` as features by name.

    A text is the category ``name=value`` with value 1, a number its name with that value; what a record lacks, and
    a 0, gives nothing. Rows are those of :class:`shardstream.text.CategoryHasher`.
    """

    def __init__(self, settings: CategoriesSettings, document: Document, path: Path):
        self.settings, self.document, self.path = settings, document, path
        if not settings.fields:
            raise document.error((*path, "fields"), "no column is named.")
        try:
            self.hasher = CategoryHasher(settings.dim, signed=settings.signed)
        except ConfigError as error:
            raise document.error(path, error.message) from None

    def columns(self, before: Columns) -> Columns:
        for number, name in enumerate(self.settings.fields):
            place = (*self.path, "fields", number)
            need(self.document, place, before, name, (Text, Dense))
            if name in before and getattr(before[name].kind, "shape", ()) != ():
                raise self.document.error(place, f"the column {name!r} has rows of shape {before[name].kind.shape}, not of one number.")
        return {**before, self.settings.to: Column(Sparse(self.settings.dim, values="float32"))}

    def run(self, batch: Batch) -> Batch:
        for name in self.settings.fields:
            if name in batch.columns:
                batch = batch.checked(name, (str, Real, type(None)), "a text or a number")
        batch, column = without_refused(batch, self._hashed)
        return Batch({**batch.columns, self.settings.to: column}, batch.rejects, batch.num_tokens)

    def _hashed(self, batch: Batch) -> tuple:
        columns = {name: batch.columns[name] for name in self.settings.fields if name in batch.columns}
        return self.hasher.transform(rows_of_columns(columns, len(batch)))

"""``sequences``: token documents put into sequences of one length, a row each."""

from __future__ import annotations

from typing import Literal

import numpy as np

from shardstream.packing.batch import RECORD, Batch, take
from shardstream.packing.config import Settings
from shardstream.packing.document import Document, Path
from shardstream.packing.steps import Column, Columns, need
from shardstream.schema import Dense, Ragged, Text
from shardstream.tokenizers import sequences


class SequencesSettings(Settings):
    """The keys of ``sequences``."""

    length: int
    method: Literal["concatenate", "best_fit"] = "concatenate"
    field: str = "ids"
    pad_id: int | None = None


class SequencesStep:
    """Replaces the rows by sequences of at most ``length`` tokens, made of the documents in the column ``field``.

    ===========  ======================================================================================
    column       meaning
    ===========  ======================================================================================
    key          ``<key of the sequence's first document>@<its first token there>``
    ``field``    the tokens: ragged; with ``pad_id`` dense, filled up to ``length`` with that id
    positions    of each token in its piece of a document, from 0, int32; filled up with 0
    borders      where each piece of a document begins in the sequence, and, last, where the tokens end
    ===========  ======================================================================================

    Sequences are made of one batch of the job's, never across two, so what comes out depends neither on the number of
    workers nor on what was packed before; the last sequence of a batch (4 MB of text) is mostly not full.
    """

    def __init__(self, settings: SequencesSettings, document: Document, path: Path):
        self.settings, self.document, self.path = settings, document, path
        if not 1 <= settings.length <= sequences.MAX_LENGTH:
            raise document.error((*path, "length"), f"must be from 1 to {sequences.MAX_LENGTH}, not {settings.length}.")

    def columns(self, before: Columns) -> Columns:
        settings = self.settings
        need(self.document, (*self.path, "field"), before, settings.field, Ragged)
        kind = before[settings.field].kind if settings.field in before else None
        if kind is None:
            raise self.document.error(
                (*self.path, "field"), f"what {settings.field!r} holds is not known; let a tokenize step make it."
            )
        if np.dtype(kind.dtype).kind not in "iu":
            raise self.document.error(
                (*self.path, "field"), f"the column {settings.field!r} holds {kind.dtype}, not whole numbers."
            )
        padded = settings.pad_id is not None
        if padded and not np.iinfo(kind.dtype).min <= settings.pad_id <= np.iinfo(kind.dtype).max:
            raise self.document.error((*self.path, "pad_id"), f"{settings.pad_id} does not fit {kind.dtype}.")
        shape = (settings.length,)
        return {
            "key": Column(Text()), settings.field: Column(Dense(kind.dtype, shape) if padded else kind),
            "positions": Column(Dense("int32", shape) if padded else Ragged("int32")),
            "borders": Column(Ragged("int32")),
        }  # fmt: skip

    def run(self, batch: Batch) -> Batch:
        settings = self.settings
        values, offsets = batch.columns[settings.field]
        layout = sequences.METHODS[settings.method](np.diff(offsets), settings.length)
        made = sequences.arrange(values, offsets, layout)
        first = layout.offsets[:-1]
        keys = batch.columns["key"]
        columns = {
            "key": [f"{keys[d]}@{b}" for d, b in zip(layout.document[first].tolist(), layout.begin[first].tolist())],
            settings.field: made.ids, "positions": made.positions, "borders": made.borders,
        }  # fmt: skip
        if RECORD in batch.columns:
            columns[RECORD] = take(batch.columns[RECORD], layout.document[first])
        if settings.pad_id is not None:
            columns[settings.field] = _filled(made.ids, settings.length, settings.pad_id)
            columns["positions"] = _filled(made.positions, settings.length, 0)
        return Batch(columns, batch.rejects, batch.num_tokens)


def _filled(column: tuple[np.ndarray, np.ndarray], length: int, value: int) -> np.ndarray:
    """Return ragged rows as one array of rows of ``length``."""
    values, offsets = column
    filled = np.full((len(offsets) - 1, length), value, values.dtype)
    filled[np.arange(length) < np.diff(offsets)[:, None]] = values
    return filled

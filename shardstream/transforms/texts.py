"""Columns of text to token ids or hashed features: ``Tokenize``, ``Hash`` and ``HashCategories``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from shardstream.collate import Jagged
from shardstream.errors import ConfigError
from shardstream.text import CategoryHasher, FeatureHasher
from shardstream.text.categories import rows_of_columns
from shardstream.tokenizers import Tokenizer


class Tokenize:
    """Makes the column ``to`` of the ids of each text: a :class:`Jagged` of int64 values, one C call for all rows.

    Give an instance to ``ShardStream(transform=)``, or call it in a transform of your own, marked ``@ss.batched``.
    Texts that are read more than once are better tokenized when they are packed.

    Args:
        tokenizer: Of :func:`shardstream.tokenizers.load` or ``train``; it is pickled to workers as its vocabulary.
        field: The column of texts, which ``to`` replaces if it has the same name.
    """

    shardstream_batched = True

    def __init__(self, tokenizer: Tokenizer, field: str = "text", to: str = "ids"):
        if not isinstance(tokenizer, Tokenizer):
            raise ConfigError(f"{tokenizer!r:.100} is no tokenizer: tokenizers.load() makes one of a file or a name.")
        self.tokenizer, self.field, self.to = tokenizer, field, to

    def __call__(self, columns: dict[str, Any]) -> dict[str, Any]:
        """Return the columns with the ids."""
        ids, offsets = self.tokenizer.encode_batch(texts_of(columns, self.field))
        return {**columns, self.to: Jagged(torch.from_numpy(ids.astype(np.int64)), torch.from_numpy(offsets))}


class Hash:
    """Makes the column ``to`` of the hashed n-grams of each text: a :class:`Jagged`, as ``sparse="jagged"`` gives.

    Its values are int64 indices below ``hasher.dim``, its weights what the hasher gives: counts or sums of signs, None
    if binary. One C call for all rows.

    Args:
        hasher: A :class:`shardstream.text.FeatureHasher`.
        field: The column of texts, which ``to`` replaces if it has the same name.
    """

    shardstream_batched = True

    def __init__(self, hasher: FeatureHasher, field: str = "text", to: str = "x"):
        if not isinstance(hasher, FeatureHasher):
            raise ConfigError(f"{hasher!r:.100} is no text.FeatureHasher.")
        self.hasher, self.field, self.to = hasher, field, to

    def __call__(self, columns: dict[str, Any]) -> dict[str, Any]:
        """Return the columns with the features."""
        indices, indptr, values = self.hasher.transform(texts_of(columns, self.field))
        weights = None if values is None or self.hasher.binary else torch.from_numpy(values.astype(np.float32))
        return {
            **columns,
            self.to: Jagged(torch.from_numpy(indices.astype(np.int64)), torch.from_numpy(indptr), weights),
        }


class HashCategories:
    """Makes the column ``to`` of several columns as named features: a :class:`Jagged`, as ``sparse="jagged"`` gives.

    A text is the category ``name=value``, a number the name with that value. Values are int64 indices below
    ``hasher.dim``, weights float32. One C call for all rows, after a dict of Python for each.

    Args:
        hasher: A :class:`shardstream.text.CategoryHasher` with ``input_type="dict"``.
        fields: The columns: lists of texts, or tensors of one number a row. They stay beside ``to``.
    """

    shardstream_batched = True

    def __init__(self, hasher: CategoryHasher, fields: Sequence[str], to: str = "x"):
        if not isinstance(hasher, CategoryHasher) or hasher.input_type != "dict":
            raise ConfigError(f'{hasher!r:.100} is no text.CategoryHasher with input_type="dict".')
        if isinstance(fields, str) or not fields:
            raise ConfigError(f"fields={fields!r} is no list of columns.")
        self.hasher, self.fields, self.to = hasher, list(fields), to

    def __call__(self, columns: dict[str, Any]) -> dict[str, Any]:
        """Return the columns with the features."""
        chosen = {name: self._entries(columns, name) for name in self.fields}
        indices, indptr, values = self.hasher.transform(rows_of_columns(chosen, len(chosen[self.fields[0]])))
        jagged = Jagged(torch.from_numpy(indices.astype(np.int64)), torch.from_numpy(indptr), torch.from_numpy(values))
        return {**columns, self.to: jagged}

    def _entries(self, columns: dict[str, Any], name: str) -> list | np.ndarray:
        column = columns.get(name)
        return column.numpy() if isinstance(column, torch.Tensor) else texts_of(columns, name)


def texts_of(columns: dict[str, Any], field: str) -> list:
    """Return a column of texts."""
    if field not in columns:
        raise ConfigError(f"there is no column {field!r}; there are {sorted(columns)}.", field=field)
    if not isinstance(columns[field], list):
        raise ConfigError(f"the column is {type(columns[field]).__name__}, not a list of texts.", field=field)
    return columns[field]

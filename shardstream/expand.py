"""Index sets of a batch's samples to one tensor: the collate function that expands them (``sparse_collate``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from shardstream._native.gather import Rows
from shardstream._native.sparse import sort_rows
from shardstream.assemble import BatchAssembler
from shardstream.buffers import BufferPool
from shardstream.collate import stack
from shardstream.errors import ConfigError, SampleError
from shardstream.forms import SPARSE_FORMS, Forms
from shardstream.reader import Block
from shardstream.schema import SPARSE_VALUE_DTYPES, Schema, Sparse


def sparse_collate(dim: int | Mapping[str, int], form: str = "dense", dtype: Any = "float32") -> Callable[[list], Any]:
    """Return a ``collate_fn`` that expands index sets: ``[(indices, target), ...]`` to ``(float32 (bs, dim),
    targets)``.

    A feature is a list or array of distinct indices in ``[0, dim)``, in any order, or a tuple ``(indices, values)``
    of two of one length. Targets are stacked to a tensor where they can be, else they are a list.

    Args:
        dim: The sets' dimension; or a dict of field to dimension, for samples that are dicts, or pairs of a dict and
            a target. Other fields are stacked as targets are.
        form: "dense" tensor ``(bs, dim)``, "csr" tensor, "jagged" (:class:`Jagged`, as EmbeddingBag takes it) or
            "indices" (list of tensors), as ``sparse=`` of :class:`ShardStream`.
        dtype: Of the ones or values.

    Raises:
        SampleError: At a batch: an index is outside ``[0, dim)`` or comes twice; ``key`` is the row of the batch.

    Example:
        >>> collate = ss.sparse_collate(4)
        >>> collate([([0, 3], 1), ([2], 0)])
        (tensor([[1., 0., 0., 1.],
                [0., 0., 1., 0.]]), tensor([1, 0]))
    """
    dims = dict(dim) if isinstance(dim, Mapping) else {None: dim}
    if form not in SPARSE_FORMS:
        raise ConfigError(f"form={form!r} is not one of {', '.join(SPARSE_FORMS)}.")
    if not dims:
        raise ConfigError("dim={} names no field to expand.")
    for size in dims.values():
        # checks them
        BatchAssembler(Schema(x=Sparse(size)), ["x"], Forms(sparse=form, dtypes={"x": dtype}), BufferPool())
    return _SparseCollate(tuple(dims.items()), form, dtype)


@dataclass(frozen=True)
class _SparseCollate:
    """What :func:`sparse_collate` returns: a function that pickles, for DataLoader's workers."""

    dims: tuple[tuple[str | None, int], ...]
    form: str
    dtype: Any

    def __call__(self, samples: list) -> Any:
        if not samples:
            raise SampleError("a batch without samples can't be collated: nothing says what it holds.")
        if isinstance(samples[0], dict):
            return self._columns(samples)
        try:
            features, targets = zip(*samples, strict=True)
        except (TypeError, ValueError) as error:
            raise SampleError("a sample must be (feature, target) or a dict, not "
                              f"{type(samples[0]).__name__}.") from error  # fmt: skip
        made = self._columns(features) if isinstance(features[0], dict) else _expanded(features, self.dims[0][1], self.form, self.dtype)
        return made, stack(list(targets))[0]

    def _columns(self, samples: list[dict]) -> dict[str, Any]:
        dims = dict(self.dims)
        if None in dims:
            raise ConfigError("samples are dicts: give sparse_collate a dict of field to dim.")
        missing = [field for field in dims if field not in samples[0]]
        if missing:
            raise SampleError(f"a sample has the fields {list(samples[0])}.", field=missing[0])
        for number, sample in enumerate(samples):
            if not isinstance(sample, dict) or sample.keys() != samples[0].keys():
                has = f"has the fields {list(sample)}" if isinstance(sample, dict) else f"is {type(sample).__name__}"
                raise SampleError(f"a sample {has}, the batch's first has the fields {list(samples[0])}.", key=number)
        batch = {}
        for field in samples[0]:
            column = [sample[field] for sample in samples]
            batch[field] = _expanded(column, dims[field], self.form, self.dtype, field) if field in dims else stack(column)[0]
        return batch


def _expanded(rows: Any, dim: int, form: str, dtype: Any, field: str | None = None) -> Any:
    """Return the sets ``rows`` in ``form``; one C call sorts and checks them, one expands them."""
    pairs = [isinstance(row, tuple) and len(row) == 2 and np.ndim(row[0]) == 1 for row in rows]
    if any(pairs) != all(pairs):
        raise SampleError("some samples have values and some have none.", field=field, key=pairs.index(False))
    sets = [_array(row[0] if pair else row, field, number) for number, (row, pair) in enumerate(zip(rows, pairs))]
    for number, indices in enumerate(sets):
        if indices.ndim != 1 or (indices.size and indices.dtype.kind not in "iu"):
            raise SampleError(f"indices must be a 1-D array of integers, not {indices.ndim}-D of {indices.dtype}.",
                              field=field, key=number)  # fmt: skip
    indptr = np.zeros(len(sets) + 1, np.int64)
    np.cumsum([len(indices) for indices in sets], out=indptr[1:])
    values = None
    if pairs and pairs[0]:
        weights = [_array(row[1], field, number) for number, row in enumerate(rows)]
        for number, (indices, weight) in enumerate(zip(sets, weights)):
            if weight.shape != indices.shape:
                raise SampleError(f"{weight.shape} values for {indices.shape} indices.", field=field, key=number)
            if weight.size and weight.dtype.kind not in "biuf":
                raise SampleError(f"values must be numbers, not {weight.dtype}.", field=field, key=number)
        values = np.concatenate(weights)
        values = values if values.dtype.name in SPARSE_VALUE_DTYPES else values.astype(np.float32)
    try:
        indices, values = sort_rows(np.concatenate([array.astype(np.int64, copy=False) for array in sets]), indptr, dim,
                                    values)  # fmt: skip
    except SampleError as error:
        error.field = field
        raise
    schema = Schema(x=Sparse(dim, None if values is None else values.dtype.name))
    block = Block({"x": (indices, indptr, values)}, len(sets), 0)
    rows = Rows(np.zeros(len(sets), np.uint32), np.arange(len(sets), dtype=np.uint32))
    return BatchAssembler(schema, ["x"], Forms(sparse=form, dtypes={"x": dtype}),
                          BufferPool()).table_of([block]).gather(rows)["x"]  # fmt: skip


def _array(row: Any, field: str | None, number: int) -> np.ndarray:
    try:
        return np.asarray(row)
    except (TypeError, ValueError) as error:
        raise SampleError(f"neither indices nor values are {row!r:.80}: {error}", field=field, key=number) from error

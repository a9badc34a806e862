"""Parts of a batch, made by worker processes, to the batch that one process would have made (``merge``).

Row ``i`` of a batch is of worker ``(first + i) mod num_workers``, so the parts are interleaved: one C call for
each array of a column, from the slots of all workers into new memory, as blocks are gathered into batches.
Parts whose columns differ in form, as when rows happened to have equal lengths in one of them, are taken apart
into rows and collated anew.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch

from shardstream._native.gather import DenseBlocks, RaggedBlocks, Rows
from shardstream.buffers import BufferPool, keep_freed_memory
from shardstream.collate import UNLIKE, Jagged, KeyedJagged, rows_of, stack, unstack
from shardstream.errors import TransformError
from shardstream.handover import Slot, Wire, to_tensor
from shardstream.rowmaker import Portion

# Values of ragged rows are copied as integers of their size.
ELEMENTS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
LISTS = ("rows", "pairs", "str", "bytes", "items")


class Part(NamedTuple):
    """A worker's rows of a batch, in its slot; ``slot`` is None and there are no wires if it has none.

    Attributes:
        num_rows: Rows that are left.
        kept: int64, which of the worker's positions these are; None for all.
    """

    slot: Slot | None
    wires: dict[str, Wire]
    num_rows: int
    kept: np.ndarray | None = None


def merge(parts: list[Part], first: int, num_positions: int, pool: BufferPool) -> Portion:
    """Return a batch as a portion without losses; without rows it has no columns.

    Args:
        parts: One for each worker.
        first: Worker of the batch's first position.
        num_positions: Positions of the batch, of which rows may have vanished.
        pool: Where the columns' memory comes from; nothing returned refers to the slots.
    """
    num_rows = sum(part.num_rows for part in parts)
    rows, kept = interleave(first, len(parts), num_positions), None
    if num_rows < num_positions:
        rows, kept = _interleave_kept(parts, first, num_positions)
    names = dict.fromkeys(name for part in parts for name in part.wires)
    return Portion({name: _join(name, parts, rows, pool) for name in names}, num_rows, kept)


@lru_cache(maxsize=64)
def interleave(first: int, num_workers: int, num_positions: int) -> Rows:
    """Return which worker (``slot``), and which of its rows, each row of a batch is, if no row vanished."""
    numbers = np.arange(num_positions)
    return Rows(((first + numbers) % num_workers).astype(np.uint32), (numbers // num_workers).astype(np.uint32))


def _interleave_kept(parts: list[Part], first: int, num_positions: int) -> tuple[Rows, np.ndarray]:
    """Return the same when rows have vanished, and which of the positions are left."""
    places, slots, rows = [], [], []
    for worker, part in enumerate(parts):
        mine = np.arange((worker - first) % len(parts), num_positions, len(parts))
        places.append(mine[: part.num_rows] if part.kept is None else mine[part.kept])
        slots.append(np.full(part.num_rows, worker, np.uint32))
        rows.append(np.arange(part.num_rows, dtype=np.uint32))
    kept = np.concatenate(places)
    order = np.argsort(kept)
    return Rows(np.concatenate(slots)[order], np.concatenate(rows)[order]), kept[order]


def _join(name: str, parts: list[Part], rows: Rows, pool: BufferPool) -> Any:
    """Return one column of all parts."""
    present = [part for part in parts if part.num_rows]
    wires = [part.wires.get(name) for part in present]
    model = wires[0]
    if None not in wires and all(wire.kind == model.kind and wire.form == model.form for wire in wires):
        # Parts without rows are never referred to; any other stands in for them.
        sources = [part if part.num_rows else present[0] for part in parts]
        arrays = [[part.slot.array(where) for where in part.wires[name].arrays] for part in sources]
        if all(wire.origin == model.origin != UNLIKE for wire in wires):
            return JOINS[model.kind](model.form, arrays, rows, pool)
    is_list = all(wire is not None and wire.kind in LISTS and wire.origin != UNLIKE for wire in wires)
    if not is_list and any(wire is not None and wire.origin is None for wire in wires):
        forms = sorted({"nothing" if wire is None else f"{wire.kind} {wire.form}" for wire in wires})
        raise TransformError(f"a batched transform must give a row the same form whatever other rows it is given, but gave {' and '.join(forms)}; "
                             "what looks at whole batches belongs to StreamLoader(collate=).", field=name)  # fmt: skip
    values = [_rows_apart(part, name) for part in parts]
    values = [values[s][r] for s, r in zip(rows.slot.tolist(), rows.row.tolist())]
    return values if is_list else stack(values)[0]


def _rows_apart(part: Part, name: str) -> list:
    """Return the rows of one part as they were before they were collated."""
    wire = part.wires.get(name)
    if wire is None:
        return [None] * part.num_rows
    column = JOINS[wire.kind](wire.form, [[part.slot.array(where) for where in wire.arrays]],
                              interleave(0, 1, part.num_rows), BufferPool())  # fmt: skip
    return unstack(column, wire.origin)


# -- one function a kind: (form, arrays of each worker, rows, pool) -> column -------------------------


def _dense(arrays: list[np.ndarray], rows: Rows, pool: BufferPool) -> np.ndarray:
    """Return rows of arrays of one dtype and row shape."""
    if len(arrays) == 1:
        return _copy(arrays[0], pool)
    out = pool.empty((rows.num_rows, *arrays[0].shape[1:]), arrays[0].dtype)
    if out.nbytes:
        DenseBlocks.of([_as_bytes(array) for array in arrays]).gather(rows, _as_bytes(out))
    return out


def _copy(array: np.ndarray, pool: BufferPool) -> np.ndarray:
    out = pool.empty(array.shape, array.dtype)
    out[...] = array
    return out


def _as_bytes(array: np.ndarray) -> np.ndarray:
    return array.reshape(-1).view(np.uint8).reshape(len(array), -1)


def _ragged(arrays: list[list[np.ndarray]], rows: Rows, pool: BufferPool) -> list[np.ndarray]:
    """Return values, offsets and, if there are any, weights; ``arrays`` has the same of each worker."""
    if len(arrays) == 1:
        return [_copy(array, pool) for array in arrays[0]]
    kinds = [number for number in range(len(arrays[0])) if number != 1]
    blocks = RaggedBlocks.of([of_worker[1] for of_worker in arrays], *(
        [of_worker[kind].view(ELEMENTS[of_worker[kind].dtype.itemsize]) for of_worker in arrays] for kind in kinds))  # fmt: skip
    offsets = blocks.gather_offsets(rows)
    joined = [pool.empty((int(offsets[-1]),), arrays[0][kind].dtype) for kind in kinds]
    for which, out in enumerate(joined):
        blocks.gather_values(rows, out.view(ELEMENTS[out.dtype.itemsize]), which)
    return [joined[0], offsets, *joined[1:]]


def _join_tensor(form: Any, arrays: list, rows: Rows, pool: BufferPool) -> torch.Tensor:
    return to_tensor(_dense([array for array, in arrays], rows, pool), form[0])


def _join_array(form: Any, arrays: list, rows: Rows, pool: BufferPool) -> np.ndarray:
    return _dense([array for array, in arrays], rows, pool)


def _join_jagged(form: Any, arrays: list, rows: Rows, pool: BufferPool) -> Jagged:
    values, offsets, *weights = _ragged(arrays, rows, pool)
    return Jagged(to_tensor(values, form[0]), torch.from_numpy(offsets),
                  *(to_tensor(part, form[1]) for part in weights))  # fmt: skip


def _join_keyed(form: Any, arrays: list, rows: Rows, pool: BufferPool) -> KeyedJagged:
    keys, *dtypes = form
    # A worker's rows of each key stand behind all of its rows of the key before.
    step = np.array([(len(of_worker[1]) - 1) // len(keys) for of_worker in arrays], np.uint32)[rows.slot]
    places = np.arange(len(keys), dtype=np.uint32)[:, None] * step + rows.row
    values, offsets, *weights = _ragged(arrays, Rows(np.tile(rows.slot, len(keys)), places.ravel()), pool)
    return KeyedJagged(list(keys), to_tensor(values, dtypes[0]), torch.from_numpy(offsets),
                       *(to_tensor(part, dtypes[1]) for part in weights))  # fmt: skip


def _join_csr(form: Any, arrays: list, rows: Rows, pool: BufferPool) -> torch.Tensor:
    indices, indptr, values = _ragged([[part[0], part[1].astype(np.int64, copy=False), part[2]] for part in arrays],
                                      rows, pool)  # fmt: skip
    parts = indptr.astype(arrays[0][1].dtype, copy=False), indices, values
    # Invariants hold by construction.
    return torch.sparse_csr_tensor(*map(torch.from_numpy, parts[:2]), to_tensor(values, form[2]), size=(rows.num_rows, form[3]),
                                   check_invariants=False)  # fmt: skip


def _join_rows(form: Any, arrays: list, rows: Rows, pool: BufferPool) -> list:
    values, offsets = _ragged(arrays, rows, pool)
    return rows_of(Jagged(to_tensor(values, form), torch.from_numpy(offsets)))


def _join_pairs(form: Any, arrays: list, rows: Rows, pool: BufferPool) -> list:
    return rows_of(_join_jagged(form, arrays, rows, pool))


def _join_str(form: Any, arrays: list, rows: Rows, pool: BufferPool) -> list:
    return [item.decode("utf-8", "surrogatepass") for item in _join_bytes(form, arrays, rows, pool)]


def _join_bytes(form: Any, arrays: list, rows: Rows, pool: BufferPool) -> list:
    keep_freed_memory()
    values, offsets = _ragged(arrays, rows, pool)
    data, bounds = values.tobytes(), offsets.tolist()
    return [data[begin:end] for begin, end in zip(bounds, bounds[1:])]


def _join_items(is_list: bool, arrays: list, rows: Rows, pool: BufferPool) -> Any:
    # What is unpickled refers to its buffers, so these are copied first; each worker's as often as it occurs here.
    values = [pickle.loads(data, buffers=[buffer.copy() for buffer in buffers]) for data, *buffers in arrays]
    items = [values[s][r] for s, r in zip(rows.slot.tolist(), rows.row.tolist())]
    if is_list:
        return items
    column = np.empty(len(items), object)
    column[:] = items
    return column


JOINS: dict[str, Callable[[Any, list, Rows, BufferPool], Any]] = {
    "tensor": _join_tensor, "array": _join_array, "jagged": _join_jagged, "keyed": _join_keyed, "csr": _join_csr, "rows": _join_rows, "pairs": _join_pairs,
    "str": _join_str, "bytes": _join_bytes, "items": _join_items,
}  # fmt: skip

"""Twin of ``csrc/lib/gather.c``: one row at a time, numpy's own casts."""

import numpy as np


def locate(sizes, number):
    """Return the block and the row in it of a number among all rows, end to end."""
    rows = [(slot, row) for slot, size in enumerate(sizes) for row in range(size)]
    return rows[number]


def gather_dense(blocks, slot, row, dtype):
    return np.stack([blocks[s][r] for s, r in zip(slot, row, strict=True)]).astype(dtype)


def gather_ragged(offsets, values, slot, row, dtype):
    rows = [values[s][offsets[s][r] : offsets[s][r + 1]] for s, r in zip(slot, row, strict=True)]
    bounds = np.cumsum([0, *(len(one) for one in rows)])
    return bounds, np.concatenate([np.empty(0, values[0].dtype), *rows]).astype(dtype)


def gather_sparse(indptr, indices, values, slot, row, dim, dtype):
    out = np.zeros((len(slot), dim), dtype)
    for i, (s, r) in enumerate(zip(slot, row, strict=True)):
        begin, end = indptr[s][r], indptr[s][r + 1]
        out[i, indices[s][begin:end]] = 1 if values is None else values[s][begin:end].astype(dtype)
    return out

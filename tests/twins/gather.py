"""Twin of ``csrc/lib/gather.c``: one row at a time, numpy's own casts where these are defined."""

import math

import numpy as np


def locate(sizes, number):
    """Return the block and the row in it of a number among all rows, end to end."""
    rows = [(slot, row) for slot, size in enumerate(sizes) for row in range(size)]
    return rows[number]


def number_blocks(begins, places):
    """Return (slot, row, num_needed) of each row, and (block, first row) of each block that is needed, in the order of need."""
    numbers, firsts, found = {}, [], []
    for i, place in enumerate(places):
        block = max(b for b, begin in enumerate(begins) if begin <= place)
        if block not in numbers:
            numbers[block] = len(numbers)
            firsts.append((block, i))
        found.append((numbers[block], place - begins[block], len(numbers)))
    return found, firsts


def cast(values, dtype):
    """Return ``values.astype(dtype)``, but floats beyond an integer's range as the nearest one, and NaN as 0."""
    if values.dtype == bool:
        values = values.view(np.uint8) != 0
    if np.dtype(dtype).kind not in "iu" or values.dtype.kind != "f":
        return values.astype(dtype)
    low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    whole = [0 if math.isnan(x) else low if x < low else high if x > high else int(x) for x in values.ravel().tolist()]
    return np.array(whole, dtype).reshape(values.shape)


def gather_dense(blocks, slot, row, dtype):
    return cast(np.stack([blocks[s][r] for s, r in zip(slot, row, strict=True)]), dtype)


def gather_ragged(offsets, values, slot, row, dtype):
    rows = [values[s][offsets[s][r] : offsets[s][r + 1]] for s, r in zip(slot, row, strict=True)]
    bounds = np.cumsum([0, *(len(one) for one in rows)])
    return bounds, cast(np.concatenate([np.empty(0, values[0].dtype), *rows]), dtype)


def gather_sparse(indptr, indices, values, slot, row, dim, dtype):
    out = np.zeros((len(slot), dim), dtype)
    for i, (s, r) in enumerate(zip(slot, row, strict=True)):
        begin, end = indptr[s][r], indptr[s][r + 1]
        out[i, indices[s][begin:end]] = 1 if values is None else cast(values[s][begin:end], dtype)
    return out


def gather_padded(offsets, values, slot, row, dtype, length, value, keep, pad):
    out, mask = np.full((len(slot), length), value, dtype), np.zeros((len(slot), length), bool)
    for i, (s, r) in enumerate(zip(slot, row, strict=True)):
        own = cast(values[s][offsets[s][r] : offsets[s][r + 1]], dtype)
        own = own[:length] if keep == "start" else own[max(0, len(own) - length) :]
        begin = 0 if pad == "right" else length - len(own)
        out[i, begin : begin + len(own)] = own
        mask[i, begin : begin + len(own)] = True
    return out, mask


def gather_keyed(columns, slot, row, dtype):
    """``columns`` are (offsets, values) of the blocks; values None are ones. Key by key, row by row."""
    rows = []
    for offsets, values in columns:
        for s, r in zip(slot, row, strict=True):
            begin, end = offsets[s][r], offsets[s][r + 1]
            rows.append(np.ones(end - begin, dtype) if values is None else cast(values[s][begin:end], dtype))
    return np.cumsum([0, *map(len, rows)]), np.concatenate([np.empty(0, dtype), *rows])

"""Sparse blocks: sets of indices, optionally with values, in the fewest bytes (docs/FORMAT.md, section 4).

``encode`` measures every form exactly and writes the smallest; ``decode`` is a total function of
bytes. Rows are as in scipy CSR: row ``i`` is ``indices[indptr[i]:indptr[i + 1]]``.

======================  ==================================================================
form                    where it wins
======================  ==================================================================
rows, rice              uniform or hashed sets: within 3% of log2 C(dim, k)
rows, bitmap            more than about 1 in 8 of all indices present
columns, rice           texts: frequent indices cost less, and row lengths nothing
rows, bytes + zstd      tables of correlated categories; rows that repeat
rows, bitmap + zstd     the same with few dimensions
======================  ==================================================================

Twin: ``tests/twins/sparse.py``. C side: ``csrc/include/ss_sparse.h``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import zstandard

from shardstream._native import sparse as native
from shardstream._native.sparse import sort_rows
from shardstream.errors import CodecError

__all__ = ["decode", "encode", "sort_rows"]

# Forms that are worth handing to zstd; it finds nothing in bit-packed streams.
ZSTD_FORMS = (("bytes", "rows"), ("bytes", "remap"), ("bitmap", "rows"))
ZSTD_TRIAL_LEVEL = 3
ZSTD_LEVEL = 19
# A trial this many times larger than the best form so far is not repeated at the high level, which
# saves a fifth at most on all data measured.
ZSTD_HOPELESS = 1.1
# A bitmap this many times larger than the best form is not worth a trial either.
ZSTD_MAX_INPUT_RATIO = 16


@dataclass(frozen=True)
class Section:
    """A section as it will be stored."""

    coder: str
    view: str
    data: bytes
    raw_nbytes: int
    zstd: bool

    @property
    def order(self) -> tuple:
        """The smallest wins, then the one that is faster to read."""
        return len(self.data), self.zstd, VIEW_SPEED.index(self.view)


VIEW_SPEED = ("rows", "columns", "remap")


def _compress(data: bytes, level: int) -> bytes:
    return zstandard.ZstdCompressor(level=level, write_content_size=True).compress(data)


def _smaller_with_zstd(coder: str, view: str, data: bytes, best: Section) -> Section:
    """Return ``best``, or this section compressed if that is smaller."""
    if len(data) == 0 or len(_compress(data, ZSTD_TRIAL_LEVEL)) > ZSTD_HOPELESS * len(best.data):
        return best
    packed = Section(coder, view, _compress(data, ZSTD_LEVEL), len(data), True)
    return min(best, packed, key=lambda section: section.order)


def _index_section(plan: native.Plan, num_indices: int) -> Section:
    """Return the index section in its smallest form."""
    sizes = {(coder, view): nbytes for coder in native.CODERS for view in native.VIEWS
             if (nbytes := plan.nbytes(coder, view)) is not None and native.may_hold(num_indices, nbytes, nbytes)}  # fmt: skip
    coder, view = min(sizes, key=lambda form: (sizes[form], VIEW_SPEED.index(form[1])))
    data = plan.write(coder, view)
    best = Section(coder, view, data, len(data), False)
    for form in ZSTD_FORMS:
        if form in sizes and sizes[form] <= ZSTD_MAX_INPUT_RATIO * len(best.data):
            packed = _smaller_with_zstd(*form, plan.write(*form), best)
            if native.may_hold(num_indices, packed.raw_nbytes, len(packed.data)):
                best = packed
    return best


def _values_section(values: np.ndarray) -> Section:
    """Return the values section in its smallest form."""
    sizes = {coder: nbytes for coder in native.VALUES_CODERS if (nbytes := native.values_nbytes(values, coder)) is not None}
    coder = min(sizes, key=lambda name: (sizes[name], native.VALUES_CODERS.index(name)))
    data = native.write_values(values, coder)
    best = Section(coder, "rows", data, len(data), False)
    for coder in ("plain", "planes"):
        packed = _smaller_with_zstd(coder, "rows", native.write_values(values, coder), best)
        if native.may_hold(0, packed.raw_nbytes, len(packed.data)):
            best = packed
    return best


def encode(indices: np.ndarray, indptr: np.ndarray, dim: int, values: np.ndarray | None = None) -> bytes:
    """Return rows as one sparse block, in the form with the smallest exact size.

    Args:
        indices: Integers in ``[0, dim)``, strictly ascending in each row (``sort_rows`` makes them so).
        indptr: ``num_rows + 1`` bounds that rise from 0; at most 2**24 rows.
        dim: From 1 to 2**32.
        values: One float32, float16 or int32 for each index; None for a binary set.

    Raises:
        SampleError: A row is not strictly ascending or an index is not below ``dim``; ``key`` is the row.
        CodecError: An array is not as described above.

    Decoding a block costs 4 to 30 ns an index by form; encoding up to 0.5 us where zstd competes.
    """
    indices, indptr = np.asarray(indices), np.asarray(indptr)
    if indices.ndim != 1 or indptr.ndim != 1 or not 1 <= dim <= 2**32:
        raise CodecError(f"indices and indptr must be one-dimensional, and dim={dim} from 1 to 2**32.")
    if len(indices) and (indices.dtype.kind not in "iu" or indices.min() < 0 or indices.max() >= 2**32):
        raise CodecError(f"indices of dtype {indices.dtype} must be integers from 0 to 2**32 - 1.")
    index = _index_section(native.Plan(indices, indptr, dim), len(indices))
    fields = {"num_rows": len(indptr) - 1, "dim": dim, "num_indices": len(indices), "index_nbytes": len(index.data),
              "index_raw_nbytes": index.raw_nbytes, "coder": native.CODERS.index(index.coder),
              "view": native.VIEWS.index(index.view), "index_zstd": index.zstd}  # fmt: skip
    if values is None:
        return native.write_header(**fields) + index.data
    values = np.ascontiguousarray(values)
    if values.dtype.name not in native.DTYPES or values.shape != indices.shape:
        raise CodecError(f"values must be {len(indices)} float32, float16 or int32, not {values.dtype} {values.shape}.")
    section = _values_section(values)
    fields |= {"dtype": native.DTYPES.index(values.dtype.name), "values_coder": native.VALUES_CODERS.index(section.coder),
               "values_nbytes": len(section.data), "values_raw_nbytes": section.raw_nbytes, "values_zstd": section.zstd}  # fmt: skip
    return native.write_header(**fields) + index.data + section.data


def _unpack(stored: memoryview, raw_nbytes: int, offset: int):
    """Return a zstd section's bytes, exactly ``raw_nbytes`` of them."""
    try:
        raw = zstandard.ZstdDecompressor(max_window_size=2**27).decompress(stored, max_output_size=raw_nbytes, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise CodecError(f"a sparse block's zstd frame cannot be read: {error}.", offset=offset) from error
    if len(raw) != raw_nbytes:
        raise CodecError(f"a sparse block's zstd frame holds {len(raw)} bytes, not {raw_nbytes}.", offset=offset)
    return raw


def decode(buffer, dim: int, num_rows: int, values_dtype: str | None = None, *, sort: bool = True):
    """Return ``(indices uint32, indptr int64, values or None)`` of a block; each row ascending and below ``dim``.

    Any bytes give a value or a :class:`CodecError` whose ``offset`` is in the block. What is allocated is
    bounded by the block's size: 2**24 indices, or 8 a byte if that is more.

    Args:
        buffer: The block, bytes-like; not copied unless compressed.
        dim, num_rows, values_dtype: What the block must be; another is an error. ``values_dtype`` is
            "float32", "float16", "int32", or None for a binary set.
        sort: False lets rows come in another order where that is faster (remapped binary sets).
    """
    block = memoryview(buffer).cast("B") if memoryview(buffer).nbytes else memoryview(b"")
    header = native.parse(block)
    found = header.dim, header.num_rows, native.DTYPES[header.dtype]
    if found != (dim, num_rows, values_dtype):
        raise CodecError(f"a sparse block has (dim, num_rows, values) = {found}, not {(dim, num_rows, values_dtype)}.", offset=0)
    index = block[header.index_offset : header.values_offset]
    values = block[header.values_offset :]
    if header.index_zstd:
        index = _unpack(index, header.index_raw_nbytes, header.index_offset)
    if header.values_zstd:
        values = _unpack(values, header.values_raw_nbytes, header.values_offset)
    return native.decode(header, index, values, sort=sort)

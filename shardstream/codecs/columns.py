"""The members that hold one column of one block, and back (docs/FORMAT.md, section 3).

==================  ======================================  ==================================
field               members of a block                      decoded form
==================  ======================================  ==================================
Dense               ``.npy``                                array ``(num_samples, *shape)``
Ragged, Text,       ``.values.npy``, ``.offsets.npy``       1-D values, int64 offsets
Bytes
Sparse              ``.sparse``                             uint32 indices, int64 indptr,
                                                            values or None
==================  ======================================  ==================================

With ``compression="zstd"`` the ``.npy`` members are one zstd frame each, named ``.npy.zst``.
Readers take nothing on trust: dtype, shape, sizes and offsets are checked against the schema.
"""

from __future__ import annotations

import functools
import io

import numpy as np
import zstandard

from shardstream._native.sparse import Allocate, new_array
from shardstream.codecs import sparse as sparse_codec
from shardstream.errors import CodecError
from shardstream.schema import Bytes, Dense, Field, Ragged, Sparse, Text

MAX_MEMBER_NBYTES = 2**31  # of one decompressed member: a block holds 1 MiB, or one sample beyond it
NPY_MAGIC = b"\x93NUMPY"
HEADER_NBYTES = 128  # of a .npy member as it is written here
ZSTD_LEVEL = 3


def member_suffixes(name: str, field: Field, compression: str | None) -> list[str]:
    """Return the suffixes of this column's members of a block, in the order :func:`encode_column` gives them."""
    end = ".npy.zst" if compression else ".npy"
    if isinstance(field, Sparse):
        return [f"{name}.sparse"]
    return [f"{name}{end}"] if isinstance(field, Dense) else [f"{name}.values{end}", f"{name}.offsets{end}"]


def encode_column(field: Field, parts: tuple, compression: str | None) -> list:
    """Return the bytes-like payloads of a column of one block; ``parts`` is its decoded form."""
    if isinstance(field, Sparse):
        indices, indptr, values = parts
        return [sparse_codec.encode(indices, indptr, field.dim, values)]
    arrays = [parts] if isinstance(field, Dense) else list(parts)
    payloads = [npy_header(array.dtype.str, array.shape) + array.tobytes() for array in map(np.ascontiguousarray, arrays)]
    if compression:
        compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL)  # writes the content size, which readers need
        payloads = [compressor.compress(payload) for payload in payloads]
    return payloads


def decode_column(field: Field, members: list[np.ndarray], num_samples: int, compression: str | None,
                  allocate: Allocate = new_array):  # fmt: skip
    """Return one column of a block in its decoded form, as views of ``members`` where they are not compressed.

    Args:
        members: uint8 arrays, one a member, in the order of :func:`member_suffixes`.
        num_samples: Samples in the block, as the index says.
        allocate: Makes the memory of what is decompressed or decoded, by its size.

    Raises:
        CodecError: The bytes are not this column of ``num_samples`` samples.
    """
    if isinstance(field, Sparse):
        return sparse_codec.decode(members[0], field.dim, num_samples, field.values, allocate=allocate)
    if isinstance(field, Dense):
        limit = num_samples * field.num_elements * np.dtype(field.dtype).itemsize
        return _array(members[0], field.dtype, (num_samples, *field.shape), compression, limit, allocate)
    offsets = _array(members[1], "int64", (num_samples + 1,), compression, 8 * (num_samples + 1), allocate)
    if offsets[0] != 0 or (offsets[1:] < offsets[:-1]).any():
        raise CodecError("offsets must begin with 0 and never descend.")
    dtype = field.dtype if isinstance(field, Ragged) else "uint8"
    num_values = int(offsets[-1])
    return _array(members[0], dtype, (num_values,), compression, num_values * np.dtype(dtype).itemsize, allocate), offsets


def default_column(field: Field, num_samples: int):
    """Return the decoded form of a column all of whose samples have the field's default: shards written before the
    field.
    """
    if isinstance(field, Dense):
        out = np.empty((num_samples, *field.shape), field.dtype)
        out[...] = np.array(field.default, field.dtype)
        return out
    if isinstance(field, Sparse):
        indices, *values = field.default
        offsets = np.arange(num_samples + 1, dtype=np.int64) * len(indices)
        values = np.tile(np.array(values[0], field.values), num_samples) if values else None
        return np.tile(np.array(indices, np.uint32), num_samples), offsets, values
    if isinstance(field, Ragged):
        row = np.array(field.default, field.dtype)
    else:
        row = np.frombuffer(field.default.encode() if isinstance(field, Text) else field.default, np.uint8)
    return np.tile(row, num_samples), np.arange(num_samples + 1, dtype=np.int64) * len(row)


def decode_strings(field: Text | Bytes, values: np.ndarray, offsets: np.ndarray) -> list:
    """Return the ``str`` or ``bytes`` of each row of a text or bytes column."""
    data, bounds = values.tobytes(), offsets.tolist()
    return decode_views(field, [data[begin:end] for begin, end in zip(bounds, bounds[1:])])


def decode_views(field: Text | Bytes, views: list) -> list:
    """Return the ``str`` or ``bytes`` of each of these bytes or memoryviews."""
    if isinstance(field, Bytes):
        return [bytes(view) for view in views]
    try:
        return [str(view, "utf-8") for view in views]
    except UnicodeDecodeError as error:
        raise CodecError(f"a stored text is not UTF-8: {error}") from error


@functools.lru_cache(maxsize=1024)
def npy_header(descr: str, shape: tuple[int, ...]) -> bytes:
    """Return the .npy header, padded by numpy so that the data begins at a multiple of 64 (NEP 1)."""
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": descr, "fortran_order": False, "shape": shape})
    return out.getvalue()


def _array(member: np.ndarray, dtype: str, shape: tuple[int, ...], compression: str | None, data_nbytes: int,
           allocate: Allocate) -> np.ndarray:  # fmt: skip
    """Return the array in a .npy member, which must have exactly this dtype and shape."""
    if compression:
        member = _decompress(member, data_nbytes, allocate)
    wanted = np.dtype(dtype)
    expected = npy_header(wanted.str, shape)
    if member[: len(expected)].tobytes() == expected:  # what our own writer wrote: no parsing
        begin = len(expected)
    else:
        begin = _parse_header(member, wanted, shape)
    if len(member) - begin != data_nbytes:
        raise CodecError(f"a .npy member holds {len(member) - begin} bytes of data where "
                         f"{wanted.name}{list(shape)} needs {data_nbytes}.")  # fmt: skip
    array = member[begin:].view(wanted).reshape(shape)
    return array if array.flags.aligned else array.copy()


def _parse_header(member: np.ndarray, dtype: np.dtype, shape: tuple[int, ...]) -> int:
    """Return where the data of a .npy member written by somebody else begins."""
    data = io.BytesIO(member[:65536].tobytes())
    try:
        version = np.lib.format.read_magic(data)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        found_shape, fortran, found = read(data)
    except Exception as error:  # numpy's parser lets through what its parts raise, as IndexError and tokenize.TokenError
        raise CodecError(f"not a .npy member: {error}") from error
    if found_shape != shape or found.newbyteorder("<") != dtype or found.byteorder == ">" or (fortran and len(shape) > 1):
        raise CodecError(f"a .npy member is {found}{list(found_shape)}, the schema says {dtype.name}{list(shape)}.")
    return data.tell()


def _decompress(member: np.ndarray, data_nbytes: int, allocate: Allocate) -> np.ndarray:
    """Return the content of one zstd frame, whose stated size must be the array's plus a header's."""
    try:
        nbytes = zstandard.frame_content_size(member)
        if not data_nbytes <= nbytes <= min(data_nbytes + 65536, MAX_MEMBER_NBYTES):
            raise CodecError(f"a zstd member states {nbytes} bytes where about {data_nbytes} belong (at "
                             f"most {MAX_MEMBER_NBYTES}).")  # fmt: skip
        content = allocate(nbytes)
        with zstandard.ZstdDecompressor().stream_reader(member) as reader:  # given all of both, zstd decodes in one pass
            found = reader.readinto(content)
    except zstandard.ZstdError as error:
        raise CodecError(f"not a zstd frame: {error}") from error
    if found != nbytes:
        raise CodecError(f"a zstd member holds {found} bytes where its frame says {nbytes}.")
    return content

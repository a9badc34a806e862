"""Columns are read from any bytes: as what the schema says, or a typed error."""

import io
import struct
import zipfile

import numpy as np
import pytest

from shardstream.codecs.columns import decode_column
from shardstream.errors import CodecError
from shardstream.log import folds
from shardstream.schema import Bytes, Dense, Ragged, Text

# Each fails in another part of numpy's parser: tokenize, dtype tuples, literals.
HEADERS = ["(", "'''", "{'descr': (), 'fortran_order': False, 'shape': (3,)}", "{'descr': ('<i8',), 'fortran_order': False, 'shape': (3,)}",
           "{'descr': '|O', 'fortran_order': False, 'shape': (3,)}", "{'descr': '<i8', 'fortran_order': False, 'shape': (4,)}", "1", "\x00"]


def npy(header: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + bytes(24)


@pytest.mark.parametrize("header", HEADERS)
def test_a_hostile_npy_header_is_a_codec_error(header):
    """Whatever numpy's parser raises on a header with a matching checksum comes out as CodecError."""
    with pytest.raises(CodecError):
        decode_column(Dense("int64"), [np.frombuffer(npy(header), np.uint8)], 3, None)


@pytest.mark.parametrize("header", HEADERS)
def test_a_hostile_fold_counts_as_lost(header):
    """A fold with such a member is passed over, and does not hide the dataset."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("meta.npy", npy(header))
    with pytest.raises(folds.Lost):
        folds.decode_tail(file.getvalue(), 0, 4)


def saved(array: np.ndarray) -> np.ndarray:
    """Return the bytes of an array as a .npy member."""
    out = io.BytesIO()
    np.save(out, array)
    return np.frombuffer(out.getvalue(), np.uint8)


@pytest.mark.parametrize("field, dtype", [(Ragged("uint16"), "uint16"), (Text(), "uint8"), (Bytes(), "uint8")])
def test_offsets_that_do_not_cut_the_values_are_a_codec_error(field, dtype):
    """Gathers believe offsets, so none comes through that descends, begins elsewhere than at 0, or ends elsewhere than the values do."""
    values = saved(np.arange(4, dtype=dtype))
    got, offsets = decode_column(field, [values, saved(np.array([0, 1, 1, 4]))], 3, None)
    assert got.tolist() == [0, 1, 2, 3] and offsets.tolist() == [0, 1, 1, 4]
    for bad in ([0, 3, 1, 4], [0, 9, 9, 4], [0, -1, 2, 4], [1, 2, 3, 4], [-1, 2, 3, 4], [0, 1, 2, 3], [0, 1, 2, 5], [0, 0, 0, -4], [0, 1, 4], [0, 1, 2, 3, 4]):
        with pytest.raises(CodecError):
            decode_column(field, [values, saved(np.array(bad))], 3, None)

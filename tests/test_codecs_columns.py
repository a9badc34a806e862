"""Columns are read from any bytes: as what the schema says, or a typed error."""

import io
import struct
import zipfile

import numpy as np
import pytest

from shardstream.codecs.columns import decode_column
from shardstream.errors import CodecError
from shardstream.log import folds
from shardstream.schema import Dense

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

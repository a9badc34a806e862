"""A range of a file read and its checksums compared, in one GIL-free call (``csrc/include/ss_read.h``)."""

from __future__ import annotations

import numpy as np

from shardstream._native import ffi, lib

MEMBER = np.dtype([("begin", "<i8"), ("nbytes", "<i8"), ("crc32c", "<i8")])  # struct ss_member


class Members:
    """What ranges hold: ``(num_ranges, num_members)`` of MEMBER, each range's ascending, places counted from its begin.
    """

    def __init__(self, members: np.ndarray):
        self._array, self.num_members = np.ascontiguousarray(members, MEMBER), members.shape[1]
        self._pointer = ffi.cast("struct ss_member *", ffi.from_buffer(self._array))

    def of(self, number: int) -> tuple:
        """Return what :func:`read_checked` takes for one range; valid as long as this object."""
        return self._pointer + number * self.num_members, self.num_members


NO_MEMBERS = ffi.NULL, 0


def read_checked(descriptor: int, offset: int, out: np.ndarray, members: tuple):
    """Fill ``out`` with bytes of an open file from ``offset`` on; return a ``struct ss_read``.

    It has ``num_bytes``, ``error`` (an errno, or 0), ``is_checked`` (all came, and members are what they should be),
    and ``check_s``, the seconds that checksums took.
    """
    return lib.ss_read_checked(descriptor, offset, ffi.from_buffer("uint8_t[]", out), out.nbytes, *members)

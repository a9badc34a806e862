"""CRC-32C checksums (``csrc/include/ss_crc32c.h``)."""

from shardstream._native import ffi, lib


def crc32c(data, crc: int = 0) -> int:
    """Return the CRC-32C of a contiguous bytes-like object, continuing from ``crc``.

    Reads ``data`` without copying and without the GIL, at 12 to 25 GB/s on x86-64, or 55 with AVX-512 and VPCLMULQDQ.
    """
    view = memoryview(data).cast("B") if memoryview(data).nbytes else b""
    return lib.ss_crc32c(crc, ffi.from_buffer("uint8_t[]", view), len(view))

"""Rows of numbers and images for a model (``csrc/include/ss_transform.h``)."""

from __future__ import annotations

import numpy as np

from shardstream._native import ffi, lib
from shardstream.errors import ConfigError, SampleError

NUMBERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64")
DTYPES = {name: getattr(lib, f"SS_{name.upper()}") for name in ("bool", *NUMBERS)}
MAX_CHANNELS = lib.SS_IMAGES_MAX_CHANNELS


def standardize(values: np.ndarray, mean: np.ndarray, factor: np.ndarray, out: np.ndarray) -> None:
    """Fill float32 ``out`` with ``(values - mean) * factor`` by the last axis, in one call without the GIL.

    Args:
        values: C-contiguous, of one of ``DTYPES``.
        mean, factor: float64, as long as the last axis of ``values``.
    """
    num = len(mean)
    assert values.flags.c_contiguous and out.shape == values.shape and out.dtype == np.float32 and len(factor) == num
    num_rows = values.size // num if num else 0
    status = lib.ss_standardize(ffi.from_buffer(values), DTYPES[values.dtype.name], num_rows, num,
                                ffi.from_buffer("double[]", mean), ffi.from_buffer("double[]", factor),
                                ffi.cast("float *", ffi.from_buffer(out)))  # fmt: skip
    assert status == lib.SS_OK


class Images:
    """How images become float planes; see ``struct ss_images``. ``scale`` and ``shift`` are float32 by channel."""

    def __init__(
        self, padding: int, crops_at_random: bool, flips_at_random: bool, scale: np.ndarray, shift: np.ndarray
    ):
        self._keep = scale, shift
        self._options = ffi.new("struct ss_images *", {
            "padding": padding, "num_channels": len(scale), "crops_at_random": crops_at_random,
            "flips_at_random": flips_at_random, "scale": ffi.from_buffer("float[]", scale),
            "shift": ffi.from_buffer("float[]", shift),
        })  # fmt: skip

    def transform(
        self, pixels: np.ndarray, sizes: np.ndarray, key: int, positions: np.ndarray, out: np.ndarray
    ) -> None:
        """Fill float32 ``out``, ``(num_images, num_channels, height, width)``, in one call without the GIL.

        Args:
            pixels: uintp, where each image begins: uint8 ``(height, width, num_channels)``, C-contiguous, kept alive
                by the caller.
            sizes: int64 ``(2, num_images)``, their heights and widths.
            key: Of seed and epoch.
            positions: int64, of the images.

        Raises:
            SampleError: An image is smaller than what comes out, or larger than 2^24; ``e.key`` is its number.
            ConfigError: What is to come out is larger than that.
        """
        assert (
            out.dtype == np.float32
            and out.shape[:2] == (len(pixels), self._options.num_channels)
            and out.flags.c_contiguous
        )
        assert pixels.dtype == np.uintp and len(positions) == len(pixels) and sizes.shape == (2, len(pixels))
        options, place = ffi.new("struct ss_images *", self._options[0]), ffi.new("uint64_t *")
        options.key, options.height, options.width = key, *out.shape[2:]
        status = lib.ss_images_transform(
            options, ffi.cast("uint8_t **", ffi.from_buffer(pixels)), ffi.from_buffer("int64_t[]", sizes[0]),
            ffi.from_buffer("int64_t[]", sizes[1]), ffi.from_buffer("int64_t[]", positions), len(pixels),
            ffi.cast("float *", ffi.from_buffer(out)), place,
        )  # fmt: skip
        if status == lib.SS_ERR_RANGE:
            height, width = sizes[:, place[0]]
            raise SampleError(
                f"an image of {height} x {width} pixels, with {options.padding} around it, cannot be cropped to "
                f"{out.shape[2]} x {out.shape[3]}.", key=place[0])  # fmt: skip
        if status != lib.SS_OK:
            raise ConfigError(f"images have from 1 to {MAX_CHANNELS} channels and 2**24 pixels a side.")

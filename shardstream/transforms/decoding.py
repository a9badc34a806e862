"""Columns of encoded images to pixels, on threads: ``DecodeImages``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from shardstream.buffers import TransformPool
from shardstream.codecs.images import CHANNELS, EncodedImage, can_decode, decode_jpeg_into, open_image, pillow, resized
from shardstream.errors import ConfigError, RowErrors, SampleError

MAX_PIXELS = 2**26  # 192 MiB of RGB
MAX_SIDE = 2**15
THREAD_NBYTES = 64 * 1024  # encoded bytes below which another thread gains nothing
# of an image: threads that decode smaller ones wait for the interpreter's lock more than they decode
SMALL_NBYTES = 2048

_threads: tuple[int, ThreadPoolExecutor] | None = None


class DecodeImages:
    """Makes uint8 ``(rows, height, width, channels)`` of a column of encoded images (JPEG, PNG, WebP, GIF, BMP, TIFF).

    Give an instance to ``ShardStream(transform=)``, or call it in a transform of your own, marked ``@ss.batched``. The
    column is a ``Bytes`` field, or a member of the files layout, as ``jpg``. It needs simplejpeg or Pillow (the extra
    ``image``), and Pillow for ``size=``. Exif rotation is not applied, as torchvision does not.

    Args:
        field: The column.
        size: Of what comes out. ``(height, width)``: each image is resized to it, whatever its shape. An int: its
            shorter side becomes that long and the longer one in proportion, and the column becomes a list of arrays,
            which ``Images(crop=)`` takes. Left out: images keep their size, which must be that of all others. Resizing
            is Pillow's bilinear, as torchvision's is; a JPEG that is at least 4 times too large is first made smaller
            by libjpeg, as Pillow's ``thumbnail()`` does.
        mode: "RGB", or "L" for one channel of grey.
        max_pixels: An image with more is not decoded, whatever small file it comes from.
        num_threads: That share a batch; by default as many as torch uses: this machine's cores, or one in each worker
            of a ``StreamLoader``. Never more than cores.
        to: The column that it becomes; left out, the same.

    Raises:
        ConfigError: An argument is not legal, there is no such column, no decoder is installed, or images differ in
            size.
        SampleError: A row is no image, is damaged, or has more than ``max_pixels``. In a stream it is a
            :class:`TransformError` that names shard, block and sample, or with ``on_error="skip"`` that row is skipped
            and counted.
    """

    shardstream_batched = True

    def __init__(self, field: str, *, size: int | tuple[int, int] | None = None, mode: str = "RGB", max_pixels: int = MAX_PIXELS,
                 num_threads: int | None = None, to: str | None = None):  # fmt: skip
        self.field, self.to, self.mode, self.max_pixels, self.num_threads = field, to or field, mode, max_pixels, num_threads
        self.size = _checked_size(size)
        if mode not in CHANNELS:
            raise ConfigError(f"mode={mode!r} is 'RGB' or 'L'.")
        if type(max_pixels) is not int or max_pixels < 1:
            raise ConfigError(f"max_pixels={max_pixels!r} is an integer of at least 1.")
        if num_threads is not None and (type(num_threads) is not int or num_threads < 1):
            raise ConfigError(f"num_threads={num_threads!r} is an integer of at least 1, or None.")
        if not can_decode() or (size is not None and pillow() is None):
            raise ConfigError(f"{'decoding' if size is None else 'resizing'} images needs Pillow{' or simplejpeg' if size is None else ''}: "
                              "pip install 'shardstream[image]'.")  # fmt: skip
        self._pool = TransformPool()

    def __call__(self, columns: dict[str, Any]) -> dict[str, Any]:
        """Return the columns with the images decoded."""
        if self.field not in columns:
            raise ConfigError(f"there is no column {self.field!r}; there are {sorted(columns)}.", field=self.field)
        data, errors = columns[self.field], {}
        if not isinstance(data, list):
            raise ConfigError(f"the column is {type(data).__name__}, not a list of bytes.", field=self.field)
        out: Any = [None] * len(data)
        if not isinstance(self.size, int):
            height, width = self.size or self._first_size(data)
            out = self._pool.empty((len(data), height, width, CHANNELS[self.mode]), np.uint8)

        def decode(row: int) -> None:
            one = data[row]
            try:
                if self.size is not None or type(one) is not bytes or not decode_jpeg_into(one, self.mode, out[row]):
                    self._decode(self._opened(one), row, out)
            except ConfigError:
                raise
            except Exception as error:  # the decoders raise what they like, on any bytes
                reason = str(error).rstrip(".") or type(error).__name__
                errors[row] = SampleError(f"this image cannot be decoded: {reason}.", key=row, field=self.field)

        _for_each(len(data), decode, self._num_threads(data))
        if errors:
            raise RowErrors({row: errors[row] for row in sorted(errors)})
        return {**columns, self.to: out if isinstance(out, list) else torch.from_numpy(out)}

    def _num_threads(self, data: list) -> int:
        wanted = torch.get_num_threads() if self.num_threads is None else self.num_threads
        nbytes = sum(len(one) for one in data if isinstance(one, bytes))
        if nbytes < SMALL_NBYTES * len(data):
            return 1
        return max(1, min(wanted, len(os.sched_getaffinity(0)), nbytes // THREAD_NBYTES))

    def _opened(self, data: Any) -> EncodedImage:
        if not isinstance(data, (bytes, bytearray)):
            raise TypeError(f"it is {type(data).__name__}, not bytes")
        return open_image(data, self.max_pixels)

    def _first_size(self, data: list) -> tuple[int, int]:
        """Return the size of the first row that is an image, which all others must have."""
        for one in data:
            try:
                image = self._opened(one)
            except Exception:  # noqa: S112 (its row will say so)
                continue
            return image.height, image.width
        return 0, 0

    def _decode(self, image: EncodedImage, row: int, out: Any) -> None:
        if isinstance(self.size, int):
            shorter = min(image.height, image.width)
            height, width = self.size * image.height // shorter, self.size * image.width // shorter
            if height * width > self.max_pixels:
                raise ValueError(f"of {image.height} x {image.width} pixels, it would become {height} x "
                                 f"{width}, more than max_pixels={self.max_pixels}")  # fmt: skip
            pixels = resized(image, self.mode, height, width)
            out[row] = self._pool.empty(pixels.shape, np.uint8)
            out[row][...] = pixels
        elif self.size is not None:
            out[row] = resized(image, self.mode, *self.size)
        elif (image.height, image.width) != out.shape[1:3]:
            raise ConfigError(f"images of {out.shape[1]} x {out.shape[2]} and {image.height} x {image.width} pixels are no one batch: give "
                              "size=(height, width), or size=SHORTER_SIDE and crop them by ss.transforms.Images.", field=self.field)  # fmt: skip
        else:
            image.decode(self.mode, out=out[row])


def _checked_size(size: Any) -> int | tuple[int, int] | None:
    sides = (size,) if isinstance(size, int) else tuple(size) if isinstance(size, (tuple, list)) else ()
    if size is not None and (len(sides) != (1 if isinstance(size, int) else 2) or not all(type(side) is int and 1 <= side <= MAX_SIDE for side in sides)):
        raise ConfigError(f"size={size!r} is (height, width), or the shorter side's length; each from 1 to {MAX_SIDE}.")
    return size if size is None or isinstance(size, int) else sides


def _for_each(num: int, call: Callable[[int], None], num_threads: int) -> None:
    """Call ``call`` with each number, on this thread and others, each taking the next number that is left."""
    numbers: Iterator[int] = iter(range(num))

    def work() -> None:
        for number in numbers:
            call(number)

    others = [_pool().submit(work) for _ in range(num_threads - 1)]
    try:
        work()
    finally:
        for number in numbers:  # after an error: nothing is left for the others to begin
            pass
        for other in others:
            other.result()


def _pool() -> ThreadPoolExecutor:
    """Return this process's threads, as many as cores; a forked child has its own."""
    global _threads
    if _threads is None or _threads[0] != os.getpid():
        _threads = os.getpid(), ThreadPoolExecutor(len(os.sched_getaffinity(0)),
                                                   thread_name_prefix="shardstream-images")  # fmt: skip
    return _threads[1]

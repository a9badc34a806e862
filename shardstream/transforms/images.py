"""Images as models take them: ``Images``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from shardstream._native import order
from shardstream._native.transform import MAX_CHANNELS
from shardstream._native.transform import Images as NativeImages
from shardstream.buffers import TransformPool
from shardstream.errors import ConfigError, SampleError
from shardstream.transforms.marks import Place
from shardstream.transforms.numbers import mean_and_std

PURPOSE = int.from_bytes(b"image", "big")  # third word of the key, so that images share no draws with the order


class Images:
    """Makes float32 ``(rows, channels, height, width)`` of uint8 ``(rows, height, width, channels)``, in one pass in C.

    A pixel becomes ``(pixel / 255 - mean) / std``, computed in float32 as ``pixel * scale + shift``. Rows may also be a
    list of arrays of different sizes, as decoded files are, if they are cropped. Give an instance to
    ``ShardStream(transform=)``, or call it in a transform of your own, marked ``@ss.batched`` and ``@ss.placed``.

    Args:
        field: The column.
        crop: ``(height, width)`` of what comes out; left out, images keep their size, which is the same for all.
        padding: Rows and columns of zeros around an image before it is cropped.
        random_crop: Crop anywhere, by seed, epoch and position; otherwise in the middle.
        random_flip: Turn every second image left to right, by the same.
        mean, std: By channel, or one number for all, in units of 255.
        to: The column that it becomes; left out, the same.

    Raises:
        ConfigError: An argument is not legal, or images differ in size without a crop.
        SampleError: A row is no such image, or smaller than the crop.
    """

    shardstream_batched = shardstream_placed = True

    def __init__(self, field: str, *, crop: tuple[int, int] | None = None, padding: int = 0, random_crop: bool = False,
                 random_flip: bool = False, mean: float | Sequence[float] = 0.0, std: float | Sequence[float] = 1.0,
                 to: str | None = None):  # fmt: skip
        self.field, self.to, self.padding = field, to or field, padding
        self.crop = None if crop is None else _size_of(crop)
        self.random_crop, self.random_flip = random_crop, random_flip
        if self.crop is None and (padding or random_crop):
            raise ConfigError("padding= and random_crop= need crop=, the size that comes out.")
        if not isinstance(padding, int) or not 0 <= padding <= 2**24:
            raise ConfigError(f"padding={padding!r} is a number of pixels from 0 to 2**24.")
        self.mean, self.std = mean_and_std(mean, std)
        self._native: dict[int, NativeImages] = {}
        self._pool = TransformPool()

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_native": {}}

    def __call__(self, columns: dict[str, Any], place: Place) -> dict[str, Any]:
        """Return the columns with the images transformed."""
        if self.field not in columns:
            raise ConfigError(f"there is no column {self.field!r}; there are {sorted(columns)}.", field=self.field)
        images, sizes, num_channels = self._images(columns[self.field])
        size = self.crop or tuple(sizes[:, 0].tolist())
        if self.crop is None and (odd := np.flatnonzero((sizes != sizes[:, :1]).any(0))).size:
            raise ConfigError(f"images of different sizes need crop=: row {int(odd[0])} is not of the first one's.",
                              field=self.field)  # fmt: skip
        if isinstance(images, list):
            pixels = np.array([image.__array_interface__["data"][0] for image in images], np.uintp)
        else:
            pixels = images.__array_interface__["data"][0] + np.arange(len(images), dtype=np.uintp) * np.uintp(
                images[0].nbytes
            )
        out = self._pool.empty((len(images), num_channels, *size), np.float32)
        positions = np.ascontiguousarray(place.position, np.int64)
        try:
            self._for(num_channels).transform(
                pixels, sizes, order.key(place.seed, place.epoch, PURPOSE), positions, out
            )
        except SampleError as error:
            error.field = self.field
            raise
        return {**columns, self.to: torch.from_numpy(out)}

    def _images(self, column: Any) -> tuple[Any, np.ndarray, int]:
        """Return a column's images, one array or a list of arrays, their heights and widths, and their channels."""
        if isinstance(column, list):
            images = [self._checked(row, image, 2) for row, image in enumerate(column)]
            channels = {image.shape[2] for image in images}
            if len(channels) != 1:
                raise SampleError(
                    f"images of {' and '.join(map(str, sorted(channels)))} channels are no one batch.", field=self.field
                )
            return images, np.array([image.shape[:2] for image in images], np.int64).T.copy(), *channels
        images = self._checked(None, column, 3)
        return images, np.repeat(np.array(images.shape[1:3], np.int64)[:, None], len(images), 1), images.shape[3]

    def _checked(self, row: int | None, image: Any, num_axes: int) -> np.ndarray:
        """Return an array of images, or one, with channels as its last axis."""
        array = np.ascontiguousarray(image)
        if array.ndim == num_axes:
            array = array[..., None]
        if (
            array.dtype != np.uint8
            or array.ndim != num_axes + 1
            or not 1 <= array.shape[-1] <= MAX_CHANNELS
            or not array.size
        ):
            raise SampleError(
                f"{array.dtype} of shape {array.shape} is no image: uint8 (height, width, channels).",
                key=row,
                field=self.field,
            )
        return array

    def _for(self, num_channels: int) -> NativeImages:
        if num_channels not in self._native:
            if {len(self.mean), len(self.std)} - {1, num_channels}:
                raise ConfigError(
                    f"mean and std have {len(self.mean)} and {len(self.std)} numbers for {num_channels} channels.",
                    field=self.field,
                )
            scale, shift = scale_and_shift(self.mean, self.std, num_channels)
            self._native[num_channels] = NativeImages(self.padding, self.random_crop, self.random_flip, scale, shift)
        return self._native[num_channels]


def _size_of(crop: Any) -> tuple[int, int]:
    """Return height and width as a caller gave them."""
    if isinstance(crop, str) or not isinstance(crop, Iterable) or len(size := tuple(crop)) != 2 or not all(
        isinstance(n, (int, np.integer)) and 1 <= n <= 2**24 for n in size
    ):
        raise ConfigError(f"crop={crop!r} must be a height and a width from 1 to 2**24.")
    return int(size[0]), int(size[1])


def scale_and_shift(mean: np.ndarray, std: np.ndarray, num_channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Return float32 ``scale`` and ``shift`` by channel."""
    ones = np.ones(num_channels)
    return (ones / 255 / std).astype(np.float32), (0 - mean / std * ones).astype(np.float32)

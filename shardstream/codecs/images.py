"""Encoded images to pixels, by simplejpeg where it is installed and fits, else by Pillow (the extra ``image``).

``open_image`` looks at the header only, so that whoever decodes knows how many bytes it will take before they are
taken. Both packages give the same pixels of a JPEG (they share libjpeg-turbo), release the GIL while they decode, and
may be called from any threads.
"""

from __future__ import annotations

import functools
import io
from abc import ABC, abstractmethod
from typing import Any

import numpy as np

# Not all that Pillow could open: some of its formats run other programs.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
CHANNELS = {"RGB": 3, "L": 1}
JPEG_MAGIC = b"\xff\xd8\xff"
# ITU T.81, table B.1
FRAME_MARKERS = frozenset((*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)))
SEGMENT_MARKERS = frozenset((0xC4, 0xDB, 0xDD, *range(0xE0, 0xF0), 0xFE))  # tables, application data, comments
DENOMINATORS = (8, 4, 2)  # by which libjpeg makes an image smaller while it decodes


@functools.cache
def _simplejpeg() -> Any:
    """Return the module, or None if it is not installed."""
    try:
        import simplejpeg
    except ImportError:
        return None
    return simplejpeg


@functools.cache
def pillow() -> Any:
    """Return ``PIL.Image``, or None if it is not installed."""
    try:
        import PIL.Image
    except ImportError:
        return None
    return PIL.Image


def can_decode() -> bool:
    """Return whether a package that decodes images is installed."""
    return _simplejpeg() is not None or pillow() is not None


class EncodedImage(ABC):
    """An image whose header has been read: ``height`` and ``width`` as they are stored, before any Exif rotation."""

    height: int
    width: int

    @abstractmethod
    def decode(self, mode: str, denominator: int = 1, out: np.ndarray | None = None) -> np.ndarray:
        """Return uint8 pixels ``(height, width, channels)``, in ``out`` if it is given.

        With a ``denominator`` of 2, 4 or 8 a JPEG comes out smaller by it, sizes rounded up, for less than decoding it
        whole.
        """


class _SimpleJpeg(EncodedImage):
    def __init__(self, data: bytes):
        self.height, self.width, self.colorspace, _ = _simplejpeg().decode_jpeg_header(data)
        self._data = data

    def decode(self, mode: str, denominator: int = 1, out: np.ndarray | None = None) -> np.ndarray:
        colorspace = "RGB" if mode == "RGB" else "GRAY"
        if denominator == 1:
            return _simplejpeg().decode_jpeg(self._data, colorspace, buffer=out)
        height, width = -(-self.height // denominator), -(-self.width // denominator)
        return _simplejpeg().decode_jpeg(self._data, colorspace, min_height=height, min_width=width, buffer=out)


class _Pillow(EncodedImage):
    def __init__(self, data: bytes):
        if pillow() is None:
            raise ValueError("it is no JPEG that simplejpeg decodes, and Pillow is not installed: pip "
                             "install 'shardstream[image]'")  # fmt: skip
        try:
            self._image = pillow().open(io.BytesIO(data), formats=FORMATS)
        except pillow().UnidentifiedImageError:  # whose message is an address in memory, another one in each run
            raise ValueError(f"it is of none of the formats {', '.join(FORMATS)}") from None
        self.width, self.height = self._image.size
        if self._image.mode.startswith(("I", "F")):
            raise ValueError("it has more than 8 bits a channel: scale it to 8 when you pack it")

    def decode(self, mode: str, denominator: int = 1, out: np.ndarray | None = None) -> np.ndarray:
        self._image.draft(mode, (self.width // denominator, self.height // denominator))  # of a JPEG only
        pixels = np.asarray(self._image if self._image.mode == mode else self._image.convert(mode))
        pixels = pixels.reshape(*pixels.shape[:2], CHANNELS[mode])
        if out is None:
            return pixels
        out[...] = pixels
        return out


def open_image(data: bytes, max_pixels: int) -> EncodedImage:
    """Return an image of one of ``FORMATS``, of which only the header has been read.

    Raises:
        ValueError: It is none, or has more than ``max_pixels``. The packages raise other errors, too, on hostile bytes.
    """
    image = None
    if data[:3] == JPEG_MAGIC and _simplejpeg() is not None:
        image = _SimpleJpeg(data)
        if image.colorspace not in ("Gray", "YCbCr", "RGB"):  # inks, for which simplejpeg has no rule
            image = None
    image = _Pillow(data) if image is None else image
    if image.height * image.width > max_pixels:
        raise ValueError(f"it has {image.height} x {image.width} pixels, more than max_pixels={max_pixels}")
    return image


def decode_jpeg_into(data: bytes, mode: str, out: np.ndarray) -> bool:
    """Return whether ``data`` was a JPEG of just the shape of ``out``, ``(height, width, channels)``, which now has its
    pixels.

    libjpeg reads the header once, not twice as after ``open_image``, which takes a fifth of a small image's time. If it
    was none, ``open_image`` tells why, and ``out`` may hold anything. No more is decoded than fits ``out``.
    """
    if data[:3] != JPEG_MAGIC or _simplejpeg() is None or _num_components(data) not in (1, 3):  # four are inks
        return False
    try:
        return _simplejpeg().decode_jpeg(data, "RGB" if mode == "RGB" else "GRAY", buffer=out).shape == out.shape
    except Exception:  # of another shape, or damaged
        return False


def _num_components(data: bytes) -> int:
    """Return how many colour channels a JPEG says that it has; 0 if its markers cannot be followed."""
    place, end = 2, len(data) - 9
    while place < end and data[place] == 0xFF:
        marker = data[place + 1]
        if marker in FRAME_MARKERS:
            return data[place + 9]
        if marker not in SEGMENT_MARKERS:
            break
        place += 2 + (data[place + 2] << 8 | data[place + 3])
    return 0


def resized(image: EncodedImage, mode: str, height: int, width: int) -> np.ndarray:
    """Return an image as uint8 ``(height, width, channels)``, by Pillow's bilinear filter.

    A JPEG that is at least 4 times as large is made smaller while it is decoded, to no less than twice the size.
    """
    reduction = min(image.height // (2 * height), image.width // (2 * width))
    denominator = next((one for one in DENOMINATORS if one <= reduction), 1)
    pixels = image.decode(mode, denominator)
    denominator = denominator if pixels.shape[0] < image.height else 1
    if pixels.shape[:2] == (height, width):
        return pixels
    if pillow() is None:
        raise ValueError("resizing needs Pillow: pip install 'shardstream[image]'")
    # not the part of a last pixel that the image hasn't
    box = (0, 0, image.width / denominator, image.height / denominator)
    small = pillow().fromarray(pixels if mode == "RGB" else pixels[..., 0]).resize((width, height), pillow().Resampling.BILINEAR, box)
    return np.asarray(small).reshape(height, width, CHANNELS[mode])

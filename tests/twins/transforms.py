"""Images and numbers made ready for a model, one after another, in numpy."""

import numpy as np

from tests.twins import order

PURPOSE = int.from_bytes(b"image", "big")


def image(pixels, size, padding, random_crop, random_flip, mean, std, place) -> np.ndarray:
    """Return a uint8 image ``(height, width, channels)`` as float32 ``(channels, *size)``; see ``Place``."""
    padded = np.pad(pixels, ((padding, padding), (padding, padding), (0, 0)))
    height, width = padded.shape[0] - size[0], padded.shape[1] - size[1]
    seed, epoch, position = place
    drawn = order.key(seed, epoch, PURPOSE, position)
    top, left = height // 2, width // 2
    if random_crop:
        top, left = (drawn >> 32) * (height + 1) >> 32, (drawn % 2**32) * (width + 1) >> 32
    crop = padded[top : top + size[0], left : left + size[1]]
    if random_flip and order.key(seed, epoch, PURPOSE, position, 1) >> 63:
        crop = crop[:, ::-1]
    scale = (1 / 255 / np.asarray(std, np.float64)).astype(np.float32)
    shift = (0 - np.asarray(mean, np.float64) / std).astype(np.float32)
    return (crop.astype(np.float32) * scale + shift).transpose(2, 0, 1)


def standardize(values, mean, std) -> np.ndarray:
    """Return ``(values - mean) / std`` as float32."""
    return ((values.astype(np.float64) - mean) * (1 / np.asarray(std, np.float64))).astype(np.float32)

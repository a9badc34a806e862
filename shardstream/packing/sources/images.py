"""Image folders: one record a file, its bytes as they are, or its pixels.

=======  =========================================================================================
column   meaning
=======  =========================================================================================
key      the file's path below its folder; also ``path``, ``top`` and ``folder``, as of ``kind: text``:
         ``top`` is the class in a tree with a folder a class
image    the file's bytes, or with ``size: [height, width]`` its pixels, uint8 ``(height, width, 3)``
         (``(height, width)`` with ``mode: L``), decoded and resized by Pillow
=======  =========================================================================================
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import partial
from typing import Literal

from shardstream.errors import SampleError
from shardstream.packing.document import Document
from shardstream.packing.sources import CHUNK_NBYTES, Chunk
from shardstream.packing.sources.files import FilesSettings, FilesSource, printable
from shardstream.packing.sources.text import names_of, path_of
from shardstream.packing.steps import Column
from shardstream.schema import Bytes, Dense, Text
from shardstream.storage.find import FoundFile, read_files

SUFFIXES = ("*.jpg", "*.jpeg", "*.png", "*.webp", "*.gif", "*.bmp", "*.tif", "*.tiff", "*.JPEG", "*.JPG", "*.PNG")


class ImagesSettings(FilesSettings):
    """The keys of ``source`` with ``kind: images``."""

    include: tuple[str, ...] = SUFFIXES
    size: tuple[int, int] | None = None
    mode: Literal["RGB", "L"] = "RGB"


class ImagesSource(FilesSource):
    """Image files of folders and globs, local or remote: in the order of the paths given, sorted by key in each."""

    def __init__(self, settings: ImagesSettings, document: Document):
        self.settings = settings
        kind = Bytes()
        if settings.size is not None:
            if min(settings.size) < 1:
                raise document.error(("source", "size"), f"height and width are at least 1, not {list(settings.size)}.")
            try:
                import PIL  # noqa: F401
            except ImportError:
                message = "decoding needs Pillow: pip install 'shardstream[image]'; or leave size out and keep the bytes."
                raise document.error(("source", "size"), message) from None
            kind = Dense("uint8", (*settings.size, 3) if settings.mode == "RGB" else settings.size)
        kinds = {**{name: Text() for name in ("key", "path", "top", "folder")}, "image": kind}
        self.columns = {name: Column(kind, is_source=True) for name, kind in kinds.items()}
        super().__init__(settings, document)

    def read(self, part: list[FoundFile]) -> Iterator[Chunk]:
        records, rejects, nbytes = [], [], 0
        for file, data in zip(part, read_files(part, self.settings.storage_options), strict=True):
            nbytes += len(data)
            try:
                image = data if self.settings.size is None and data else self._pixels(data)
            except Exception as error:  # Pillow raises whatever a decoder stumbles over
                message = f"{printable(file.place)} is not an image: {error or type(error).__name__}."
                rejects.append(SampleError(message, key=printable(file.name)))
            else:
                records.append({**names_of(file), "image": image})
            if nbytes >= CHUNK_NBYTES:
                yield Chunk.of_records(records, nbytes, rejects, partial(path_of, records))
                records, rejects, nbytes = [], [], 0
        yield Chunk.of_records(records, nbytes, rejects, partial(path_of, records))

    def _pixels(self, data: bytes):
        if not data:
            raise ValueError("it is empty")
        import numpy as np
        from PIL import Image, UnidentifiedImageError

        try:
            opened = Image.open(io.BytesIO(data))  # closed below
        except UnidentifiedImageError as error:  # whose message is an address in memory, another one in each run
            raise ValueError("it is of no format that Pillow knows") from error
        with opened as image:
            height, width = self.settings.size
            converted = image.convert(self.settings.mode)
            if converted.size != (width, height):
                converted = converted.resize((width, height), Image.Resampling.BILINEAR)
            return np.asarray(converted)

    def peek(self, column: str) -> Iterator[str] | None:
        return None if column == "image" else (names_of(file)[column] for file in self.files)

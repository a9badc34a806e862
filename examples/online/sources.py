"""Where an online producer's lines come from: a growing file, a folder in which files arrive, a Redis stream.

Each source yields ``(lines, position)``: some complete lines as bytes, and where the source stands after them, a small JSON
value. Started again with the last position that was committed, it goes on with the very next line. ``([], None)``
says that there is nothing new for now.
"""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

CHUNK_NBYTES = 1 << 20  # read at once, and the longest line there may be
HEAD_NBYTES = 256  # of a file's beginning, by whose checksum it is known again
# looks at a rotated file that did not grow, after which its last line counts though it has no newline
SETTLED_LOOKS = 10
BATCH_LINES = 1000

Batch = tuple[list[bytes], object]
NOTHING: Batch = ([], None)
COMPRESSED = (".gz", ".bz2", ".xz", ".zst")


def warn(message: str) -> None:
    print(f"produce: {message}", file=sys.stderr, flush=True)


class LineReader:
    """Complete lines of an open file from an offset on; ``offset`` is where the first line not yet returned begins."""

    def __init__(self, path: Path, offset: int = 0):
        self.path, self.offset = path, offset
        self._file = open(path, "rb")

    @property
    def status(self) -> os.stat_result:
        return os.fstat(self._file.fileno())

    def checksum(self, nbytes: int) -> int:
        """Return the CRC-32 of the file's first bytes."""
        return zlib.crc32(os.pread(self._file.fileno(), nbytes, 0))

    def lines(self, is_final: bool = False) -> list[bytes] | None:
        """Return the next complete lines that are not empty, None if there is none; ``is_final``: also a last one without newline."""
        data = os.pread(self._file.fileno(), CHUNK_NBYTES, self.offset)
        end = data.rfind(b"\n") + 1
        if not end and (len(data) == CHUNK_NBYTES or is_final):
            end = len(data)  # a line too long to be one is cut, and its pieces will be skipped
        if not end:
            return None
        lines = data[:end].splitlines(keepends=True)[:BATCH_LINES]
        self.offset += sum(map(len, lines))
        return [line for line in map(bytes.strip, lines) if line]

    def close(self) -> None:
        self._file.close()


class Tail:
    """Lines appended to a file that may be rotated: renamed to ``FILE.anything``, with a new one in its place, or copied and cut.

    A position names the file by its inode and the checksum of its beginning, so it is found under its new name, too.
    """

    def __init__(self, path: str, position: dict | None):
        self._path, self._position = Path(path), position
        self._reader = None if position is None else self._found(position)
        self._num_quiet = 0

    def __iter__(self) -> Iterator[Batch]:
        while True:
            if self._reader is None and self._path.exists():
                self._reader = LineReader(self._path)
            # cut; perhaps there is a copy
            if self._reader is not None and self._reader.status.st_size < self._reader.offset:
                self._reader = self._found(self._position)
            yield NOTHING if self._reader is None else self._next()

    def _next(self) -> Batch:
        following = self._following()
        is_settled = following is not None and self._num_quiet >= SETTLED_LOOKS
        lines = self._reader.lines(is_final=is_settled)
        if lines is not None:
            self._num_quiet = 0
            nbytes, status = min(HEAD_NBYTES, self._reader.offset), self._reader.status
            self._position = {"inode": status.st_ino, "head": [nbytes, self._reader.checksum(nbytes)],
                              "offset": self._reader.offset, "mtime_ns": status.st_mtime_ns}  # fmt: skip
            return lines, self._position
        self._num_quiet += 1
        if is_settled:
            self._reader.close()
            self._reader, self._num_quiet = LineReader(following), 0
        return NOTHING

    def _files(self) -> list[Path]:
        """Return the file's former selves, the oldest first, and itself last."""
        rotated = [path for path in self._path.parent.glob(f"{self._path.name}.*") if path.suffix not in COMPRESSED]
        return [*sorted(rotated, key=lambda path: path.stat().st_mtime_ns),
                *([self._path] if self._path.exists() else [])]  # fmt: skip

    def _following(self) -> Path | None:
        """Return the file that comes after the one being read, None while it is the newest."""
        files, status = self._files(), self._reader.status
        places = [place for place, path in enumerate(files) if path.stat().st_ino == status.st_ino]
        rest = files[places[-1] + 1 :] if places else _newer(files, status.st_mtime_ns)
        return rest[0] if rest else None

    def _found(self, position: dict) -> LineReader | None:
        """Return the file of a position, at its offset: the one of its inode, else a copy of it, else what came after it."""
        nbytes, checksum = position["head"]
        readers = [LineReader(path, position["offset"]) for path in self._files()]
        same = [reader for reader in readers if reader.checksum(nbytes) == checksum and reader.status.st_size >= reader.offset]
        same.sort(key=lambda reader: reader.status.st_ino != position["inode"])
        for reader in readers:
            if reader not in same[:1]:
                reader.close()
        if same:
            return same[0]
        warn(f"the file that was being read is gone; what it held after byte {position['offset']} is lost")
        newer = _newer(self._files(), position["mtime_ns"])
        return LineReader(newer[0]) if newer else None


def _newer(files: list[Path], mtime_ns: int) -> list[Path]:
    """Return the files that were written to after a time; those that were read before are older."""
    return [path for path in files if path.stat().st_mtime_ns > mtime_ns]


class Folder:
    """Lines of files that arrive in a folder, in the order of their names; a file is complete when it appears.

    Whoever puts files there writes them under a name that begins with a dot and then renames them. A file whose name
    sorts before one that was taken already comes too late: it is left out, with a warning.
    """

    def __init__(self, path: str, position: dict | None):
        self._folder = Path(path)
        self._name, self._offset = ("", 0) if position is None else (position["file"], position["offset"])
        self._known = set(self._names()) if position else set()

    def __iter__(self) -> Iterator[Batch]:
        while True:
            names = self._names()
            for name in sorted(set(names) - self._known):
                self._known.add(name)
                if name < self._name:
                    warn(f"{name} is left out: it sorts before {self._name}, which has been read")
            for name in [name for name in names if name >= self._name]:
                reader = LineReader(self._folder / name, self._offset if name == self._name else 0)
                while (lines := reader.lines(is_final=True)) is not None:
                    self._name, self._offset = name, reader.offset
                    yield lines, {"file": name, "offset": reader.offset}
                reader.close()
            yield NOTHING

    def _names(self) -> list[str]:
        return sorted(entry.name for entry in os.scandir(self._folder) if entry.is_file() and not entry.name.startswith("."))


class RedisStream:
    """The field ``line`` of the entries of a Redis stream (needs the ``redis`` extra); a position is an entry's id."""

    def __init__(self, url: str, stream: str, position: str | None):
        try:
            import redis
        except ImportError as error:
            raise OSError("reading a Redis stream needs the redis extra: pip install 'shardstream[redis]'") from error
        self._client, self._stream, self._last = redis.Redis.from_url(url), stream, position or "0-0"
        if position is not None and self._client.exists(stream):
            deleted = self._client.xinfo_stream(stream).get("max-deleted-entry-id", b"0-0")
            if _id(deleted.decode()) > _id(position):
                warn(f"{stream} was trimmed up to {deleted.decode()}, but had been read up to "
                     f"{position}: entries may be lost")  # fmt: skip

    def __iter__(self) -> Iterator[Batch]:
        while True:
            found = self._client.xread({self._stream: self._last}, count=BATCH_LINES)
            if not found:
                yield NOTHING
                continue
            entries = found[0][1]
            self._last = entries[-1][0].decode()
            yield [fields.get(b"line", b"") for _, fields in entries], self._last


def _id(text: str) -> tuple[int, int]:
    milliseconds, _, number = text.partition("-")
    return int(milliseconds), int(number)

"""Members of tar archives, scanned in C (``csrc/include/ss_tar.h``), and headers to write them.

A scan gives a :class:`MemberTable`: one row of :data:`MEMBER` a member, in archive order.

===============  ==================================================================
column           meaning
===============  ==================================================================
begin            offset of its first header, extended headers included
data_begin       offset of its payload
data_nbytes      size of its payload; the next member begins at a multiple of 512
name_begin       its name is ``names[name_begin : name_begin + name_nbytes]``
name_nbytes
key_nbytes       the key is that many bytes of the name; the field follows a dot
key_hash         128 bits of the key where ``starts_sample``, otherwise 0
field_hash       64 bits of the field in ASCII lower case, for kind ``FIELD``
kind             ``FIELD``, ``NO_FIELD``, ``META`` (``__x__/...``) or ``OTHER``
starts_sample    1 for a ``FIELD`` whose key is not that of the ``FIELD`` before it
===============  ==================================================================

Rows are ten 64-bit words, in this order (the last holds ``kind`` and ``starts_sample``).
All offsets are those of the archive, also when a part of it is scanned. Slow twin:
``tests/twins/tar.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shardstream._native import ffi, lib
from shardstream.errors import ConfigError, ShardError

BLOCK_NBYTES = lib.SS_TAR_BLOCK_NBYTES
RECORD_NBYTES = 20 * BLOCK_NBYTES  # what archives are padded to: tar's blocking factor
MAX_NAME_NBYTES = lib.SS_TAR_MAX_NAME_NBYTES
MAX_PREFIX_NBYTES = lib.SS_TAR_MAX_PREFIX_NBYTES
MAX_OCTAL_SIZE = 8**11 - 1

FIELD, NO_FIELD, META, OTHER = lib.SS_TAR_FIELD, lib.SS_TAR_NO_FIELD, lib.SS_TAR_META, lib.SS_TAR_OTHER

MEMBER = np.dtype(
    [
        ("begin", "<u8"),
        ("data_begin", "<u8"),
        ("data_nbytes", "<u8"),
        ("name_begin", "<u8"),
        ("name_nbytes", "<u8"),
        ("key_nbytes", "<u8"),
        ("key_hash", "<u8", (2,)),
        ("field_hash", "<u8"),
        ("kind", "<u4"),
        ("starts_sample", "<u4"),
    ]
)

END_BLOCKS = "end blocks"
NO_END_BLOCKS = "no end blocks"
MORE_INPUT = "more input"
STOPS = {
    lib.SS_TAR_STOP_INPUT: MORE_INPUT,
    lib.SS_TAR_STOP_END_BLOCKS: END_BLOCKS,
    lib.SS_TAR_STOP_NO_END_BLOCKS: NO_END_BLOCKS,
}

# enum ss_tar_problem -> (ShardError.problem, what the message says)
PROBLEMS = {
    lib.SS_TAR_CUT_HEADER: ("truncated", "the archive is truncated: it ends inside a header"),
    lib.SS_TAR_CUT_DATA: ("truncated", "the archive is truncated: it ends inside a member"),
    lib.SS_TAR_NOT_A_HEADER: ("garbage", "these bytes are not a tar header"),
    lib.SS_TAR_BAD_CHECKSUM: ("checksum", "a tar header does not match its checksum"),
    lib.SS_TAR_BAD_SIZE: ("size", "a member's size is not a number from 0 to 2**62"),
    lib.SS_TAR_BAD_PAX: ("pax", "a pax record is malformed"),
    lib.SS_TAR_NO_MEMBER: ("pax", "an extended header is followed by no member"),
    lib.SS_TAR_AFTER_END: ("trailing", "data follow the archive's end blocks; were archives concatenated?"),
    lib.SS_TAR_LONG_NAME: ("limit", f"a member's name is longer than {MAX_NAME_NBYTES} bytes"),
    lib.SS_TAR_LONG_PREFIX: ("limit", f"a member's extended headers are longer than {MAX_PREFIX_NBYTES} bytes"),
    lib.SS_TAR_SPARSE: ("unsupported", "GNU sparse files are not supported; pack with tar --format=pax and without -S"),
    lib.SS_TAR_CONTINUED: ("unsupported", "multi-volume archives are not supported"),
}


@dataclass(frozen=True)
class MemberTable:
    """Members of an archive or a part of it.

    Attributes:
        members: Structured array of :data:`MEMBER`, shape ``(num_members,)``.
        names: uint8 array that the names stand in.
        end: ``END_BLOCKS``, ``NO_END_BLOCKS`` (it ends where a header would begin) or ``MORE_INPUT``.
    """

    members: np.ndarray
    names: np.ndarray
    end: str

    def __len__(self) -> int:
        return len(self.members)

    def name_bytes(self, i: int) -> bytes:
        """Return member ``i``'s name as it is stored."""
        begin = int(self.members["name_begin"][i])
        return self.names[begin : begin + int(self.members["name_nbytes"][i])].tobytes()

    def name(self, i: int) -> str:
        """Return member ``i``'s name; bytes that are not UTF-8 become surrogates, as in ``os.fsdecode``."""
        return self.name_bytes(i).decode("utf-8", "surrogateescape")

    def key(self, i: int) -> str:
        """Return the key of member ``i``, which must be of kind ``FIELD``."""
        return self.name_bytes(i)[: int(self.members["key_nbytes"][i])].decode("utf-8", "surrogateescape")

    def field(self, i: int) -> str:
        """Return the field of member ``i``, which must be of kind ``FIELD``, in lower case."""
        return self.name_bytes(i)[int(self.members["key_nbytes"][i]) + 1 :].decode("utf-8", "surrogateescape").lower()


class Scanner:
    """A scan of one archive in pieces, from ``offset`` on.

    Feed buffers in order: each begins at or before :attr:`offset` and ends later than the one
    before. A buffer need not hold payloads, only whole header groups: an archive read in pieces
    that begin at ``max(offset, end of the piece before)`` is scanned fully, and no piece needs more
    than ``MAX_PREFIX_NBYTES + 1024`` bytes.
    """

    def __init__(self, offset: int = 0, shard: str | None = None):
        self._state = ffi.new("struct ss_tar_scanner *")
        self._shard = shard
        lib.ss_tar_scanner_init(self._state, offset)

    @property
    def offset(self) -> int:
        """Where the next header group stands, or the zeros behind the end blocks that were not yet seen."""
        return self._state.offset

    @property
    def has_global(self) -> bool:
        """Whether a pax global header has set path or size, so that later members can't be read alone."""
        return bool(self._state.has_global_path or self._state.has_global_size)

    def feed(self, buffer, base_offset: int, is_last: bool) -> MemberTable:
        """Return the members whose headers stand in ``buffer``, the bytes at ``base_offset``.

        ``buffer`` is any contiguous bytes-like object; it is not copied, and the GIL is released.
        ``is_last`` says that the archive, or the part to scan, ends with it. Payloads are not read.

        Raises:
            ShardError: The bytes are not a sound archive up to here; ``problem`` is a word for what is
                wrong (``"truncated"``, ``"checksum"``, ``"garbage"``, ...), ``offset`` where.
        """
        data = np.frombuffer(buffer, np.uint8)
        members = np.empty(len(data) // (2 * BLOCK_NBYTES) + 16, MEMBER)
        names = np.empty(max(MAX_NAME_NBYTES, len(data) // 32), np.uint8)
        state = self._state
        state.num_members = state.names_nbytes = 0
        while True:
            status = lib.ss_tar_scan(
                state,
                ffi.from_buffer("uint8_t[]", data),
                len(data),
                base_offset,
                is_last,
                ffi.from_buffer("struct ss_tar_member[]", members),
                len(members),
                ffi.from_buffer("uint8_t[]", names),
                len(names),
            )
            if status != lib.SS_OK or state.stop != lib.SS_TAR_STOP_SPACE:
                break
            members, names = _grown(members, state.num_members), _grown(names, state.names_nbytes)
        table = MemberTable(
            members[: state.num_members], names[: state.names_nbytes], STOPS.get(state.stop, MORE_INPUT)
        )
        if status != lib.SS_OK:
            raise self._error(status, table)
        return table

    def _error(self, status: int, table: MemberTable) -> Exception:
        if status == lib.SS_ERR_ARGUMENT:
            return ConfigError("a buffer given to the tar scanner begins after the next header.", offset=self.offset)
        problem, message = PROBLEMS[self._state.problem]
        after = f", after member {table.name(len(table) - 1)!r}" if len(table) else ""
        error = ShardError(f"{message}{after}.", shard=self._shard, offset=self._state.error_offset)
        error.problem = problem
        return error


def _grown(array: np.ndarray, num_used: int) -> np.ndarray:
    """Return an array of twice the length with the same first ``num_used`` elements."""
    grown = np.empty(2 * len(array), array.dtype)
    grown[:num_used] = array[:num_used]
    return grown


def scan(buffer, base_offset: int = 0, shard: str | None = None) -> MemberTable:
    """Return all members of an archive, or of the part of one that stands at ``base_offset``.

    One call without the GIL over a contiguous bytes-like object; payloads are not read. ``end`` tells
    an archive with end blocks from one that just stops at a member's end. Raises :class:`ShardError`
    as :meth:`Scanner.feed` does. About 10 million members/s of 512 bytes in memory.
    """
    return Scanner(base_offset, shard).feed(buffer, base_offset, True)


def _pax_record(key: bytes, value: bytes) -> bytes:
    """Return ``b"<nbytes> <key>=<value>\\n"``, where nbytes counts itself."""
    nbytes = rest = len(key) + len(value) + 3
    while rest + len(str(nbytes)) != nbytes:
        nbytes = rest + len(str(nbytes))
    return b"%d %s=%s\n" % (nbytes, key, value)


def _ustar(name: bytes, prefix: bytes, nbytes: int, kind: bytes) -> bytes:
    block = bytearray(BLOCK_NBYTES)
    block[0 : len(name)] = name
    block[100:148] = b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (0o444, 0, 0, nbytes, 0)
    block[148:157] = b" " * 8 + kind
    block[257:265] = b"ustar\x0000"
    block[345 : 345 + len(prefix)] = prefix
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def _split_ustar(name: bytes) -> tuple[bytes, bytes] | None:
    """Return ``(prefix, name)`` as the two fields of a ustar header hold it, or None if they can't."""
    if not name.isascii():
        return None
    if len(name) <= 100:
        return b"", name
    cut = name.find(b"/", len(name) - 101, 156)
    return None if cut <= 0 or cut == len(name) - 1 else (name[:cut], name[cut + 1 :])


def header(name: str, nbytes: int) -> bytes:
    """Return the header of a regular file, 512 bytes where the name fits ustar and the size 8 GiB.

    Otherwise a pax extended header stands before it: for a name that is not ASCII, has over 100 bytes and
    no slash to cut at, or for a larger size. mtime, uid and gid are 0, mode is 0444, so equal arguments
    give equal bytes. Payload and :func:`padding` follow it.

    Raises:
        ConfigError: The name is empty, holds a NUL or has more than ``MAX_NAME_NBYTES`` bytes.
    """
    raw = name.encode("utf-8", "surrogateescape")
    if not 0 < len(raw) <= MAX_NAME_NBYTES or b"\0" in raw or nbytes < 0:
        raise ConfigError(f"a tar member needs a name of 1 to {MAX_NAME_NBYTES} bytes without NUL, not {name!r:.200}.")
    parts = _split_ustar(raw)
    records = b"" if parts else _pax_record(b"path", raw)
    prefix, short = parts or (b"", raw.decode("ascii", "replace").encode("ascii", "replace")[:100])
    if nbytes > MAX_OCTAL_SIZE:
        records += _pax_record(b"size", b"%d" % nbytes)
        nbytes = 0
    own = _ustar(short, prefix, nbytes, b"0")
    if not records:
        return own
    return _ustar(b"././@PaxHeader", b"", len(records), b"x") + records + padding(len(records)) + own


def padding(nbytes: int) -> bytes:
    """Return the zeros that follow a payload of ``nbytes``."""
    return bytes(-nbytes % BLOCK_NBYTES)


def end_blocks(nbytes: int) -> bytes:
    """Return what ends an archive of ``nbytes`` so far: two zero blocks, and zeros up to a multiple of 10,240."""
    return bytes(2 * BLOCK_NBYTES + -(nbytes + 2 * BLOCK_NBYTES) % RECORD_NBYTES)

"""From the bytes of a foreign tar, in order and in pieces, to its blocks (docs/FORMAT.md, section 6).

A :class:`BlockCounter` is fed an archive piece by piece and keeps 24 bytes a sample and the open block's CRC.
It finds what WebDataset's reader would pass over in silence: damaged headers, cut archives, fields that come
twice, samples whose members are not together.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from shardstream._native import tar
from shardstream._native.crc32c import crc32c
from shardstream.codecs.shard import MAX_BLOCK_NBYTES, MAX_BLOCK_SAMPLES, ShardIndex
from shardstream.errors import ShardError


class BlockCounter:
    """Counts samples and cuts them into blocks; see :meth:`feed`.

    Blocks tile the archive from the first sample's first header to the end blocks: one ends where the next
    one's first sample begins, and members that belong to no sample fall into the block before them.

    Attributes:
        position: Where the next piece may begin; a later one leaves a gap.
        num_samples: Samples whose first member was seen.
        end: How the archive ended, once the last piece was fed: ``tar.END_BLOCKS`` or ``tar.NO_END_BLOCKS``.
    """

    def __init__(self, shard: str | None = None, with_blocks: bool = True):
        self._scanner = tar.Scanner(0, shard)
        self._shard = shard
        self._with_blocks = with_blocks
        self.position = 0
        self.num_samples = 0
        self.end = tar.MORE_INPUT
        self._starts: list[np.ndarray] = []  # uint64: where each sample's first header stands
        self._keys: list[np.ndarray] = []  # uint64 pairs: 128 bits of each key
        self._open_fields = np.empty(0, np.uint64)  # hashes of the fields of the sample seen last
        self._field_sets: set[int] = set()  # of all samples before it, as sums of their fields' hashes
        self._blocks: list[tuple[int, int, int, int]] = []  # samples, begin, nbytes, crc
        self._begin, self._first = 0, 0  # the open block: its offset, and the number of its first sample
        self._crc, self._crc_end = 0, 0  # CRC of the bytes from its offset up to here
        self._members_end = 0  # padded end of the last member seen

    def feed(self, piece, begin: int, is_last: bool) -> None:
        """Take the bytes that stand at ``begin``, at most :attr:`position` and not before the last piece's begin.

        Raises:
            ShardError: The archive is damaged, or not as WebDataset wants it: a field comes twice in a sample.
        """
        table = self._scanner.feed(piece, begin, is_last)
        rows = np.flatnonzero(table.members["kind"] == tar.FIELD)
        fields = table.members[rows]
        is_start = fields["starts_sample"] == 1
        self._check_fields(table, rows, is_start)
        starts = fields["begin"][is_start].astype(np.int64)
        if len(table):
            last = table.members[-1]
            self._members_end = (
                int(last["data_begin"]) + -(-int(last["data_nbytes"]) // tar.BLOCK_NBYTES) * tar.BLOCK_NBYTES
            )
        end = begin + len(piece)
        if self._with_blocks:
            self._cut(piece, begin, starts)
            self._checksum(piece, begin, min(end, self._members_end))
        self._starts.append(starts)
        self._keys.append(fields["key_hash"][is_start])
        self.num_samples += len(starts)
        self.position = min(end, self._scanner.offset)
        self.end = table.end

    def finish(self, key_at: Callable[[int], str | None]) -> ShardIndex:
        """Return the index of what was fed, after the last piece.

        ``key_at`` looks up the key of the sample whose first header stands at an offset; it is used for messages.

        Raises:
            ShardError: A key comes back after another; or the archive has no end blocks, and its last sample has
                fields that no other has, so it was most likely cut off.
        """
        starts = np.concatenate(self._starts) if self._starts else np.empty(0, np.int64)
        self._check_keys(starts, key_at)
        if (
            self.end == tar.NO_END_BLOCKS
            and self._field_sets
            and self._field_set(self._open_fields) not in self._field_sets
        ):
            key, offset = key_at(int(starts[-1])), self._scanner.offset
            error = ShardError(
                "the archive is truncated: it has no end blocks, and its last sample lacks fields that others have.",
                shard=self._shard,
                key=key,
                offset=offset,
            )
            error.problem = "truncated"
            raise error
        if self._with_blocks and self.num_samples > self._first:
            self._close(self.num_samples, self._members_end)
        table = np.array(self._blocks, np.int64).reshape(-1, 4)
        return ShardIndex(
            "files", ("",), table[:, 0].copy(), table[:, None, 1:3].copy(), table[:, 3:].astype(np.uint32)
        )

    def _check_fields(self, table: tar.MemberTable, rows: np.ndarray, is_start: np.ndarray) -> None:
        """Raise if a field comes twice in a sample; note the set of fields of each finished one."""
        num_open = len(self._open_fields)
        hashes = np.concatenate([self._open_fields, table.members["field_hash"][rows]])
        sample = np.concatenate([np.zeros(num_open, np.int64), np.cumsum(is_start)])
        order = np.lexsort((hashes, sample))
        same = (np.diff(hashes[order]) == 0) & (np.diff(sample[order]) == 0)
        if same.any():
            later = int(max(order[:-1][same][0], order[1:][same][0])) - num_open
            row = rows[later]
            raise ShardError(
                "a field comes twice in a sample.",
                shard=self._shard,
                key=table.key(row),
                field=table.field(row),
                offset=int(table.members["begin"][row]),
            )
        if not len(hashes):
            return
        bounds = np.flatnonzero(np.diff(sample, prepend=-1))
        self._field_sets.update(np.add.reduceat(hashes, bounds)[:-1].tolist())
        self._open_fields = hashes[bounds[-1] :].copy()

    @staticmethod
    def _field_set(hashes: np.ndarray) -> int:
        return int(hashes.sum(dtype=np.uint64))

    def _check_keys(self, starts: np.ndarray, key_at: Callable[[int], str | None]) -> None:
        """Raise if two samples have one key: then their members were not together, and both are torn."""
        keys = np.concatenate(self._keys) if self._keys else np.empty((0, 2), np.uint64)
        order = np.lexsort((keys[:, 1], keys[:, 0]))
        same = np.flatnonzero((np.diff(keys[order], axis=0) == 0).all(axis=1))
        if not len(same):
            return
        pairs = np.sort(np.stack([order[same], order[same + 1]], axis=1), axis=1)
        first, again = pairs[np.argmin(pairs[:, 1])].tolist()
        raise ShardError(
            f"the members of a sample are not together: its key begins at byte {starts[first]} and comes back, after "
            "others, at the offset named here. Write the archive anew with the members of a sample side by side "
            "(tar --sort=name).",
            shard=self._shard,
            key=key_at(int(starts[again])),
            offset=int(starts[again]),
        )

    def _cut(self, piece, begin: int, starts: np.ndarray) -> None:
        """Close each block that the samples beginning in this piece fill."""
        if self._scanner.has_global:  # what follows can't be read without the global header: no cut from here on
            return
        if self.num_samples == 0 and len(starts):  # what stands before the first sample is in no block
            self._begin = self._crc_end = int(starts[0])
            self._crc = 0
        while True:
            by_nbytes = int(np.searchsorted(starts, self._begin + MAX_BLOCK_NBYTES))
            i = min(by_nbytes, self._first + MAX_BLOCK_SAMPLES - self.num_samples)
            if i >= len(starts):
                return
            self._checksum(piece, begin, int(starts[i]))
            self._close(self.num_samples + i, int(starts[i]))

    def _checksum(self, piece, begin: int, end: int) -> None:
        """Bring the open block's CRC up to ``end``, which this piece reaches."""
        if end > self._crc_end:
            self._crc = crc32c(memoryview(piece)[self._crc_end - begin : end - begin], self._crc)
            self._crc_end = end

    def _close(self, num_samples: int, end: int) -> None:
        """End the open block before sample number ``num_samples``, which begins at ``end``."""
        self._blocks.append((num_samples - self._first, self._begin, end - self._begin, self._crc))
        self._first, self._begin, self._crc = num_samples, end, 0

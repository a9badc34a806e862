"""A dataset written once, whose log can be shown entry by entry: as a follower sees it grow, as often as a test likes.
"""

from __future__ import annotations

import os
import random
import shutil
import threading
from pathlib import Path

import shardstream as ss
from shardstream.log import Log, ShardRecord, entries
from shardstream.storage import Store

SCHEMA = ss.Schema(y=ss.Dense("int64"), t=ss.Ragged("uint8"))


class GrowingLog:
    """Entries of all kinds, samples numbered from 0.

    Attributes:
        entries: ``(version, kind, shards)``; each shard is the list of its samples.
        num_samples: Of all appended shards.
        dataset: Its id.
    """

    def __init__(self, folder: Path, num_entries: int, seed: int = 0, most: int = 60):
        self.folder, self.num_samples, self._choose = folder, 0, random.Random(seed)
        self._log = Log(Store(str(folder)))
        self.dataset = self._log.create(SCHEMA).dataset_id
        self.entries: list[tuple[int, str, list[list[int]]]] = [(0, "create", [])]
        self._live: list[tuple[ShardRecord, list[int]]] = []
        while len(self.entries) < num_entries:
            getattr(self, "_" + self._choose.choices(["append", "tag", "replace", "claim"], [8, 1, 1, 1])[0])(most)
        self._log.end()
        self._note("end")

    def _note(self, kind: str, shards=()) -> None:
        self.entries.append((len(self.entries), kind, list(shards)))

    def _append(self, most: int) -> None:
        sizes = [self._choose.randint(1, most) for _ in range(self._choose.choice([1, 1, 1, 2, 4]))]
        shards = [list(range(self.num_samples + sum(sizes[:i]), self.num_samples + sum(sizes[: i + 1]))) for i in range(len(sizes))]
        self.num_samples += sum(sizes)
        records = [self._write(ids) for ids in shards]
        self._live += zip(records, shards)
        self._log.append(records)
        self._note("append", shards)

    def _replace(self, _) -> None:
        if len(self._live) < 3:
            return
        (one, ids), (two, more) = self._live[:2]
        merged = self._write(ids + more)
        self._live = [*self._live[2:], (merged, ids + more)]
        self._log.replace([one.sid, two.sid], [merged])
        self._note("replace", [ids + more])

    def _tag(self, _) -> None:
        self._log.tag(f"t{len(self.entries)}", len(self.entries) // 2)
        self._note("tag")

    def _claim(self, _) -> None:
        self._log.claim("somebody")
        self._note("claim")

    def _write(self, ids: list[int]) -> ShardRecord:
        """Put a shard into the folder without an entry."""
        other = self.folder.with_name(f"{self.folder.name}-writing")
        with ss.ShardWriter(str(other), schema=SCHEMA) as writer:
            for i in ids:
                writer.write({"y": i, "t": [i % 256] * (i % 3)})
                if self._choose.random() < 0.1:
                    writer._close_block()
        record = Log(Store(str(other))).entry(1).add[0]
        os.rename(other / f"{record.sid}.tar", self.folder / f"{record.sid}.tar")
        shutil.rmtree(other)
        return record

    def shards_at(self, version: int) -> list[list[int]]:
        """Return the samples of each live shard at a version, in the log's order."""
        live: list[list[int]] = []
        for number, kind, shards in self.entries[: version + 1]:
            if kind == "replace":
                live = [shard for shard in live if not set(shard) <= set(shards[0])]
            live += shards
        return live

    def shown(self, folder: Path, num_entries: int) -> ShownLog:
        """Return a copy of the dataset that has the first entries only, so far."""
        return ShownLog(self, folder, num_entries)


class ShownLog:
    """The dataset up to an entry; ``show`` adds more, as a writer's commits would."""

    def __init__(self, whole: GrowingLog, folder: Path, num_entries: int):
        self.url, self._whole, self._folder, self.num_entries = str(folder), whole, folder, 0
        self._lock = threading.Lock()
        os.makedirs(folder / "_log")
        for shard in whole.folder.glob("*.tar"):
            os.link(shard, folder / shard.name)
        self.show(num_entries)

    def show(self, num: int) -> None:
        """Let ``num`` more entries stand in the log."""
        with self._lock:
            for version in range(self.num_entries, min(self.num_entries + num, len(self._whole.entries))):
                os.link(self._whole.folder / entries.name(version), self._folder / entries.name(version))
                self.num_entries += 1

"""The dict that a training run saves: nine fields, ten when it follows, JSON, under 1 kB, the same on every rank.

It is the position in an order, and what the order is a function of; nothing about topology, batches,
memory or URLs, so it loads onto any of them. docs/FORMAT.md section 8; golden files in
``tests/golden/state``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from shardstream.errors import StateError
from shardstream.order.epoch import MAX_EPOCH, MAX_LANES, MAX_SAMPLES, normalize_seed, resolve_window

FORMAT = 1
SHUFFLE, SEQUENCE = "shuffle-1", "sequence-1"
MAX_DATASET_CHARS = 100

LIMITS = {"version": MAX_SAMPLES, "seed": 2**64 - 1, "epoch": MAX_EPOCH, "lanes": MAX_LANES, "window": MAX_SAMPLES,
          "position": MAX_SAMPLES}  # fmt: skip
LEAST = {"lanes": 1, "window": 1}


def list_id(shards: Iterable[tuple[str, int, int]]) -> str:
    """Return the ``dataset`` of a list of shards without a log: a hash of what they are, not where.

    Args:
        shards: ``(name, nbytes, num_samples)`` of each shard in order; of a URL the last part is the name.
    """
    digest = hashlib.sha256()
    for name, nbytes, num_samples in shards:
        record = [name.rstrip("/").rsplit("/", 1)[-1], int(nbytes), int(num_samples)]
        digest.update(json.dumps(record, ensure_ascii=True, separators=(",", ":")).encode() + b"\n")
    return f"list-{digest.hexdigest()[:32]}"


@dataclass(frozen=True)
class Following:
    """Where a run that follows a dataset stands in the log: the segment of the last sample consumed.

    Attributes:
        after: The version behind which the segment begins; None if it is the whole dataset at the state's version.
        base: Cumulative position of the segment's first sample.
        group: How many entries that add shards make a segment.
    """

    after: int | None
    base: int
    group: int

    def __post_init__(self):
        if self.after is not None:
            check_integer("follow.after", self.after, 0, MAX_SAMPLES)
        check_integer("follow.base", self.base, 0, MAX_SAMPLES)
        check_integer("follow.group", self.group, 1, MAX_SAMPLES)


@dataclass(frozen=True)
class State:
    """A position in an epoch, and all that the order depends on; the fields of the saved dict but ``format``.

    Attributes:
        dataset: Id from entry 0 of the log, or ``list_id`` of a list of shards.
        version: Of the log; ``None`` for a list. Of a run that follows: at which the segment ends.
        order: ``"shuffle-1"`` or ``"sequence-1"``: the name of the whole algorithm, so that it can change.
        seed: In [0, 2^64).
        position: Samples of ``epoch`` that the whole job has consumed; of a run that follows, of all its segments.
        follow: Of a run that follows a dataset (docs/FORMAT.md section 7.7), else None.
    """

    dataset: str
    version: int | None
    order: str
    seed: int
    epoch: int
    lanes: int
    window: int
    position: int
    follow: Following | None = None

    def __post_init__(self):
        if not isinstance(self.dataset, str) or not 0 < len(self.dataset) <= MAX_DATASET_CHARS:
            raise StateError(
                f"the state's dataset {self.dataset!r} must be a text of 1 to {MAX_DATASET_CHARS} characters."
            )
        if self.order not in (SHUFFLE, SEQUENCE):
            raise StateError(
                f"the state's order {self.order!r} is not known here; this version knows {SHUFFLE} and {SEQUENCE}."
            )
        for name, limit in LIMITS.items():
            if not (name == "version" and self.version is None):
                check_integer(name, getattr(self, name), LEAST.get(name, 0), limit)
        if self.order == SEQUENCE and (self.lanes, self.window) != (1, 1):
            raise StateError(
                f"the state's lanes {self.lanes} and window {self.window} must be 1 with order {SEQUENCE}."
            )
        if self.window % self.lanes:
            raise StateError(f"the state's window {self.window} must be a multiple of its lanes {self.lanes}.")
        if self.follow is not None:
            self._check_follow(self.follow)

    def _check_follow(self, follow: Following) -> None:
        if self.version is None or self.epoch != 0:
            raise StateError(f"the state follows, so its version {self.version} must be a number and its "
                             f"epoch {self.epoch} 0.")  # fmt: skip
        if follow.after is not None and follow.after > self.version:
            raise StateError(f"the state's segment begins after version {follow.after} and ends at {self.version}.")
        if follow.base > self.position:
            raise StateError(f"the state's position {self.position} is before its segment, which begins "
                             f"at {follow.base}.")  # fmt: skip

    @property
    def shuffle(self) -> bool:
        """Whether the order is a shuffled one."""
        return self.order == SHUFFLE

    def to_dict(self) -> dict[str, Any]:
        """Return the dict to save."""
        fields = asdict(self)
        if self.follow is None:
            del fields["follow"]
        return {"format": FORMAT, **fields}

    @classmethod
    def from_dict(cls, state: Mapping) -> State:
        """Return the state of :meth:`to_dict`'s dict; raises StateError naming what is wrong with any other value."""
        names = {"format", *cls.__dataclass_fields__}
        follows = isinstance(state, Mapping) and "follow" in state
        fields = fields_of(state, FORMAT, names if follows else names - {"follow"})
        del fields["format"]
        if follows:
            where = fields["follow"]
            if not isinstance(where, Mapping) or set(where) != set(Following.__dataclass_fields__):
                raise StateError(f"the state's follow {where!r:.100} must have the fields "
                                 f"{', '.join(Following.__dataclass_fields__)}.")  # fmt: skip
            fields["follow"] = Following(**where)
        return cls(**fields)

    def check_dataset(self, dataset: str) -> None:
        """Raise StateError if this is the state of another dataset. A copy elsewhere is the same one."""
        if dataset != self.dataset:
            raise StateError(f"the state is of dataset {self.dataset}, but this stream reads dataset {dataset}.")

    def check_follow(self, group: int | None) -> None:
        """Raise StateError unless this state follows as a stream does: None for not at all, 1 is any group's default.
        """
        if (self.follow is None) != (group is None):
            with_, without = ("with", "without") if group is None else ("without", "with")
            raise StateError(f"the state was saved by a stream {with_} follow=True, but this one is {without} it.")
        if group not in (None, 1, self.follow and self.follow.group):
            raise StateError(f"the state was saved with follow_group={self.follow.group}, but this "
                             f"stream was given follow_group={group}.")  # fmt: skip

    def check_position(self, num_samples: int) -> None:
        """Raise StateError if the position lies outside an epoch of ``num_samples``."""
        if self.position > num_samples:
            raise StateError(
                f"the state's position {self.position} is past the {num_samples} samples of version {self.version}."
            )

    def check_arguments(self, *, version: int | None = None, shuffle: bool | None = None, seed: int | None = None,
                        lanes: int | None = None, window: int | None = None) -> None:  # fmt: skip
        """Raise StateError if an argument that was given says otherwise than the state; ``None`` was not given.

        An order is what it is from its first sample on: it comes from the state, or not at all.
        """
        given = {"version": version, "shuffle": shuffle, "lanes": lanes}
        given["seed"] = None if seed is None else normalize_seed(seed)
        given["window"] = None if window is None else resolve_window(self.lanes, 0, window)
        for name, value in given.items():
            if value is not None and value != getattr(self, name):
                raise StateError(
                    f"the state was saved with {name}={getattr(self, name)}, but this stream was given {name}={value}; "
                    f"leave {name} out to go on in the state's order, or do not load the state."
                )


def fields_of(state: Any, known_format: int, names: Iterable[str]) -> dict[str, Any]:
    """Return ``state`` as a dict of exactly the fields ``names``, or raise StateError."""
    if not isinstance(state, Mapping):
        raise StateError(f"a state must be a dict, not {type(state).__name__}.")
    if "format" not in state:
        raise StateError("this dict is not a state: it has no field 'format'.")
    if state["format"] != known_format or isinstance(state["format"], bool):
        raise StateError(
            f"the state's format {state['format']!r} is not known here; this version reads format {known_format}."
        )
    names = set(names)
    if missing := sorted(names - set(state)):
        raise StateError(f"the state lacks the fields {', '.join(missing)}.")
    if unknown := sorted(str(name) for name in set(state) - names):
        raise StateError(f"the state has fields that format {known_format} does not have: {', '.join(unknown)[:200]}.")
    return dict(state)


def check_integer(name: str, value: Any, low: int, high: int) -> None:
    """Raise StateError unless ``value`` is an int, and no bool, in ``[low, high]``."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise StateError(f"the state's {name} {value!r:.100} must be an integer in [{low}, {high}].")

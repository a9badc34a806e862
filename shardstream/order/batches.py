"""Positions of each batch, rank and worker, and how an epoch ends. Integers in, integers out.

A run that starts at position ``c`` takes global batch ``t`` from the positions
``[c + t * B, c + (t + 1) * B)``, ``B = batch_size * world_size``. Of these, rank ``r`` owns those equal to
``r`` modulo ``world_size``, and its worker ``w`` of ``W`` those equal to ``r + world_size * w`` modulo
``world_size * W``. So what the whole job has consumed is a prefix of the epoch after every batch,
whatever the topology; and the same ``B`` from the same ``c`` gives the same global batches on each.

The last batch may be short, down to no rows on some ranks; every rank has the same number of batches.
``drop_last=True`` leaves a short one out. ``drop_last="pad"`` fills it up with positions from
``num_samples`` on, which stand for the epoch's start: position ``p`` is sample ``p mod num_samples``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from shardstream.errors import ConfigError
from shardstream.locks import lazy


@dataclass(frozen=True)
class BatchPlan:
    """The batches from ``start_position`` to the end of an epoch.

    Attributes:
        num_samples: Samples of the epoch.
        start_position: Samples of it that the job had consumed before, from 0 to ``num_samples``; any
            number, it need not be a multiple of anything.
        batch_size: Rows of a full batch on one rank. A stream of samples is ``batch_size=1``.
        world_size: Ranks.
        drop_last: ``False``, ``True`` or ``"pad"``.
    """

    num_samples: int
    start_position: int
    batch_size: int
    world_size: int
    drop_last: bool | str = False

    def __post_init__(self):
        if self.drop_last != "pad" and not isinstance(self.drop_last, bool):
            raise ConfigError(f"drop_last={self.drop_last!r} must be False, True or 'pad'.")
        if self.batch_size < 1 or self.world_size < 1:
            raise ConfigError(f"batch_size={self.batch_size} and world_size={self.world_size} must be at least 1.")
        if not 0 <= self.start_position <= self.num_samples:
            raise ConfigError(f"start_position={self.start_position} must be in [0, {self.num_samples}].")

    @property
    def global_batch_size(self) -> int:
        """Rows of a full batch on all ranks together."""
        return self.batch_size * self.world_size

    @lazy
    def num_batches(self) -> int:
        """Batches from ``start_position`` on: the same on every rank."""
        full, rest = divmod(self.num_samples - self.start_position, self.global_batch_size)
        return full + (rest > 0 and self.drop_last is not True)

    @property
    def end_position(self) -> int:
        """One past the last position that a batch takes, the filling of a padded one included."""
        return self.start_position + self._taken(self.num_batches)

    def _taken(self, num_batches: int) -> int:
        taken = num_batches * self.global_batch_size
        return taken if self.drop_last == "pad" else min(taken, self.num_samples - self.start_position)

    def span(self, batch: int) -> tuple[int, int]:
        """Return ``(begin, end)``: the positions of global batch ``batch``."""
        if not 0 <= batch < self.num_batches:
            raise IndexError(f"batch {batch} is not in [0, {self.num_batches}).")
        return self.start_position + self._taken(batch), self.start_position + self._taken(batch + 1)

    def positions(self, batch: int, rank: int, worker: int = 0, num_workers: int = 1) -> range:
        """Return the positions of ``batch`` that ``worker`` of ``rank`` owns, ascending.

        Those from ``num_samples`` on, which only ``drop_last="pad"`` has, are filling: sample
        ``position mod num_samples``, with ``__pad__`` true.
        """
        begin, end = self.span(batch)
        return owned(begin, end, rank, self.world_size, worker, num_workers)

    def nums_positions(self, rank: int, worker: int = 0, num_workers: int = 1) -> Iterator[int]:
        """Yield how many positions of each batch ``worker`` of ``rank`` owns: the lengths of :meth:`positions`."""
        step = self.world_size * num_workers
        first = _first(self.start_position, rank + self.world_size * worker, step)
        for end in self._ends():
            num = max(0, -((first - end) // step))  # the ceiling
            first += num * step
            yield num

    def positions_after(self) -> Iterator[int]:
        """Yield :meth:`position_after` of 1, 2, ... batches."""
        return (min(end, self.num_samples) for end in self._ends())

    def _ends(self) -> Iterator[int]:
        """Yield one past the last position of each batch."""
        full_end, step = self.start_position + self.num_batches * self.global_batch_size, self.global_batch_size
        last = full_end if self.drop_last == "pad" else self.num_samples
        return (min(end, last) for end in range(self.start_position + step, full_end + 1, step))

    def all_positions(self, rank: int, worker: int = 0, num_workers: int = 1) -> range:
        """Return the positions of all batches that ``worker`` of ``rank`` owns, ascending."""
        return owned(self.start_position, self.end_position, rank, self.world_size, worker, num_workers)

    def first_worker(self, batch: int, rank: int, num_workers: int) -> int:
        """Return which worker made row 0 of this rank's ``batch``; row ``i`` is of ``(it + i) mod num_workers``."""
        begin, _ = self.span(batch)
        return _first(begin, rank, self.world_size) // self.world_size % num_workers

    def position_after(self, num_batches: int) -> int:
        """Return the job's position when ``num_batches`` batches have been delivered: what a state holds."""
        if not 0 <= num_batches <= self.num_batches:
            raise IndexError(f"{num_batches} batches are not in [0, {self.num_batches}].")
        return min(self.start_position + self._taken(num_batches), self.num_samples)


def owned(begin: int, end: int, rank: int, world_size: int, worker: int = 0, num_workers: int = 1) -> range:
    """Return the positions in ``[begin, end)`` of ``worker`` of ``rank``, as a range of constant step."""
    if not 0 <= rank < world_size or not 0 <= worker < num_workers:
        raise ConfigError(f"rank {rank} of {world_size} or worker {worker} of {num_workers} does not exist.")
    step = world_size * num_workers
    return range(_first(begin, rank + world_size * worker, step), end, step)


def _first(begin: int, residue: int, modulus: int) -> int:
    """Return the smallest number from ``begin`` on that is ``residue`` modulo ``modulus``."""
    return begin + (residue - begin) % modulus


def num_batches(num_samples: int, start_position: int, batch_size: int, world_size: int,
                drop_last: bool | str) -> int:  # fmt: skip
    """Return the batches of each rank from ``start_position`` to the end of the epoch."""
    return BatchPlan(num_samples, start_position, batch_size, world_size, drop_last).num_batches


def state_position(epoch: int, plan: BatchPlan, num_delivered: int, ended: bool) -> tuple[int, int]:
    """Return ``(epoch, position)`` for a state after ``num_delivered`` batches.

    Inside the loop a state after the last batch is still of this epoch, so that a resume ends it at once;
    when the iterator has ended (``ended``) it is the beginning of the next.
    """
    return (epoch + 1, 0) if ended else (epoch, plan.position_after(num_delivered))

"""``ReplayStream``: new samples as they come, mixed with older ones: what ``ss.mix`` makes of a stream that follows.

A mixture of sources that end (``mixture.py``) draws in lanes, and lanes get ahead of each other; a source that grows
would have to wait for the slowest. So here each batch has a fixed number of rows of every source, and each source is a
stream of its own, of which a prefix is consumed: a batch can be made as soon as its new rows are there.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from shardstream.buffers import BufferPool
from shardstream.collate import join
from shardstream.errors import ConfigError, StateError
from shardstream.joined import JoinedSource, check_columns
from shardstream.order.mix import resolve_weights
from shardstream.order.state import State, fields_of
from shardstream.rowmaker import Report
from shardstream.stats import Stats
from shardstream.stream import ShardStream

FORMAT, ORDER = 1, "replay-1"


def rows_of_each(batch_size: int, weights: Sequence[float]) -> list[int]:
    """Return how many rows of a batch are of each source: in proportion, by largest remainder, at least one; they sum
    to ``batch_size``.
    """
    shares = [Fraction(weight) for weight in weights]  # floats near their largest have no sum
    exact = [batch_size * share / sum(shares) for share in shares]
    rows = [max(1, int(share)) for share in exact]
    while sum(rows) != batch_size:
        step = 1 if sum(rows) < batch_size else -1
        places = [place for place in range(len(rows)) if rows[place] + step > 0]
        rows[max(places, key=lambda place: step * (exact[place] - rows[place]))] += step
    return rows


@dataclass(frozen=True)
class ReplayState:
    """Where every source of such a mixture stands, after the last batch that was received."""

    sources: tuple[State, ...]

    def to_dict(self) -> dict:
        """Return the dict to save."""
        return {"format": FORMAT, "order": ORDER, "sources": [state.to_dict() for state in self.sources]}


class ReplayStream(ShardStream):
    """See :func:`shardstream.mix`. Rows of a batch stand source by source, in the order of the streams.

    Its state is that of every source; ``freshness``, ``lag`` and ``stop()`` are those of the one that follows, and like
    that one it has no length. ``report`` and ``stats`` count for all sources, and ``source`` has them all.
    """

    def __init__(self, streams: Sequence[ShardStream], weights: Sequence[float]):
        following = [stream for stream in streams if stream._follow is not None]
        if len(following) != 1:
            raise ConfigError(f"one stream of a mixture may follow, not {len(following)} of {len(streams)}.")
        self.batch_size, self.report, self.stats = streams[0].batch_size, Report(), Stats()
        if self.batch_size is None or self.batch_size < len(streams):
            raise ConfigError("a mixture with a stream that follows needs batch_size= of at least "
                              f"{len(streams)}, a row of each source.")  # fmt: skip
        if 0 in resolve_weights(weights):
            raise ConfigError(f"weights={list(weights)!r} must all be above 0, with a stream that follows.")
        self.parts = [copy.copy(stream) for stream in streams]  #: each delivers its rows of the batches
        for part, rows in zip(self.parts, rows_of_each(self.batch_size, weights)):
            part.batch_size, part.report, part.stats = rows, self.report, self.stats
            part._epochs = part._epochs if part._follow is not None else None  # older samples come again and again
        self._followed = self.parts[[part._follow is not None for part in self.parts].index(True)]
        self.recipe, self._follow = self._followed.recipe, self._followed._follow
        self._states: list[State] | None = None  # of the parts, after the last batch delivered
        self._iterator, self._is_checked, self._pool = 0, False, BufferPool()

    def __getstate__(self) -> dict:
        return self.__dict__  # the parts travel as streams do

    def __iter__(self) -> Iterator[Any]:
        return self.joined([iter(part) for part in self.parts])

    def joined(self, iterators: Sequence[Iterator[Any]], finish: Callable[[Any], Any] | None = None) -> Iterator[Any]:
        """Yield batches of the rows that iterators of the parts deliver; what ``__iter__`` is made of, for loaders."""
        self._check_columns()
        self._iterator += 1
        return self._joined(self._iterator, iterators, finish)

    def _joined(self, iterator: int, iterators: Sequence[Iterator[Any]], finish) -> Iterator[Any]:
        place, is_done = self.parts.index(self._followed), False
        received, is_by_row = [part.state for part in self.parts], not getattr(self.recipe.transform, "shardstream_batched", False)
        try:
            while (fresh := next(iterators[place], None)) is not None:  # first, since it may be the end
                batch = join([fresh if i == place else next(one) for i, one in enumerate(iterators)], self._pool,
                             is_by_row)  # fmt: skip
                batch = batch if finish is None else finish(batch)
                self._states = received = [part.state for part in self.parts]
                yield batch
                self._check_iterator(iterator)
            is_done = True
        finally:
            for one in iterators:
                one.close()
            if not is_done and iterator == self._iterator:  # rows of a batch that failed half way come again
                for part, state in zip(self.parts, received):
                    part._state, part._position = state, state.position

    def _check_columns(self) -> None:
        if not self._is_checked:
            check_columns([part.source.schema for part in self.parts], self.parts[0].recipe.fields)
            self._is_checked = True

    def set_epoch(self, epoch: int) -> None:
        """Do nothing for epoch 0, the only one; any other is a ConfigError."""
        self._followed.set_epoch(epoch)

    @property
    def state(self) -> ReplayState:
        """The state as an object; :meth:`state_dict`, its JSON form, is under 2 kB and the same on every rank."""
        self._check_columns()
        return ReplayState(tuple(self._states or (part.state for part in self.parts)))

    @property
    def source(self) -> JoinedSource:
        """The sources being read, each of the version that was pinned when the stream was first used."""
        self._check_columns()
        return JoinedSource(tuple(part.source for part in self.parts))

    def load_state_dict(self, state: dict) -> None:
        """Go on where ``state`` was taken, with any number of ranks and workers, any batch size and the weights given
        to ``mix``.

        Raises:
            StateError: The state is malformed, of other datasets, or contradicts an explicit argument.
        """
        if not isinstance(state, dict) or state.get("order") != ORDER:
            raise StateError("this is not the state of a mixture with a stream that follows; load it "
                             "into the stream that it was saved of.")  # fmt: skip
        sources = fields_of(state, FORMAT, ("format", "order", "sources"))["sources"]
        if not isinstance(sources, list) or len(sources) != len(self.parts):
            raise StateError(f"the state's sources must be a list of {len(self.parts)}, as many as this mixture has.")
        loaded = [copy.copy(part) for part in self.parts]
        for part, source in zip(loaded, sources):
            part.load_state_dict(source)
        self._iterator += 1  # all fit, so none is loaded without the others
        for part, source in zip(self.parts, sources):
            part.load_state_dict(source)
        self._states = None

    @property
    def freshness(self) -> float | None:
        return self._followed.freshness

    @property
    def lag(self) -> int | None:
        return self._followed.lag

    def stop(self) -> None:
        self._followed.stop()

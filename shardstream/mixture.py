"""``mix``: one stream that draws from several, by weights, with an exact state.

The draws are ``order/mix.py``'s, in blocks with exact numbers inside each lane, so that a reader reads its own lanes of
every source; which rows they are is ``order/mix_rows.py``'s. From there on a mixture is read as one source is
(``joined.py``): one window, one set of threads, and one C call a column and batch.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import accumulate
from typing import Any

from shardstream.errors import ConfigError, EmptyDatasetError, StateError
from shardstream.job import current_place
from shardstream.joined import JoinedReader, JoinedSource, check_columns
from shardstream.order.batches import BatchPlan
from shardstream.order.epoch import MAX_EPOCH, normalize_seed, resolve_window
from shardstream.order.mix import MAX_SOURCES, MixOrder, Piece
from shardstream.order.mix_rows import mix_order
from shardstream.order.mix_state import MixState, SourceState, is_mix
from shardstream.order.state import State, check_integer
from shardstream.replay import ReplayStream
from shardstream.rowmaker import Recipe, Report
from shardstream.stats import Stats
from shardstream.stream import ShardStream

# What a batch is made by; the rest (URLs, versions, seeds, windows, storage) is each source's own.
SHARED = ("fields", "forms", "transform", "on_error", "allow_unsafe", "read", "pad")


def mix(streams: Sequence[ShardStream], weights: Sequence[float] | None = None, seed: int = 0,
        stop: str = "first") -> MixStream | ReplayStream:  # fmt: skip
    """Return a stream whose samples come from ``streams`` in the proportion of ``weights``.

    It is a ShardStream: batches, ``StreamLoader`` with workers, ``set_epoch`` and states are as with one. In each of a
    stream's lanes, every 1,024 draws have fixed numbers of each source, in a random order that is a function of
    ``seed`` and the epoch. Each source is shuffled as it would be alone, and in its next epoch whenever it comes again.

    If one of the streams follows, each batch has a fixed number of rows of every stream, in proportion of the weights
    and at least one, source by source: new samples come as soon as a batch's are there, each once, and older ones again
    and again, until the log ends. That has ``batch_size=``, but no ``seed`` and ``stop``. Where an epoch of an older
    source ends, its share of a batch is shorter (``drop_last=True`` leaves it out); ``StreamLoader`` makes
    ``num_workers`` for each source.

    Args:
        streams: 2 to 64 ShardStreams that deliver the same columns and have the same ``batch_size``, ``drop_last``,
            ``epochs``, ``transform`` and other arguments of what a batch is. They stay usable by themselves.
        weights: One for each; only their proportions count. Other weights than those of a loaded state hold from its
            position on. By default those of the state, and equal ones at the beginning.
        seed: Of the draws.
        stop: How an epoch ends: "first" when a lane has nothing left of a source it would draw from (for sources of
            few samples a lane this is some percent before its end); "rest" when everything was delivered once, draws
            from a source that is used up being passed over; "repeat" when the last source has been delivered
            once, those used up going on with their next epochs.

    Raises:
        ConfigError: An argument is not legal, or the streams do not fit together.
        SchemaError: They have different columns; at the first use, as all errors of the data.
    """
    if isinstance(streams, ShardStream) or not isinstance(streams, Iterable):
        raise ConfigError(f"ss.mix takes a list of ss.ShardStream, not {type(streams).__name__}.")
    streams = list(streams)
    for stream in streams:
        if type(stream) is not ShardStream:
            raise ConfigError(f"ss.mix takes a list of ss.ShardStream, not of {type(stream).__name__}; a "
                              "mixture is not mixed again.")  # fmt: skip
    if not 2 <= len(streams) <= MAX_SOURCES:
        raise ConfigError(f"ss.mix takes 2 to {MAX_SOURCES} streams, not {len(streams)}.")
    begin = (1,) * len(streams) if weights is None else _checked_weights(weights)
    MixOrder([1] * len(streams), seed=seed, epoch=0, lanes=1, pieces=[Piece(0, begin)], stop=stop)  # checks them
    for number, stream in enumerate(streams):
        _check_alike(streams[0], stream, number)
    if all(stream._follow is None for stream in streams):
        return MixStream(streams, None if weights is None else begin, seed, stop)
    if (seed, stop) != (0, "first"):
        raise ConfigError("seed= and stop= have no meaning with a stream that follows: its batches have "
                          "fixed numbers of rows, and end with the log.")  # fmt: skip
    return ReplayStream(streams, begin)


def _checked_weights(weights: Any) -> tuple[float, ...]:
    """Return weights as a tuple of Python's numbers, which a state has; those of numpy and torch are as good."""
    if isinstance(weights, (str, bytes, Mapping)) or not isinstance(weights, Iterable):
        raise ConfigError(f"weights={weights!r:.100} must be a list of numbers, one for each stream, or None.")
    try:
        plain = tuple(weight.item() if hasattr(weight, "item") else weight for weight in weights)
        all(float(weight) for weight in plain if isinstance(weight, int))
    except (ValueError, RuntimeError, OverflowError) as error:  # rows of a matrix; integers that no float holds
        raise ConfigError(f"weights={weights!r:.100} must be a list of numbers, one for each "
                          "stream, or None.") from error  # fmt: skip
    if any(isinstance(weight, bool) for weight in plain):
        raise ConfigError(f"weights={list(plain)!r:.100} must be numbers, not bools.")
    return plain


@dataclass(frozen=True)
class MixRecipe(Recipe):
    """The recipe that all sources share, with each one's own way to its storage."""

    parts: tuple[Recipe, ...] = ()

    def reader(self, source: JoinedSource) -> JoinedReader:
        return JoinedReader([part.reader(one) for part, one in zip(self.parts, source.sources, strict=True)])


class MixStream(ShardStream):
    """See :func:`mix`. Its ``report`` counts what all sources lost; ``source`` is all of them together.

    A source is asked for no more than a ShardStream that is opened has: ``source``, with the samples of its shards, and
    ``state``, from which the orders of its epochs follow.
    """

    def __init__(self, streams: Sequence[ShardStream], weights: tuple[float, ...] | None, seed: int, stop: str):
        self._streams = [copy.copy(stream) for stream in streams]
        first = streams[0]
        self._weights, self._seed, self._stop = weights, normalize_seed(seed), stop
        parts = tuple(stream.recipe for stream in streams)
        self.recipe = MixRecipe(**{one.name: getattr(first.recipe, one.name) for one in fields(Recipe)}, parts=parts)
        self.batch_size, self.report, self.stats = first.batch_size, Report(), Stats()
        self._epochs, self._drop_last = first._epochs, first._drop_last
        self._asked_place = self._place = first._asked_place
        self._follow = self._follower = None
        self._source: JoinedSource | None = None
        self._loaded: MixState | None = None
        self._is_loaded = False
        self._reader, self._iterator, self._has_warned_of_lanes = None, 0, False
        self._no_rows = self._looked_at = None
        self._mix: tuple[MixState, MixOrder] | None = None  # the draws of the epoch of this state

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of an epoch; does nothing if the stream is in it already.

        Which epochs of a source it begins with depends on all before it, so those are counted through: about 50 ms
        each.
        """
        check_integer("epoch", epoch, 0, MAX_EPOCH)
        self._open()
        if epoch == self._state.epoch:
            return
        state = self._state if epoch > self._state.epoch else self._state.first_epoch(self._weights or self._state.pieces[-1].weights)
        while state.epoch < epoch:
            state = self._after(state)
        self._state, self._position = state, 0
        self._iterator += 1

    def load_state_dict(self, state: dict) -> None:
        """Go on where ``state`` was taken, with any number of ranks and workers, any batch size, and the weights given
        to ``mix``.

        Raises:
            StateError: The state is malformed, of other datasets, or contradicts an explicit argument.
        """
        if not is_mix(state):
            raise StateError("this is not the state of a mixture; load it into the stream that it was saved of.")
        before, self._loaded, self._source = (self._loaded, self._source), MixState.from_dict(state), None
        try:
            self._open()
        except BaseException:
            self._loaded, self._source = before
            raise
        self._is_loaded = True
        self._iterator += 1

    def plan(self, start_position: int, world_size: int | None = None) -> BatchPlan:
        self._open()
        return BatchPlan(self._draws().num_samples, start_position, self.batch_size or 1, world_size or self._place[1],
                         self._drop_last)  # fmt: skip

    # -- opening ----------------------------------------------------------------------------------

    def _open(self) -> None:
        if self._source is not None:
            return
        self._place = self._place or current_place()
        if self._loaded is not None:
            self._load_sources(self._loaded)
        sources = JoinedSource(tuple(stream.source for stream in self._streams))
        check_columns([source.schema for source in sources.sources], self.recipe.fields)
        state = self._first_state() if self._loaded is None else self._loaded
        if self._weights is not None:
            state = state.with_weights(self._weights)
        mix = mix_order(state, [source.total_samples for source in sources.sources])
        if mix.num_samples == 0:
            raise EmptyDatasetError(f"the mixture ends before its first sample: sources of {list(mix.source_num_samples)} samples on {state.lanes} "
                                    "lanes leave a lane without one; give the streams fewer lanes=, or stop='rest'.")  # fmt: skip
        if state.position > mix.num_samples:
            raise StateError(f"the state's position {state.position} is past the {mix.num_samples} "
                             "samples of the mixture.")  # fmt: skip
        self._state, self._position, self._mix = state, state.position, (state, mix)
        self._source, self._reader = sources, None

    def _load_sources(self, loaded: MixState) -> None:
        """Bring the sources to what a state says of them, which each checks as a state of its own."""
        if len(loaded.sources) != len(self._streams):
            raise StateError(f"the state mixes {len(loaded.sources)} sources, but this mixture has "
                             f"{len(self._streams)}.")  # fmt: skip
        for name, mine in (("stop", self._stop), ("seed", self._seed)):
            if mine and mine != getattr(loaded, name):  # seed=0 is the default, and says nothing
                raise StateError(f"the state was saved with {name}={getattr(loaded, name)}, but this "
                                 f"mixture was given {name}={mine}; only weights may change.")  # fmt: skip
        for stream, one in zip(self._streams, loaded.sources, strict=True):
            stream.load_state_dict(State(one.dataset, one.version, one.order, one.seed, one.epoch, loaded.lanes, one.window, 0).to_dict())

    def _first_state(self) -> MixState:
        """Return the state at the beginning of epoch 0, with lanes and windows resolved once for all epochs."""
        states = [stream.state for stream in self._streams]
        lanes = {state.lanes for state in states}
        if len(lanes) > 1:
            raise ConfigError(f"the streams of a mixture share their lanes, but have {sorted(lanes)}: "
                              "give all the same shuffle= and lanes=.")  # fmt: skip
        counts = [stream.source.total_samples for stream in self._streams]
        bases = [0, *accumulate(counts[:-1])]
        sources = []
        for stream, state, base in zip(self._streams, states, bases, strict=True):
            # All windows are held at once, so together they have the bytes that one has by default.
            size = stream.source.mean_decoded_nbytes * len(states)
            window = resolve_window(state.lanes, size) if state.shuffle and stream._asked["window"] is None else state.window
            sources.append(SourceState(state.dataset, state.version, state.order, state.seed, 0, window, base))
        weights = self._weights or (1,) * len(sources)
        return MixState(self._seed, 0, states[0].lanes, 0, self._stop, (Piece(0, weights),), tuple(sources))

    # -- epochs -----------------------------------------------------------------------------------

    def _draws(self) -> MixOrder:
        """Return the draws of the epoch that the stream is in."""
        if self._mix is None or self._mix[0] is not self._state:
            self._mix = self._state, mix_order(self._state, [source.total_samples for source in self._source.sources])
        return self._mix[1]

    def _next_epoch(self) -> MixState:
        return self._after(self._state)

    def _after(self, state: MixState) -> MixState:
        """Return the state at the beginning of the epoch after that of ``state``."""
        mix = self._draws() if state is self._state else mix_order(state, [source.total_samples for source in self._source.sources])
        return replace(state, position=mix.num_samples).next_epoch(mix.num_repetitions())


def _check_alike(first: ShardStream, other: ShardStream, number: int) -> None:
    """Raise ConfigError if two streams do not make the same kind of batches."""
    mine, its = ({"batch_size": stream.batch_size, "drop_last": stream._drop_last, "epochs": stream._epochs, "rank, world_size": stream._asked_place,
                  **{name: getattr(stream.recipe, name) for name in SHARED}} for stream in (first, other))  # fmt: skip
    for name in mine:
        if mine[name] != its[name]:
            raise ConfigError(f"the streams of a mixture must have the same {name}, but stream 0 has "
                              f"{mine[name]!r} and stream {number} {its[name]!r}.")  # fmt: skip

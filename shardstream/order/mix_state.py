"""The dict that a run over a mixture saves: as ``state``, with the mixture's pieces and its sources.

What each source has delivered is not in it: that follows from the position and the pieces. It stays under
1 kB and 300 bytes a source, the same on every rank. docs/FORMAT.md section 8.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from shardstream.errors import StateError
from shardstream.order.epoch import MAX_EPOCH, MAX_LANES, MAX_SAMPLES
from shardstream.order.mix import MAX_PIECES, MAX_SOURCES, STOPS, Piece, resolve_weights
from shardstream.order.state import SHUFFLE, State, check_integer, fields_of

FORMAT = 1
ORDER = "mix-1"
MAX_NBYTES, MAX_SOURCE_NBYTES = 1000, 300


@dataclass(frozen=True)
class SourceState:
    """One source of a mixture, as its own state says it.

    Attributes:
        epoch: Of its repetition 0; repetition ``i`` is epoch ``epoch + i``.
        base: Where its course begins among the lanes: the samples of the sources before it.
    """

    dataset: str
    version: int | None
    order: str
    seed: int
    epoch: int
    window: int
    base: int

    @property
    def shuffle(self) -> bool:
        """Whether the order is a shuffled one."""
        return self.order == SHUFFLE


@dataclass(frozen=True)
class MixState:
    """A position in an epoch of a mixture, and all that its order depends on."""

    seed: int
    epoch: int
    lanes: int
    position: int
    stop: str
    pieces: tuple[Piece, ...]
    sources: tuple[SourceState, ...]

    def __post_init__(self):
        for name, low, limit in (
            ("seed", 0, 2**64 - 1),
            ("epoch", 0, MAX_EPOCH),
            ("lanes", 1, MAX_LANES),
            ("position", 0, MAX_SAMPLES),
        ):
            check_integer(name, getattr(self, name), low, limit)
        if self.stop not in STOPS:
            raise StateError(f"the state's stop {self.stop!r} is not one of {', '.join(STOPS)}.")
        if not 0 < len(self.sources) <= MAX_SOURCES:
            raise StateError(f"the state's sources must be 1 to {MAX_SOURCES}, not {len(self.sources)}.")
        for source in self.sources:
            # A source alone is a plain state at position 0: the same rules hold.
            State(source.dataset, source.version, source.order, source.seed, source.epoch, self.lanes, source.window, 0)
            check_integer("base", source.base, 0, MAX_SAMPLES)
        self._check_pieces()
        if (nbytes := len(json.dumps(self.to_dict()))) >= self._max_nbytes:
            raise StateError(
                f"the state has {nbytes} bytes, over {self._max_nbytes}: weights were changed too often in one epoch "
                f"({len(self.pieces) - 1} times)."
            )

    @property
    def _max_nbytes(self) -> int:
        return MAX_NBYTES + MAX_SOURCE_NBYTES * len(self.sources)

    def _check_pieces(self) -> None:
        positions = [piece.position for piece in self.pieces]
        for piece in self.pieces:
            check_integer("pieces", piece.position, 0, self.position)
            if len(piece.weights) != len(self.sources) or not all(_is_weight(weight) for weight in piece.weights):
                raise StateError(
                    f"the state's pieces must have {len(self.sources)} weights each, not {piece.weights!r:.100}."
                )
        if not positions or positions[0] != 0 or positions != sorted(set(positions)):
            raise StateError(f"the state's pieces must begin at 0 and ascend, not {positions!r:.100}.")

    @property
    def shuffle(self) -> bool:
        """Whether the sources' orders are shuffled ones."""
        return self.sources[0].shuffle

    def to_dict(self) -> dict[str, Any]:
        """Return the dict to save."""
        return {
            "format": FORMAT,
            "order": ORDER,
            "seed": self.seed,
            "epoch": self.epoch,
            "lanes": self.lanes,
            "position": self.position,
            "stop": self.stop,
            "pieces": [[piece.position, list(piece.weights)] for piece in self.pieces],
            "sources": [asdict(source) for source in self.sources],
        }

    @classmethod
    def from_dict(cls, state: Mapping) -> MixState:
        """Return the state of :meth:`to_dict`'s dict; raises StateError naming what is wrong with any other value."""
        fields = fields_of(state, FORMAT, ("format", "order", *cls.__dataclass_fields__))
        if fields.pop("order") != ORDER:
            raise StateError(f"the state's order {state['order']!r} is not known here; this version knows {ORDER}.")
        del fields["format"]
        try:
            fields["pieces"] = tuple(Piece(position, tuple(weights)) for position, weights in fields["pieces"])
            fields["sources"] = tuple(SourceState(**source) for source in fields["sources"])
        except (TypeError, ValueError) as error:
            names = ", ".join(SourceState.__dataclass_fields__)
            raise StateError(
                f"the state's pieces must be [position, weights], and its sources dicts of {names}."
            ) from error
        return cls(**fields)

    def check_sources(self, datasets: Sequence[str]) -> None:
        """Raise StateError unless the sources are of these datasets, in this order."""
        mine = [source.dataset for source in self.sources]
        if list(datasets) != mine:
            raise StateError(
                f"the state mixes datasets {', '.join(mine)}, but this mixture is of {', '.join(datasets)}."
            )

    def with_weights(self, weights: Sequence[float]) -> MixState:
        """Return the state with these weights from its position on; itself if their proportions hold already.

        Raises:
            StateError: It would have no room for them.
        """
        before = tuple(piece for piece in self.pieces if piece.position < self.position)
        wanted = resolve_weights(weights)
        if wanted == resolve_weights(self.pieces[-1].weights):
            return self
        # what was changed here and not used is changed back
        if before and wanted == resolve_weights(before[-1].weights):
            return replace(self, pieces=before)
        pieces = (*before, Piece(self.position, _shortest(tuple(weights), wanted)))
        if before:
            self._check_room(pieces)
        return replace(self, pieces=pieces)

    def _check_room(self, pieces: tuple[Piece, ...]) -> None:
        """Raise StateError unless a state with these pieces stays small enough to the end of its epoch."""
        later = {**self.to_dict(), "pieces": [[piece.position, list(piece.weights)] for piece in pieces],
                 "position": MAX_SAMPLES}  # fmt: skip
        if len(pieces) > MAX_PIECES or len(json.dumps(later)) >= self._max_nbytes:
            raise StateError(
                f"weights were changed {len(self.pieces) - 1} times in epoch {self.epoch}, and its state has no room for more: "
                f"go on with weights={list(self.pieces[-1].weights)} until the epoch ends, as each begins with one set of "
                "weights. Proportions of small integers, as [3, 1] for [0.75, 0.25], take the least room."
            )

    def first_epoch(self, weights: Sequence[float]) -> MixState:
        """Return the state at the beginning of epoch 0 of the same run, with these weights."""
        sources = tuple(replace(source, epoch=0) for source in self.sources)
        return replace(self, epoch=0, position=0, pieces=(Piece(0, tuple(weights)),), sources=sources)

    def next_epoch(self, num_repetitions: Sequence[int]) -> MixState:
        """Return the state at the beginning of the next epoch, whose sources go on with epochs not yet begun."""
        sources = tuple(
            replace(source, epoch=source.epoch + count)
            for source, count in zip(self.sources, num_repetitions, strict=True)
        )
        pieces = (Piece(0, self.pieces[-1].weights),)
        return replace(self, epoch=self.epoch + 1, position=0, pieces=pieces, sources=sources)


def _shortest(weights: tuple[float, ...], resolved: list[int]) -> tuple[float, ...]:
    """Return the weights as given, or the integers that mean the same draws, whichever are written in fewer bytes."""
    divisor = math.gcd(*resolved)
    integers = tuple(weight // divisor for weight in resolved)
    return min(weights, integers, key=lambda one: len(json.dumps(one)))


def _is_weight(weight: Any) -> bool:
    return isinstance(weight, (int, float)) and not isinstance(weight, bool) and math.isfinite(weight) and weight >= 0


def is_mix(state: Any) -> bool:
    """Return whether a saved dict is of a mixture."""
    return isinstance(state, Mapping) and state.get("order") == ORDER

"""States of mixtures: what State promises, for several sources and weights that change."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardstream.errors import StateError
from shardstream.order.mix import Piece, resolve_weights
from shardstream.order.mix_state import MixState, SourceState, is_mix

GOLDEN = Path(__file__).parent / "golden/state"
SOURCE = {
    "dataset": "0190a5f0-7c00-7000-8000-000000000001",
    "version": 12,
    "order": "shuffle-1",
    "seed": 7,
    "epoch": 3,
    "window": 16320,
    "base": 0,
}
GOOD = {
    "format": 1,
    "order": "mix-1",
    "seed": 5,
    "epoch": 1,
    "lanes": 96,
    "position": 5000,
    "stop": "rest",
    "pieces": [[0, [0.7, 0.3]], [4000, [1, 1]]],
    "sources": [SOURCE, {**SOURCE, "dataset": "list-00ff", "version": None, "base": 1000}],
}


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("mix-*.json")), ids=lambda path: path.stem)
def test_states_of_all_versions_load_and_are_written_the_same(path):
    """A mixture's state saved by any released version loads, and is saved again as it was."""
    saved = json.loads(path.read_text())
    assert is_mix(saved) and MixState.from_dict(saved).to_dict() == saved


def test_there_are_golden_states():
    """The folder of golden states is not empty."""
    assert len(list(GOLDEN.glob("mix-*.json"))) >= 2


@pytest.mark.parametrize("num_sources", [1, 2, 8, 64])
def test_the_largest_states_stay_below_1_kB_and_300_bytes_a_source(num_sources):
    """Whatever the numbers, the JSON is bounded and survives it."""
    source = SourceState("d" * 36, 2**62 - 1, "shuffle-1", 2**64 - 1, 2**62 - 1, 2**20 * 2**20, 2**62 - 1)
    weights = tuple(0.1 + i / 7 for i in range(num_sources))
    state = MixState(2**64 - 1, 2**62 - 1, 2**20, 2**62 - 1, "repeat", (Piece(0, weights),), (source,) * num_sources)
    text = json.dumps(state.to_dict())
    assert len(text) < 1000 + 300 * num_sources
    assert MixState.from_dict(json.loads(text)) == state


@pytest.mark.parametrize("name", list(GOOD))
def test_a_missing_field_is_named(name):
    """A state without one of its fields is refused by the field's name."""
    with pytest.raises(StateError, match=name):
        MixState.from_dict({key: value for key, value in GOOD.items() if key != name})


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"order": "mix-2"},
        {"stop": "end"},
        {"seed": -1},
        {"lanes": 0},
        {"epoch": "1"},
        {"position": 3999},
        {"pieces": []},
        {"pieces": [[1, [1, 1]]]},
        {"pieces": [[0, [1]]]},
        {"pieces": [[0, [1, "1"]]]},
        {"pieces": [[0, [1, -1]]]},
        {"pieces": 5},
        {"pieces": [[0, [1, 1]], [0, [1, 1]]]},
        {"pieces": [[0, [1, float("nan")]]]},
        {"sources": []},
        {"sources": [5, 6]},
        {"sources": [SOURCE, {**SOURCE, "seed": -1}]},
        {"sources": [SOURCE, {**SOURCE, "base": -1}]},
        {"sources": [SOURCE, {}]},
        {"sources": [SOURCE, {**SOURCE, "window": 95}]},
        {"sources": [SOURCE, {**SOURCE, "url": "x"}]},
        {"more": 1},
    ],
    ids=str,
)
def test_malformed_states_are_refused(change):
    """Anything that is not a state of this format is a StateError."""
    with pytest.raises(StateError, match="state"):
        MixState.from_dict({**GOOD, **change})


def test_other_sources_are_refused():
    """The sources are those of the state, in its order."""
    state = MixState.from_dict(GOOD)
    state.check_sources([SOURCE["dataset"], "list-00ff"])
    with pytest.raises(StateError, match="list-00ff"):
        state.check_sources(["list-00ff", SOURCE["dataset"]])


def later(state: MixState, num: int = 1) -> MixState:
    return replace(state, position=state.position + num)


def test_new_weights_hold_from_the_position_on():
    """A change appends a piece, replaces one that never came to hold, and no change leaves all as it is."""
    state = MixState.from_dict(GOOD)
    assert state.with_weights([1, 1]) is state
    changed = state.with_weights([1, 2])
    assert changed.pieces == (*state.pieces, Piece(5000, (1, 2)))
    assert changed.with_weights([3, 2]).pieces == (*state.pieces, Piece(5000, (3, 2)))


def test_the_same_proportions_are_no_change():
    """Whatever the numbers are: what means the same draws appends nothing, and a change taken back where it was made is
    none.
    """
    state = MixState.from_dict(GOOD).with_weights([3, 1])
    for same in ([0.75, 0.25], [3, 1], [3e9, 1e9], [0.75 + 1e-9, 0.25]):
        assert later(state).with_weights(same) == later(state)
    back = state.with_weights([1, 1])
    assert back == MixState.from_dict(GOOD) and back.with_weights([0.5, 0.5]) is back
    start = replace(state, position=0, pieces=(Piece(0, (3, 1)),))
    assert start.with_weights([1, 2]).pieces == (Piece(0, (1, 2)),)


@given(st.lists(st.floats(0.001, 1e6), min_size=2, max_size=2))
def test_weights_are_kept_in_the_fewest_bytes_and_mean_the_same_draws(weights):
    """A piece has the weights as given, or integers that resolve to the same."""
    state = MixState.from_dict(GOOD)
    kept = state.with_weights(weights).pieces[-1].weights
    assert resolve_weights(kept) == resolve_weights(weights)
    assert len(json.dumps(kept)) <= len(json.dumps(weights))


def test_too_many_changes_of_weights_are_refused():
    """A change too many in one epoch is a StateError that says what to do; the state it leaves fits to the epoch's end.
    """
    state, num = MixState.from_dict(GOOD), 0
    with pytest.raises(StateError, match=r"go on with weights=\[.*\] until the epoch ends"):
        for i in range(100):
            state, num = later(state).with_weights([1 / 3, 0.1 + i]), num + 1
    assert num > 30
    assert later(state).with_weights(state.pieces[-1].weights) == later(state)
    end = replace(state, position=2**62 - 1)
    assert MixState.from_dict(json.loads(json.dumps(end.to_dict()))) == end
    assert end.next_epoch([1, 1]).with_weights([1, 9]).pieces == (Piece(0, (1, 9)),)


def test_the_next_epoch_begins_with_the_last_weights_and_new_epochs_of_the_sources():
    """After the end the position is 0, one piece is left, and each source goes on after what it has begun."""
    state = MixState.from_dict(GOOD).next_epoch([1, 4])
    assert (state.epoch, state.position, state.pieces) == (2, 0, (Piece(0, (1, 1)),))
    assert [source.epoch for source in state.sources] == [4, 7]

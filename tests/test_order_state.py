"""States: small, exact, loadable for ever, and refused with a reason where they do not belong."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardstream.errors import StateError
from shardstream.order.state import Following, State, list_id

GOLDEN = Path(__file__).parent / "golden/state"
GOOD = {
    "format": 1,
    "dataset": "0190a5f0-7c00-7000-8000-000000000001",
    "version": 12,
    "order": "shuffle-1",
    "seed": 7,
    "epoch": 3,
    "lanes": 96,
    "window": 16320,
    "position": 123456,
}


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("state-*.json")), ids=lambda path: path.stem)
def test_states_of_all_versions_load_and_are_written_the_same(path):
    """A state saved by any released version loads, and is saved again as it was."""
    saved = json.loads(path.read_text())
    assert State.from_dict(saved).to_dict() == saved


def test_there_are_golden_states():
    """The folder of golden states is not empty."""
    assert len(list(GOLDEN.glob("state-*.json"))) >= 4


def test_a_state_has_exactly_the_documented_fields():
    """Nine fields, in this order, and nothing about topology or place."""
    assert list(State.from_dict(GOOD).to_dict()) == list(GOOD)


@given(st.integers(0, 2**62 - 1), st.integers(0, 2**64 - 1))
def test_the_largest_states_stay_below_1_kB(number, seed):
    """Whatever the numbers, the JSON is under 1 kB and survives it."""
    state = State("d" * 100, number, "shuffle-1", seed, number, 2**20, number // 2**20 * 2**20 or 2**20, number)
    text = json.dumps(state.to_dict())
    assert len(text) < 1000
    assert State.from_dict(json.loads(text)) == state


@pytest.mark.parametrize("name", list(GOOD))
def test_a_missing_field_is_named(name):
    """A state without one of its fields is refused by the field's name."""
    with pytest.raises(StateError, match=name):
        State.from_dict({key: value for key, value in GOOD.items() if key != name})


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"format": "1"},
        {"format": True},
        {"order": "shuffle-2"},
        {"order": None},
        {"dataset": ""},
        {"dataset": 5},
        {"dataset": "x" * 101},
        {"seed": -1},
        {"seed": 2**64},
        {"epoch": -1},
        {"epoch": 1.0},
        {"lanes": 0},
        {"lanes": 95},
        {"window": 0},
        {"window": True},
        {"position": -1},
        {"position": "5"},
        {"position": 2**62},
        {"version": -1},
        {"rank": 0},
        {"order": "sequence-1"},
    ],
    ids=str,
)
def test_malformed_states_are_refused(change):
    """Values of a wrong type or range, unknown formats, orders and fields are a StateError that names them."""
    with pytest.raises(StateError, match=next(iter(change)) if change != {"lanes": 95} else "multiple"):
        State.from_dict({**GOOD, **change})


@pytest.mark.parametrize("value", [None, [], "state", 7, {}, {"epoch": 3}])
def test_what_is_no_state_is_refused(value):
    """Anything but a state's dict is a StateError."""
    with pytest.raises(StateError):
        State.from_dict(value)


def test_another_dataset_is_refused():
    """Loading onto another dataset names both."""
    State.from_dict(GOOD).check_dataset(GOOD["dataset"])
    with pytest.raises(StateError, match=r"0190a5f0.*other"):
        State.from_dict(GOOD).check_dataset("other")


FOLLOWING = {**GOOD, "epoch": 0, "follow": {"after": 11, "base": 123000, "group": 1}}


def test_a_state_that_follows_has_one_field_more():
    """It says which segment its last sample is of: behind which version it begins, at which position, in which groups.
    """
    assert State.from_dict(FOLLOWING).to_dict() == FOLLOWING
    largest = State("d" * 100, 2**62 - 1, "shuffle-1", 2**64 - 1, 0, 2**20, 2**61, 2**62 - 1,
                    Following(2**62 - 1, 2**62 - 1, 2**62 - 1))  # fmt: skip
    assert len(json.dumps(largest.to_dict())) < 1000


@pytest.mark.parametrize("change", [
    {"follow": None}, {"follow": 3}, {"follow": {}}, {"follow": {"after": 1, "base": 2}}, {"epoch": 1}, {"version": None},
    *({"follow": {**FOLLOWING["follow"], name: value}} for name, value in [
        ("after", 13), ("after", -1), ("after", True), ("base", 123457), ("base", None), ("group", 0), ("group", "1"), ("more", 1)])])  # fmt: skip
def test_malformed_following_is_refused(change):
    """A segment that is none, or lies behind the position, is an error."""
    with pytest.raises(StateError):
        State.from_dict({**FOLLOWING, **change})


def test_a_position_past_the_epoch_is_refused():
    """A position may be the epoch's end, not more."""
    State.from_dict(GOOD).check_position(123456)
    with pytest.raises(StateError, match="123456"):
        State.from_dict(GOOD).check_position(123455)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"seed": 7},
        {"seed": 7 + 2**64},
        {"lanes": 96},
        {"window": 16384},
        {"window": 16320},
        {"shuffle": True},
        {"version": 12},
    ],
)
def test_arguments_that_agree_or_were_not_given_are_fine(arguments):
    """The same value, also as another way to write it, is no conflict."""
    State.from_dict(GOOD).check_arguments(**arguments)


@pytest.mark.parametrize(
    "arguments", [{"seed": 0}, {"lanes": 192}, {"window": 8192}, {"shuffle": False}, {"version": 13}]
)
def test_arguments_that_conflict_are_refused(arguments):
    """An explicit argument that differs from the state is an error that names it, not a silent change of order."""
    with pytest.raises(StateError, match=next(iter(arguments))):
        State.from_dict(GOOD).check_arguments(**arguments)


def test_a_list_is_known_by_names_sizes_and_counts_not_by_place():
    """A copy of the same shards elsewhere is the same dataset; another name, size, count or order is not."""
    shards = [("s3://bucket/a/000.tar", 1000, 10), ("s3://bucket/a/001.tar", 2000, 20)]
    assert list_id(shards) == list_id([("/data/000.tar", 1000, 10), ("/data/001.tar", 2000, 20)])
    others = [
        shards[::-1],
        shards[:1],
        [shards[0], ("x/001.tar", 2001, 20)],
        [shards[0], ("x/001.tar", 2000, 21)],
        [shards[0], ("x/002.tar", 2000, 20)],
    ]
    assert len({list_id(other) for other in [shards, *others]}) == 6
    assert list_id(shards) == "list-" + list_id(shards)[5:] and len(list_id(shards)) == 37

"""Batches, ranks, workers and ends of epochs: prefixes, equal counts, nothing twice."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardstream.errors import ConfigError
from shardstream.order.batches import BatchPlan, num_batches, owned, state_position

PLANS = st.builds(
    lambda n, skip, batch, world, drop: BatchPlan(n, min(skip, n), batch, world, drop),
    st.integers(0, 300),
    st.integers(0, 300),
    st.integers(1, 40),
    st.integers(1, 9),
    st.sampled_from([False, True, "pad"]),
)


@settings(max_examples=300, deadline=None)
@given(PLANS)
def test_a_global_batch_is_the_next_positions_dealt_to_ranks_by_residue(plan):
    """The ranks' rows of batch t are together positions [c + t*B, c + (t+1)*B), cut at the epoch's end or padded."""
    expected = list(range(plan.start_position, plan.num_samples))
    size = plan.global_batch_size
    if plan.drop_last is True:
        expected = expected[: len(expected) // size * size]
    elif plan.drop_last == "pad":
        expected += range(plan.num_samples, plan.num_samples + -len(expected) % size)
    batches = []
    for t in range(plan.num_batches):
        rows = [plan.positions(t, rank) for rank in range(plan.world_size)]
        assert all(p % plan.world_size == rank for rank, positions in enumerate(rows) for p in positions)
        batches.append(sorted(p for positions in rows for p in positions))
    assert batches == [expected[i : i + size] for i in range(0, len(expected), size)]


@given(PLANS)
def test_positions_after_each_batch(plan):
    assert list(plan.positions_after()) == [plan.position_after(t + 1) for t in range(plan.num_batches)]


@settings(max_examples=200, deadline=None)
@given(PLANS)
def test_full_batches_have_batch_size_rows_on_each_rank(plan):
    """A full or padded batch gives each rank exactly batch_size rows; a short one differs by one row at most."""
    for t in range(plan.num_batches):
        rows = [len(plan.positions(t, rank)) for rank in range(plan.world_size)]
        begin, end = plan.span(t)
        if end - begin == plan.global_batch_size:
            assert set(rows) == {plan.batch_size}
        else:
            assert plan.drop_last is False and t == plan.num_batches - 1 and max(rows) - min(rows) <= 1


@settings(max_examples=200, deadline=None)
@given(PLANS, st.integers(1, 5))
def test_workers_deal_each_batch_in_turn(plan, num_workers):
    """Taking one row from each worker in turn, from first_worker on, gives the rank's rows in position order."""
    for rank in range(plan.world_size):
        nums = [list(plan.nums_positions(rank, w, num_workers)) for w in range(num_workers)]
        for t in range(plan.num_batches):
            queues = [list(plan.positions(t, rank, w, num_workers)) for w in range(num_workers)]
            assert [nums[w][t] for w in range(num_workers)] == list(map(len, queues))
            turn, merged = plan.first_worker(t, rank, num_workers), []
            while any(queues):
                merged.append(queues[turn].pop(0))
                turn = (turn + 1) % num_workers
            assert merged == list(plan.positions(t, rank))


@settings(max_examples=200, deadline=None)
@given(PLANS, st.integers(1, 5))
def test_all_positions_of_a_worker_are_its_batches_end_to_end(plan, num_workers):
    """A worker that makes rows ahead of batches needs one range for the whole epoch."""
    for worker in range(num_workers):
        batches = [p for t in range(plan.num_batches) for p in plan.positions(t, 0, worker, num_workers)]
        assert list(plan.all_positions(0, worker, num_workers)) == batches


@settings(max_examples=200, deadline=None)
@given(PLANS, st.data())
def test_a_new_plan_goes_on_where_the_old_one_stopped(plan, data):
    """After any batch, a plan with another topology begins at exactly the first position not delivered."""
    delivered = data.draw(st.integers(0, plan.num_batches))
    position = plan.position_after(delivered)
    taken = {p for t in range(delivered) for rank in range(plan.world_size) for p in plan.positions(t, rank)}
    assert {p for p in taken if p < plan.num_samples} == set(range(plan.start_position, position))
    rest = BatchPlan(plan.num_samples, position, data.draw(st.integers(1, 40)), data.draw(st.integers(1, 9)))
    assert [p for t in range(rest.num_batches) for p in range(*rest.span(t))] == list(range(position, plan.num_samples))


def test_the_state_after_the_last_batch_ends_at_once_and_after_the_end_it_is_the_next_epoch():
    """Inside the loop it is (epoch, end); once the iterator has ended it is (epoch + 1, 0)."""
    plan = BatchPlan(100, 7, 8, 2, "pad")
    assert state_position(4, plan, plan.num_batches, ended=False) == (4, 100)
    assert num_batches(100, 100, 8, 2, "pad") == 0
    assert state_position(4, plan, plan.num_batches, ended=True) == (5, 0)
    assert state_position(4, plan, 0, ended=False) == (4, 7)


@pytest.mark.parametrize("drop_last, expected", [(False, 4), (True, 3), ("pad", 4)])
def test_number_of_batches_is_known_before(drop_last, expected):
    """100 samples in global batches of 32 are 3 full ones and a short one."""
    assert num_batches(100, 0, 8, 4, drop_last) == expected
    assert num_batches(96, 0, 8, 4, drop_last) == 3
    assert num_batches(0, 0, 8, 4, drop_last) == 0


@pytest.mark.parametrize(
    "arguments",
    [
        (10, 11, 1, 1),
        (10, -1, 1, 1),
        (10, 0, 0, 1),
        (10, 0, 1, 0),
        (10, 0, 1, 1, "fill"),
        (10, 0, 1, 1, None),
        (10, 0, 1, 1, 1),
    ],
)
def test_illegal_plans_are_refused(arguments):
    """A position outside the epoch, empty batches and an unknown drop_last are ConfigErrors."""
    with pytest.raises(ConfigError, match="must"):
        BatchPlan(*arguments)


@pytest.mark.parametrize("arguments", [(2, 2), (-1, 2), (0, 2, 3, 3), (0, 2, -1, 3)])
def test_a_rank_or_worker_that_does_not_exist_is_refused(arguments):
    """Ranks and workers count from 0."""
    with pytest.raises(ConfigError, match="does not exist"):
        owned(0, 10, *arguments)


def test_a_batch_outside_the_plan_is_refused():
    """Batch numbers and counts beyond the last are IndexErrors."""
    plan = BatchPlan(10, 0, 4, 1)
    for call in (plan.span, lambda t: plan.positions(t, 0), lambda t: plan.position_after(t + 1)):
        with pytest.raises(IndexError):
            call(3)

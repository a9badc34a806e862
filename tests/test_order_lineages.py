"""Exactly once, by simulation: ranks, workers, crashes and resumes as objects in one process.

The order, batch, schedule and state code is the real one; only I/O and processes are left out. The
loader's own processes are killed in ``tests/test_exactly_once.py``.
"""

import json
import random

import numpy as np
import pytest

from shardstream.order import schedule
from shardstream.order.batches import BatchPlan, state_position
from shardstream.order.epoch import EpochOrder, resolve_lanes, resolve_window
from shardstream.order.state import SEQUENCE, SHUFFLE, State


def sizes_of(random_):
    """Shard sizes of a random dataset: tiny or large, even or wild, with empty shards."""
    kind = random_.choice(["one", "even", "wild", "few"])
    if kind == "one":
        return [random_.choice([1, 2, 95, 96, 97, 500])]
    if kind == "few":
        return [random_.randint(0, 3) for _ in range(random_.randint(1, 5))] + [1]
    if kind == "even":
        return [random_.randint(1, 60)] * random_.randint(2, 20)
    return [int(random_.paretovariate(0.7)) % 400 for _ in range(random_.randint(1, 12))] + [1]


class Job:
    """One start of the training job on some topology, from a saved state; what it delivers it delivers to all ranks."""

    def __init__(self, sizes, state, random_):
        self.state, self.world_size, self.num_workers = state, random_.randint(1, 9), random_.randint(1, 3)
        self.order = EpochOrder(sizes, seed=state.seed, epoch=state.epoch, lanes=state.lanes, window=state.window,
                                shuffle=state.shuffle)  # fmt: skip
        self.plan = BatchPlan(self.order.num_samples, state.position, random_.randint(1, 40), self.world_size)

    def batch(self, t):
        """The line indices of the batch as each rank gets them, put together from its workers in turn."""
        for rank in range(self.world_size):
            queues = [iter(self.plan.positions(t, rank, w, self.num_workers)) for w in range(self.num_workers)]
            turn = self.plan.first_worker(t, rank, self.num_workers)
            num_rows = len(self.plan.positions(t, rank))
            positions = [next(queues[(turn + i) % self.num_workers]) for i in range(num_rows)]
            rows = range(positions[0], positions[-1] + 1, self.world_size) if positions else range(0)
            assert positions == list(rows)
            if positions:
                yield from self.order.line(rows.start, rows.stop, rows.step).tolist()


def saved_and_loaded(state):
    return State.from_dict(json.loads(json.dumps(state.to_dict())))


def run_lineage(random_, num_epochs):
    """Run num_epochs with crashes on the way; return how often each sample of each epoch was trained on."""
    sizes = sizes_of(random_)
    lanes, window = (
        (1, 1)
        if random_.random() < 0.2
        else (random_.choice([1, 3, 7, resolve_lanes(1)]), random_.choice([1, 64, 700]))
    )
    window = resolve_window(lanes, 0, window)
    state = State(
        "dataset", 0, SEQUENCE if (lanes, window) == (1, 1) else SHUFFLE, random_.getrandbits(64), 0, lanes, window, 0
    )
    counts = np.zeros((num_epochs, sum(sizes)), int)
    while state.epoch < num_epochs:
        job = Job(sizes, saved_and_loaded(state), random_)
        # Killed somewhere: all batches after the last saved state are lost, in memory of weights that are lost too.
        survives = random_.randint(0, job.plan.num_batches) if random_.random() < 0.8 else job.plan.num_batches
        starts = job.order.shard_starts
        for t in range(survives):
            for index in job.batch(t):
                place = np.searchsorted(starts, index, side="right") - 1
                shard = job.order.shard_permutation[place]
                counts[state.epoch, sum(sizes[:shard]) + index - starts[place]] += 1
        ended = survives == job.plan.num_batches and random_.random() < 0.9
        epoch, position = state_position(state.epoch, job.plan, survives, ended)
        state = State(**{**state.__dict__, "epoch": epoch, "position": position})
    return counts


@pytest.mark.parametrize("block", range(10))
def test_every_sample_is_delivered_exactly_once_in_each_epoch_of_any_lineage(block):
    """100 random lineages a block, of 2 epochs each: topology, batch size and crash point drawn anew at every start."""
    for seed in range(block * 100, block * 100 + 100):
        counts = run_lineage(random.Random(seed), num_epochs=2)
        assert np.all(counts == 1), f"lineage {seed}: {np.unique(counts, return_counts=True)}"


@pytest.mark.parametrize("start", [0, 1, 777])
def test_global_batches_do_not_depend_on_the_topology(start):
    """With the same global batch, every (ranks, workers) gives the same global batches, sample for sample."""
    order = EpochOrder([100, 900, 3, 250], seed=5, epoch=1, lanes=96, window=384, shuffle=True)
    seen = set()
    for world_size, num_workers in [(1, 1), (2, 1), (4, 2), (3, 1), (12, 3), (6, 2)]:
        plan = BatchPlan(order.num_samples, start, 24 // world_size, world_size)
        batches = []
        for t in range(plan.num_batches):
            ranges = [plan.positions(t, r, w, num_workers) for r in range(world_size) for w in range(num_workers)]
            rows = {p: i for one in ranges for p, i in zip(one, order.wrapped_line(one).tolist(), strict=True)}
            batches.append(tuple(rows[p] for p in sorted(rows)))
        seen.add(tuple(batches))
    assert len(seen) == 1


@pytest.mark.parametrize("drop_last", [False, True, "pad"])
@pytest.mark.parametrize("num_samples", [0, 1, 5, 23, 24, 25, 95, 96, 97, 1000])
def test_ranks_agree_on_the_end_of_the_epoch(drop_last, num_samples):
    """Each rank has the same number of batches; all real samples come once but those that drop_last=True leaves out."""
    order = EpochOrder([num_samples], seed=1, epoch=0, lanes=96, window=960, shuffle=True)
    plan = BatchPlan(num_samples, 0, 6, 4, drop_last)
    rows = [
        [order.wrapped_line(plan.positions(t, rank)).tolist() for t in range(plan.num_batches)] for rank in range(4)
    ]
    delivered = [i for rank in rows for batch in rank for i in batch]
    assert {len(rank) for rank in rows} == {plan.num_batches}
    if drop_last is False:
        assert sorted(delivered) == list(range(num_samples))
    elif drop_last is True:
        assert len(set(delivered)) == len(delivered) == num_samples // 24 * 24
    else:
        assert set(delivered) == set(range(num_samples)) and len(delivered) % 24 == 0
        begin = order.wrapped_line(range(len(delivered) - num_samples)).tolist()
        assert sorted(delivered) == sorted([*range(num_samples), *begin])


def test_what_all_readers_fetch_covers_what_they_deliver():
    """In random jobs, every sample lies in a block that its worker's schedule holds at its position."""
    random_ = random.Random(0)
    for _ in range(20):
        sizes = sizes_of(random_)
        starts = [np.array([*range(0, size, 7), size]) for size in sizes]
        state = State("dataset", 0, SHUFFLE, random_.getrandbits(64), 0, 12, 120, random_.randint(0, sum(sizes)))
        job = Job(sizes, state, random_)
        for rank in range(job.world_size):
            for worker in range(job.num_workers):
                positions = job.plan.all_positions(rank, worker, job.num_workers)
                needs = list(schedule.blocks(job.order, positions, starts.__getitem__))
                for position, index in zip(positions, job.order.wrapped_line(positions).tolist(), strict=True):
                    held = [need for need in needs if need.first_position <= position < need.end_position]
                    assert any(need.line_begin <= index < need.line_end for need in held)

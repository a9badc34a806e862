"""Exactly once: whatever is killed, whenever, and however the job goes on, every sample is consumed once an epoch."""

import random
from collections import Counter

import pytest

import shardstream as ss
from shardstream.buffers import BufferPool
from shardstream.handover import Packer, Slot
from shardstream.merge import Part, merge
from shardstream.rowmaker import RowMaker
from tests.lineage import Lineage, write_sources
from tests.trainer import ids_of, make_stream

NUM = 223


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """The same samples in blocks, as files, as a list of bare shards, and dealt out to two datasets that are mixed."""
    return write_sources(tmp_path_factory.mktemp("once"), NUM)


# -- schedules in one process -----------------------------------------------------------------------


class WorkersHere:
    """What ``workers.Workers`` does, with its workers as objects of this process."""

    def __init__(self, num_workers: int, stream: ss.ShardStream):
        self.num_workers, self.stream = num_workers, stream

    def portions(self, task):
        source, recipe, pool = self.stream.source, self.stream.recipe, BufferPool()
        slots, packers = [Slot.create() for _ in range(self.num_workers)], [Packer() for _ in range(self.num_workers)]
        makers = [RowMaker(recipe.reader(source), task.order(source), task.positions(w, self.num_workers), recipe, packers[w], is_part=True)
                  for w in range(self.num_workers)]  # fmt: skip
        try:
            for t in range(task.plan.num_batches):
                parts = []
                for w, (slot, packer, maker) in enumerate(zip(slots, packers, makers)):
                    num_rows = len(task.plan.positions(t, task.rank, w, self.num_workers))
                    packer.begin(slot)
                    portion = maker.make(num_rows)
                    wires = {name: packer.pack(column, (portion.origins or {}).get(name)) for name, column in portion.columns.items()}
                    packer.finish()
                    parts.append(Part(slot, wires if portion.num_rows else {}, portion.num_rows, portion.kept))
                yield merge(parts, task.plan.first_worker(t, task.rank, self.num_workers),
                            len(task.plan.positions(t, task.rank)), pool)  # fmt: skip
        finally:
            for closing in (*makers, *slots):
                closing.close()


@pytest.mark.filterwarnings("ignore:each block is fetched")
@pytest.mark.parametrize("part", range(10))
def test_schedules_in_one_process(sources, part):
    """300 random lineages of crashes, with ranks and workers as objects, consume every sample once an epoch."""
    for seed in range(30 * part, 30 * part + 30):
        _run_schedule(sources, random.Random(seed))


def _run_schedule(sources, choose: random.Random) -> None:
    source = sources[choose.choice(["blocks", "files", "list", "mixture", "mixture"])]
    order = {"shuffle": True, "seed": choose.randrange(1000)} if choose.random() < 0.9 else {}
    if order and choose.random() < 0.5:
        lanes = choose.choice([1, 2, 5, 12, 96])
        order.update(lanes=lanes, window=choose.choice([1, lanes, 100, NUM, 10 * NUM]))
    num_epochs, state, consumed = choose.choice([1, 1, 2, 3]), None, Counter()
    while state is None or state["epoch"] < num_epochs:
        world_size, num_workers = choose.choice([1, 1, 2, 3, 4]), choose.choice([0, 0, 1, 2, 3])
        options = {"batch_size": choose.choice([3, 5, 16, 50, NUM, 2 * NUM]),
                   "drop_last": choose.choice([False, "pad"])}  # fmt: skip
        weights = [1, choose.choice([0.1, 1, 3])]  # of a mixture
        limit = choose.choice([0, 1, 3, 10, 10**9])
        before = Counter(consumed)
        states = []
        for rank in range(world_size):
            stream = make_stream(source, weights=weights, rank=rank, world_size=world_size, **_pinned(source),
                                 **{**order, **options})  # fmt: skip
            if state is not None:
                stream.load_state_dict(state)
            saved = stream.state_dict()
            iterator = stream.iterate(WorkersHere(num_workers, stream).portions if num_workers else stream.portions)
            for _ in range(limit):
                batch = next(iterator, None)
                if batch is not None:
                    consumed.update((saved["epoch"], i) for i in ids_of(batch))
                saved = stream.state_dict()
                if batch is None:
                    break
            if choose.random() < 0.5:
                next(iterator, None)  # consumed after the save: done again by the next run
            iterator.close()
            states.append(saved)
        assert all(other == states[0] for other in states)
        if choose.random() < 0.1:
            consumed = before  # crashed before the save
        else:
            state = states[0]
    assert consumed == Counter((epoch, i) for epoch in range(num_epochs) for i in range(NUM))


def _pinned(source) -> dict:
    return {} if isinstance(source, list) else {"version": 1}


# -- real processes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed, layout", [(1, "blocks"), (2, "files"), (3, "mixture"), (4, "list"), (5, "mixture")])
def test_killed_jobs(sources, tmp_path, seed, layout):
    """Real ranks and workers, killed at random moments, consume every sample once in each of three epochs."""
    Lineage(tmp_path, {"source": sources[layout]}, NUM, seed).run()


def test_killed_torchrun(sources, tmp_path):
    """The same under torchrun itself, for one epoch and one kill, since each of its processes imports torch."""
    lineage = Lineage(tmp_path, {"source": sources["blocks"]}, NUM, 24, launch="torchrun", num_epochs=1, max_ranks=2,
                      max_runs=2)  # fmt: skip
    lineage.run()
    assert len(lineage.log) == 2


# -- batches on every topology ----------------------------------------------------------------------


def test_global_batches_do_not_depend_on_the_topology(sources):
    """One global batch size, one sequence of global batches, sample for sample, whatever ranks and workers make it."""
    for layout in ("blocks", "files", "mixture"):
        sequences = []
        for world_size, num_workers in [(1, 0), (2, 1), (4, 2), (3, 1)]:
            options = {"batch_size": 12 // world_size, "shuffle": True, "seed": 7, "rank": 0, "world_size": world_size,
                       "version": 1}  # fmt: skip
            ranks = []
            for rank in range(world_size):
                stream = make_stream(sources[layout], **{**options, "rank": rank})
                ranks.append([ids_of(batch) for batch in stream.iterate(WorkersHere(num_workers, stream).portions if num_workers else stream.portions)])
            # Row i of rank r is position i * world_size + r of the global batch.
            sequences.append([[ids[i] for i in range(len(parts[0])) for ids in parts if i < len(ids)] for parts in zip(*ranks, strict=True)])
        assert sequences[0] == sequences[1] == sequences[2] == sequences[3]
        assert sorted(i for batch in sequences[0] for i in batch) == list(range(NUM))

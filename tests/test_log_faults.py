"""Commits through a store that loses requests and replies, answers 409, 412 and 500, and delivers late."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardstream.config import RetryPolicy
from shardstream.errors import Conflict, StorageError, StorageRefused
from shardstream.log import Log, entries
from shardstream.storage import Store
from tests.synthetic_log import record

QUICK = RetryPolicy(max_attempts=3, first_delay_s=0.0, max_delay_s=0.0)
FAULTS = ["lost request", "lost reply", "late", "refused", "unreadable"]


class FaultyStore(Store):
    """A store in a dict whose put_if_absent and reads fail as ``script`` says; then it is sound.

    Several stores of one ``world`` are the same place.
    """

    def __init__(self, world: "World"):
        super().__init__("s3://simulated/dataset", retry=QUICK)
        self.world = world

    def read(self, name, begin=0, end=None, verify=None):
        if self.world.next_fault("read") is not None:
            raise StorageError("reading failed: timeout")
        if name not in self.world.objects:
            raise FileNotFoundError(name)
        return self.world.objects[name][begin:end]

    def read_many(self, names, max_nbytes=None, verify=None):
        found = []
        for name in names:
            try:
                found.append(self.read(name))
            except FileNotFoundError:
                found.append(None)
        return found

    def put_bytes(self, name, data, durable=True):
        if self.world.next_fault("fold") is not None:
            raise StorageError("writing failed: 503")
        self.world.objects[name] = data

    def put_if_absent(self, name, data):
        fault = self.world.next_fault("put")
        self.world.deliver_late()
        if fault == "refused":
            raise StorageRefused("creating failed: permission denied")
        if fault == "late":
            self.world.late.append((name, data))
        created = fault in (None, "lost reply") and self.world.create(name, data)
        if fault is not None:
            raise StorageError("creating failed: 500, 409, timeout or reset")
        return created


class World:
    def __init__(self):
        self.objects: dict[str, bytes] = {}
        self.late: list[tuple[str, bytes]] = []
        self.script: list = []

    def next_fault(self, where: str):
        """Return the fault for this request, taken from the script's end if that is about such requests."""
        if not self.script or (self.script[-1] == "unreadable") == (where == "put"):
            return None
        return self.script.pop()

    def create(self, name: str, data: bytes) -> bool:
        absent = name not in self.objects
        self.objects.setdefault(name, data)
        return absent

    def deliver_late(self) -> None:
        """Deliver the oldest request that the network holds, once two are held."""
        if len(self.late) > 1:
            self.create(*self.late.pop(0))

    def log(self) -> list[entries.Entry]:
        """Return all entries; fails on a gap."""
        names = sorted(name for name in self.objects if name.endswith(".json"))
        assert names == [entries.name(version) for version in range(len(names))]
        return [entries.decode(self.objects[name], version) for version, name in enumerate(names)]


STEPS = st.lists(st.tuples(st.integers(0, 2), st.lists(st.sampled_from([None, None, None, *FAULTS]), max_size=12), st.booleans()),
                 min_size=1, max_size=15)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(steps=STEPS)
def test_each_commit_once_or_reported(steps):
    """Under any faults a commit that returned stands once, one that was refused never, and an unknown one at most once:
    calling again with the same shards finds out which.
    """
    world = World()
    logs = [Log(FaultyStore(world)) for _ in range(3)]
    logs[0].create(None)
    returned, refused, unknown = {}, set(), {}
    for number, faults, again in steps:
        shard = record()
        world.script = list(faults)
        for _ in range(2 if again else 1):
            unknown.pop(shard.sid, None)
            try:
                returned[shard.sid] = logs[number].append([shard])
                break
            except StorageRefused:
                refused.add(shard.sid)
                break
            except StorageError:
                unknown[shard.sid] = number
                world.script = []
    while world.late:
        world.create(*world.late.pop())
    standing = {shard.sid: entry.version for entry in world.log() for shard in entry.add}
    assert sum(len(entry.add) for entry in world.log()) == len(standing)
    assert returned.items() <= standing.items()
    assert set(standing) - set(returned) <= set(unknown)
    assert not refused & set(standing)


@pytest.mark.parametrize("num_faults", [1, 2])
@pytest.mark.parametrize("fault", FAULTS[:3])
def test_passing_faults_are_overcome(fault, num_faults):
    """One or two faults in a row do not fail a commit, and it stands once."""
    world = World()
    log = Log(FaultyStore(world))
    log.create(None)
    world.script = [fault] * num_faults
    shard = record()
    assert log.append([shard]) == 1
    while world.late:
        world.create(*world.late.pop())
    assert [len(entry.add) for entry in world.log()] == [0, 1]


def test_an_unsettled_commit_is_settled_before_the_next():
    """A Log whose commit ended in the unknown settles it first: its later commit neither overtakes nor repeats it."""
    world = World()
    log = Log(FaultyStore(world))
    log.create(None)
    first, second = record(), record()
    world.script = ["lost request"] * 20
    with pytest.raises(StorageError):
        log.append([first])
    world.script = []
    assert log.append([second]) == 2
    assert [[shard.sid for shard in entry.add] for entry in world.log()] == [[], [first.sid], [second.sid]]


def test_a_refused_commit_leaves_nothing_to_settle():
    """A refusal is final: the next commit does not bring back what was refused."""
    world = World()
    log = Log(FaultyStore(world))
    log.create(None)
    world.script = ["refused"]
    with pytest.raises(StorageRefused):
        log.append([record()])
    log.append([record()])
    assert len(world.log()) == 2


def test_a_store_that_ignores_conditions_is_found_out():
    """The first commit's own PUT is repeated; a store that takes it again is refused, unless there is one writer."""

    class Ignorant(FaultyStore):
        def put_if_absent(self, name, data):
            self.world.objects[name] = data
            return True

    with pytest.raises(StorageRefused, match="single_writer=True"):
        Log(Ignorant(World())).create(None)
    log = Log(Ignorant(World()), single_writer=True)
    log.create(None)
    assert log.append([record()]) == 1


def test_interrupted_commit_is_settled_later(monkeypatch):
    """Ctrl-C while a PUT is under way leaves the commit unsettled, not forgotten."""
    world = World()
    log = Log(FaultyStore(world))
    log.create(None)
    shard, put = record(), FaultyStore.put_if_absent

    def interrupted(self, name, data):
        put(self, name, data)
        raise KeyboardInterrupt

    monkeypatch.setattr(FaultyStore, "put_if_absent", interrupted)
    with pytest.raises(KeyboardInterrupt):
        log.append([shard])
    monkeypatch.undo()
    assert log.append([shard]) == 1
    assert log.append([record()]) == 2


def test_a_fenced_commit_is_a_conflict_once_settled():
    """A commit that ended in the unknown, and whose producer was claimed meanwhile, fails when called again."""
    world = World()
    log, other = Log(FaultyStore(world)), Log(FaultyStore(world))
    log.create(None)
    incarnation, _ = log.claim("p")
    world.script = ["lost request"] * 20
    with pytest.raises(StorageError):
        log.append([record()], producer="p", incarnation=incarnation, source=1)
    world.script = []
    assert other.claim("p")[1] is None
    with pytest.raises(Conflict):
        log.append([record()], producer="p", incarnation=incarnation, source=1)
    assert log.append([record()]) == 3


def test_interrupt_within_a_commits_own_code(monkeypatch):
    """Ctrl-C that hits between requests, with the entry perhaps standing, makes this Log refuse to go on."""
    world = World()
    log = Log(FaultyStore(world))
    log.create(None)

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("shardstream.log.commit.Step.of", interrupted)
        with pytest.raises(KeyboardInterrupt):
            log.append([record()])
    with pytest.raises(StorageError, match="open the dataset again"):
        log.append([record()])
    assert Log(log.store).append([record()]) == 2

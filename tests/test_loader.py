"""StreamLoader: the same batches for every number of worker processes, exact states, and nothing left behind."""

import ctypes
import gc
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

import shardstream as ss
from shardstream import worker
from shardstream.budget import MemoryBudget
from shardstream.handover import MIN_SLOT_NBYTES, Slot
from shardstream.storage import Fetcher
from tests.columns import assert_same

NUM = 1000
SCHEMA = ss.Schema(x=ss.Sparse(64), w=ss.Sparse(64, "float32"), t=ss.Ragged("uint16"), a=ss.Dense("float32", (3,)), s=ss.Text(),
                   b=ss.Bytes(), y=ss.Dense("uint32"))  # fmt: skip


@pytest.fixture(scope="module")
def urls(tmp_path_factory):
    """The same kind of samples as a dataset of each layout."""
    folder = tmp_path_factory.mktemp("loader")
    generator = np.random.default_rng(0)
    with ss.ShardWriter(str(folder / "blocks"), schema=SCHEMA, shard_nbytes="20kB") as writer:
        for i in range(NUM):
            indices = generator.choice(64, generator.integers(0, 9), replace=False)
            writer.write({"x": indices, "w": (indices, indices + 0.5), "t": np.arange(i % 7), "a": [i, i + 1, i + 2], "s": str(i),
                          "b": bytes(i % 5), "y": i})  # fmt: skip
    with ss.ShardWriter(str(folder / "files"), shard_nbytes="200kB") as writer:
        for i in range(NUM):
            writer.write({"__key__": f"{i:05d}", "cls": i, "txt": f"text {i}", "npy": np.arange(i % 3), "bin": bytes(i % 4)})
    return {"blocks": str(folder / "blocks"), "files": str(folder / "files")}


@pytest.fixture(autouse=True)
def nothing_left():
    """Every test leaves no process, thread, descriptor or memory map behind."""

    def things():
        gc.collect()
        fds = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")]
        shared = [fd for fd in fds if "memfd" in fd or "socket" in fd or "pidfd" in fd]
        with open("/proc/self/maps") as maps:
            mapped = sum("memfd:shardstream" in line for line in maps)
        threads = [t.name for t in threading.enumerate() if "shardstream" in t.name]
        return Counter([*map(str, multiprocessing.active_children()), *shared, *["memfd mapping"] * mapped, *threads])

    before = things()
    yield
    # Only what is new: connections that earlier tests made to S3 may end meanwhile.
    assert not things() - before, "left behind"


def loader(url, num_workers: int, multiprocessing_context="fork", collate=None, **options) -> ss.StreamLoader:
    return ss.StreamLoader(ss.ShardStream(url, **options), num_workers, collate=collate,
                           multiprocessing_context=multiprocessing_context)  # fmt: skip


def odd_rows(sample):
    """A row-wise transform that drops every second sample and makes several kinds of columns."""
    i = int(sample["y"] if "y" in sample else sample["cls"])
    if i % 2 == 0:
        return None
    return {"i": i, "half": i / 2 if i % 3 else i, "text": f"<{i}>", "rows": torch.arange(i % 4),
            "none": None if i % 5 else np.ones(2)}  # fmt: skip


@ss.batched
def odd_columns(columns):
    """The same for batches of columns."""
    is_odd = columns["y"] % 2 == 1
    return {"y": columns["y"][is_odd], "array": columns["y"][is_odd].numpy() / 2}, is_odd


OPTIONS = [
    ("blocks", {"batch_size": 64, "sparse": "dense"}), ("blocks", {"batch_size": 64, "sparse": "csr"}),
    ("blocks", {"batch_size": 64, "sparse": {"x": "jagged", "w": "indices"}}), ("blocks", {"batch_size": 64, "sparse": {"x": "indices", "w": "jagged"}}),
    ("blocks", {"batch_size": 2, "fields": ["y", "s"]}), ("blocks", {"batch_size": 7, "drop_last": "pad", "fields": ["y", "t"]}),
    ("blocks", {"batch_size": 64, "drop_last": True, "fields": ["y"]}), ("blocks", {"batch_size": 64, "transform": odd_rows}),
    ("blocks", {"batch_size": 7, "transform": odd_rows, "drop_last": "pad"}), ("blocks", {"batch_size": 64, "transform": odd_columns}),
    ("blocks", {"batch_size": None, "transform": odd_rows}), ("blocks", {"batch_size": None, "drop_last": "pad", "fields": ["y", "x"]}),
    ("files", {"batch_size": 64}), ("files", {"batch_size": 5, "drop_last": "pad"}), ("files", {"batch_size": 9, "transform": odd_rows}),
    ("files", {"batch_size": None}), ("files", {"batch_size": None, "transform": odd_rows, "drop_last": "pad"}),
]  # fmt: skip


@pytest.mark.parametrize("num_workers, place", [(1, {}), (3, {"rank": 1, "world_size": 2})], ids=["1-worker", "3-workers-on-a-rank"])
@pytest.mark.parametrize("layout, options", OPTIONS, ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value)))
def test_batches_do_not_depend_on_workers(urls, layout, options, num_workers, place):
    """Kind, dtype and content of every batch, and the state after it, are those of no workers; on any rank."""
    expected, got = (loader(urls[layout], n, shuffle=True, version=1, **place, **options) for n in (0, num_workers))
    count = 0
    for one, other in zip(expected, got, strict=True):
        assert_same(one, other)
        assert expected.state_dict() == got.state_dict()
        count += 1
    assert count > 1 and expected.state_dict() == got.state_dict()
    assert expected.dataset.report == got.dataset.report


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_start_methods(urls, method, monkeypatch):
    """Workers start by spawn and forkserver as they do by fork, with the environment as it is now."""
    monkeypatch.setenv("SHARDSTREAM_TEST", method)
    options = {"batch_size": 64, "shuffle": True, "fields": ["y"], "transform": environment}
    for batch in loader(urls["blocks"], 1, method, **options):
        assert batch["environment"] == [method] * len(batch["y"])
    assert batch["pid"][0] != os.getpid()


def environment(sample):
    return {"y": sample["y"], "environment": os.environ.get("SHARDSTREAM_TEST", ""), "pid": os.getpid()}


def test_workers_stay_over_epochs(urls):
    """Workers persist from epoch to epoch, and each epoch is that of no workers."""
    options = {"batch_size": 100, "shuffle": True, "fields": ["y"], "transform": environment}
    with_workers, without = loader(urls["blocks"], 2, **options), loader(urls["blocks"], 0, **options)
    pids = set()
    for epoch in range(3):
        batches = list(with_workers)
        assert [batch["y"].tolist() for batch in batches] == [batch["y"].tolist() for batch in without]
        pids |= {pid for batch in batches for pid in batch["pid"].tolist()}
    assert len(pids) == 2 and with_workers.state_dict() == without.state_dict()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_states_count_what_was_received(urls, num_workers):
    """A state taken in an epoch resumes with exactly the batches not received, with any other number of workers."""
    options = {"batch_size": 64, "shuffle": True, "fields": ["y"], "epochs": 2}
    whole = [batch["y"].tolist() for batch in loader(urls["blocks"], 0, **options)]
    for cut in (0, 1, 5, 15, 16, 20):
        first = loader(urls["blocks"], num_workers, **options)
        iterator = iter(first)
        seen = [next(iterator)["y"].tolist() for _ in range(cut)]
        second = loader(urls["blocks"], 3 - num_workers, **options)
        second.load_state_dict(first.state_dict())
        assert seen + [batch["y"].tolist() for batch in second] == whole


def test_setting_a_state_in_an_epoch(urls):
    """load_state_dict() and set_epoch() between iterations of one loader with workers."""
    one = loader(urls["blocks"], 2, batch_size=64, shuffle=True, fields=["y"])
    whole = [batch["y"].tolist() for batch in one]
    iterator = iter(one)
    next(iterator)
    one.set_epoch(0)
    assert [batch["y"].tolist() for batch in one] == whole
    one.set_epoch(0)
    iterator = iter(one)
    first = next(iterator)["y"].tolist()
    state = one.state_dict()
    next(iterator)
    one.load_state_dict(state)
    assert [first, *(batch["y"].tolist() for batch in one)] == whole
    with pytest.raises(ss.ConfigError, match="iterator"):
        next(iterator)


def test_collate_is_of_whole_batches(urls):
    """collate gets each whole batch here; if it fails, the state does not count the batch."""

    def collate(batch):
        if len(seen) == 3:
            raise KeyError("mine")
        seen.append(len(batch["y"]))
        return os.getpid(), batch["y"]

    seen = []
    one = loader(urls["blocks"], 2, collate=collate, batch_size=64, fields=["y"])
    with pytest.raises(KeyError, match="mine"):
        for pid, _ in one:
            assert pid == os.getpid()
    assert seen == [64] * 3 and one.state_dict()["position"] == 3 * 64


# -- failures -------------------------------------------------------------------------------------


def fail_at_700(sample):
    if sample["y"] == 700:
        raise KeyError("mine")
    return sample


def kill_at_700(sample):
    if sample["y"] == 700:
        os.kill(os.getpid(), signal.SIGKILL)
    return sample


def exit_at_700(sample):
    if sample["y"] == 700:
        os._exit(3)
    return sample


class Unpicklable(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def fail_unpicklably(sample):
    raise Unpicklable("this", "that")


def test_a_failing_transform_is_located(urls):
    """A worker's exception comes at its batch, typed, with shard and row, the user's own as its cause, and its
    traceback.
    """
    one = loader(urls["blocks"], 3, batch_size=64, transform=fail_at_700)
    received = 0
    with pytest.raises(ss.TransformError, match="mine") as caught:
        for batch in one:
            received += 1
    assert received == 700 // 64 and one.state_dict()["position"] == received * 64
    error = caught.value
    assert error.shard.endswith(".tar") and error.block is not None and error.key is not None
    assert isinstance(error.__cause__, KeyError) and "fail_at_700" in str(error.__cause__.__cause__)


def test_exceptions_that_do_not_pickle(urls, plain_pickles):
    """An exception that can't leave the worker still says what it was."""
    with pytest.raises(ss.TransformError, match="this and that") as caught:
        list(loader(urls["blocks"], 1, batch_size=64, transform=fail_unpicklably))
    assert isinstance(caught.value.__cause__, ss.WorkerError) and "Unpicklable" in str(caught.value.__cause__)


@pytest.mark.parametrize("transform, how", [(kill_at_700, "killed by SIGKILL"), (exit_at_700, "exit code 3")])
def test_a_dead_worker_is_an_error(urls, transform, how):
    """A worker that dies is an error that names it and how it ended; the loader can go on from there with another
    transform.
    """
    one = loader(urls["blocks"], 2, batch_size=64, transform=transform)
    with pytest.raises(ss.WorkerError, match=f"worker 0 of 2 on rank 0 .*{how}"):
        list(one)
    assert one.state_dict()["position"] == 700 // 64 * 64
    after = loader(urls["blocks"], 1, batch_size=64, fields=["y"])
    after.load_state_dict(one.state_dict())
    assert next(iter(after))["y"][0] == 640


def test_a_worker_killed_while_waited_for(urls):
    """Killing a worker that the loop waits for ends the wait at once."""
    one = loader(urls["blocks"], 2, batch_size=64, transform=sleep_at_700)
    iterator = iter(one)
    pid = int(next(iterator)["pid"][1])
    threading.Timer(0.3, os.kill, (pid, signal.SIGKILL)).start()
    with pytest.raises(ss.WorkerError, match="worker 1"):
        list(iterator)


def sleep_at_700(sample):
    if sample["y"] == 701:
        time.sleep(1000)
    return {"pid": os.getpid(), "y": sample["y"]}


@pytest.mark.timeout(60)
def test_a_dead_worker_whose_child_lives_on_is_an_error(urls):
    """Its channel stays open then, in a process that the user's transform has made."""
    told, tell = os.pipe()

    def leave_a_child(sample):
        if sample["y"] == 700:
            child = os.fork()
            if child == 0:
                time.sleep(1000)
            os.write(tell, child.to_bytes(4, "little"))
            os._exit(3)
        return sample

    try:
        with pytest.raises(ss.WorkerError, match="exit code 3"):
            list(loader(urls["blocks"], 2, batch_size=64, transform=leave_a_child))
    finally:
        os.kill(int.from_bytes(os.read(told, 4), "little"), signal.SIGKILL)
        os.close(told)
        os.close(tell)


@pytest.mark.timeout(60)
def test_a_worker_that_cannot_leave_is_killed(urls, monkeypatch):
    """As one that is in C code which keeps the interpreter to itself; the training loop does not wait for it for ever."""
    told, tell = os.pipe()

    def be_stuck(sample):
        if sample["y"] == 0:
            os.write(tell, b".")
            ctypes.PyDLL(None).sleep(1000)
        return sample

    monkeypatch.setattr("shardstream.workers.STOP_S", 0.1)
    iterator = iter(loader(urls["blocks"], 2, batch_size=64, transform=be_stuck))
    threading.Timer(0.1, lambda: (os.read(told, 1), os.kill(os.getpid(), signal.SIGINT))).start()
    with pytest.raises(KeyboardInterrupt):
        next(iterator)
    assert not multiprocessing.active_children()
    os.close(told)
    os.close(tell)


def test_workers_do_not_keep_each_other(urls, monkeypatch):
    """What a forked process inherits of another loader's channels keeps nobody: workers leave by themselves."""
    killed, kill = [], multiprocessing.process.BaseProcess.kill
    monkeypatch.setattr("shardstream.workers.STOP_S", 20)
    monkeypatch.setattr(multiprocessing.process.BaseProcess, "kill", lambda self: (killed.append(self.name), kill(self)))
    first, second = (iter(loader(urls["blocks"], 1, batch_size=10)) for _ in range(2))
    next(first), next(second)
    first.close()
    assert len(next(second)["y"]) == 10 and len(multiprocessing.active_children()) == 1
    second.close()
    assert not killed


@pytest.mark.parametrize("num_workers", [0, 2])
def test_leaving_early(urls, num_workers):
    """Breaking out of the loop, an exception in its body, and dropping an iterator all end workers and threads."""
    one = loader(urls["blocks"], num_workers, batch_size=10, shuffle=True)
    for _ in one:
        break
    assert not multiprocessing.active_children()
    with pytest.raises(ZeroDivisionError):
        for _ in one:
            1 / 0
    gc.collect()
    assert not multiprocessing.active_children()
    iterator = iter(one)
    next(iterator)
    del iterator
    assert not multiprocessing.active_children()


def test_keyboard_interrupt(urls):
    """Ctrl-C while the loop waits for workers is a KeyboardInterrupt, and the workers are gone."""
    one = loader(urls["blocks"], 2, batch_size=64, transform=sleep_at_700)
    threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        list(one)
    assert not multiprocessing.active_children()


ORPHANS = """
import sys, tests.test_loader
if __name__ == "__main__":
    tests.test_loader.be_a_parent(*sys.argv[1:])
"""


def be_a_parent(url, method, has_heir):
    """Start workers, print their process ids, and wait to be killed; perhaps with a child that has all that is open here."""
    iterator = iter(loader(url, 3, method, batch_size=10, transform=environment))
    next(iterator)
    heirs = [os.fork()] if has_heir else []
    if 0 not in heirs:
        print(*heirs, *[process.pid for process in multiprocessing.active_children()], flush=True)
    time.sleep(1000)


@pytest.mark.parametrize("method, has_heir", [("fork", "heir"), ("forkserver", ""), ("spawn", "")])
def test_workers_leave_with_their_parent(urls, method, has_heir, tmp_path):
    """When the training process is killed its workers leave at once, by whatever method they were started, even if a
    child of that process keeps its ends of their channels.
    """
    (tmp_path / "orphans.py").write_text(ORPHANS)
    parent = subprocess.Popen([sys.executable, str(tmp_path / "orphans.py"), urls["blocks"], method, has_heir], stdout=subprocess.PIPE, text=True,
                              env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])})  # fmt: skip
    lines = parent.stdout.readline()
    parent.stdout.close()
    parent.kill()
    parent.wait()
    *heirs, first, second, third = map(int, lines.split())
    pids = first, second, third
    deadline = time.monotonic() + 10
    while any(map(is_running, pids)) and time.monotonic() < deadline:
        time.sleep(0.01)
    are_running, heirs_are = any(map(is_running, pids)), list(map(is_running, heirs))
    for heir in heirs:
        os.kill(heir, signal.SIGKILL)
    assert not are_running and heirs_are == [True] * bool(has_heir)


def go_on_after_an_interrupt(url):
    """Read on after Ctrl-C, as a program may that asks whether to stop, and print how many rows there were."""
    iterator = iter(loader(url, 2, batch_size=10))
    num_rows = len(next(iterator)["y"])
    try:
        print("now", flush=True)
        time.sleep(1000)
    except KeyboardInterrupt:
        pass
    print(num_rows + sum(len(batch["y"]) for batch in iterator))


def test_ctrl_c_at_a_terminal_interrupts_the_loop_alone(urls):
    """It reaches all processes of the group; of the workers none ends, or has an error to tell."""
    code = f"import tests.test_loader; tests.test_loader.go_on_after_an_interrupt({urls['blocks']!r})"
    parent = subprocess.Popen([sys.executable, "-W", "ignore", "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              start_new_session=True, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])})  # fmt: skip
    assert parent.stdout.readline() == "now\n"
    os.killpg(parent.pid, signal.SIGINT)
    assert parent.communicate() == (f"{NUM}\n", "")


def is_running(pid: int) -> bool:
    """Return whether a process is there and no zombie, which one that nobody waits for stays."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_what_does_not_pickle_is_a_config_error(urls):
    """A transform that can't be sent to workers is an error that says what to do, before any worker runs."""
    with pytest.raises(ss.ConfigError, match="multiprocessing_context='fork'"):
        list(loader(urls["blocks"], 2, "spawn", batch_size=10, transform=lambda sample: sample))
    with pytest.raises(ss.ConfigError, match="num_workers"):
        loader(urls["blocks"], -1)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_skipped_rows_are_reported(tmp_path, num_workers):
    """Rows of unreadable blocks are counted and named once, whichever worker met them; the budget is the rank's."""
    with ss.ShardWriter(str(tmp_path / "d"), schema=ss.Schema(y=ss.Dense("int64")), shard_nbytes="8kB") as writer:
        writer.write_batch({"y": np.arange(8000)})
    shards = ss.Dataset(str(tmp_path / "d")).shards
    os.unlink(shards[2])
    num_lost = int(ss.ShardStream(str(tmp_path / "d")).source.num_samples[2])
    options = {"batch_size": 64, "shuffle": True, "on_error": "skip"}
    one = loader(str(tmp_path / "d"), num_workers, read=ss.ReadPolicy(max_skipped=num_lost), **options)
    left = sorted(y for batch in one for y in batch["y"].tolist())
    assert len(left) == len(set(left)) == 8000 - num_lost
    assert one.dataset.report.num_skipped == num_lost and len(one.dataset.report.errors) == 1 and shards[2] in one.dataset.report.errors[0]
    with pytest.raises(ss.ShardNotFoundError, match="max_skipped"):
        list(loader(str(tmp_path / "d"), num_workers, read=ss.ReadPolicy(max_skipped=num_lost - 1), **options))


@pytest.mark.parametrize("num_samples", [1, 2, 95, 97])
def test_fewer_samples_than_ranks_workers_and_lanes(tmp_path, num_samples):
    """Any number of samples over any number of ranks and workers: each once, the same number of batches on each rank.
    """
    url = str(tmp_path / "d")
    with ss.ShardWriter(url, schema=ss.Schema(y=ss.Dense("int64"), s=ss.Text())) as writer:
        writer.write_batch({"y": np.arange(num_samples), "s": [str(i) for i in range(num_samples)]})
    for transform in (None, same):
        seen, counts = [], set()
        for rank in range(4):
            one = loader(url, 2, batch_size=3, shuffle=True, rank=rank, world_size=4, version=1, transform=transform)
            batches = list(one)
            counts.add((len(batches), len(one)))
            assert all(batch["y"].dtype == torch.int64 and isinstance(batch["s"], list) for batch in batches)
            seen += [y for batch in batches for y in batch["y"].tolist()]
        assert sorted(seen) == list(range(num_samples)) and counts == {(-(-num_samples // 12),) * 2}


def same(sample):
    return sample


def test_workers_draw_different_random_numbers(urls):
    """Random transforms differ between workers, ranks and epochs, and repeat in a program that seeds itself."""

    def draws():
        torch.manual_seed(5)
        one = loader(urls["blocks"], 2, batch_size=NUM, fields=["y"], transform=draw)
        return [batch["draw"][:2].tolist() for batch in list(one) + list(one)]

    first, second = draws(), draws()
    assert first == second
    flat = [value for epoch in first for row in epoch for value in row]
    assert len(set(flat)) == len(flat) == 12


def test_workers_seed_torch_as_torch_does():
    """A worker's generator of the CPU begins where ``torch.manual_seed`` would have it begin."""
    state = torch.get_rng_state(), random.getstate(), np.random.get_state()
    try:
        worker._set_seeds(2**62 + 5)
        drawn = torch.rand(3)
        torch.manual_seed(2**62 + 5)
        assert torch.equal(drawn, torch.rand(3))
    finally:
        torch.set_rng_state(state[0]), random.setstate(state[1]), np.random.set_state(state[2])


def draw(sample):
    return {"draw": np.array([random.random(), np.random.rand(), float(torch.rand(()))])}


def test_two_iterators(urls):
    """A new iterator takes the workers over; the old one says that it is no longer valid, and stops nothing."""
    one = loader(urls["blocks"], 2, batch_size=10, fields=["y"])
    old = iter(one)
    next(old)
    new = iter(one)
    assert next(new)["y"][0] == 10
    with pytest.raises(ss.ConfigError, match="iterator"):
        next(old)
    assert sum(len(batch["y"]) for batch in new) == NUM - 20


def test_of_large_slots_few_are_used(tmp_path, monkeypatch):
    """However far ahead a worker could be of a slow loop, for they are memory; batches of 3 MB each take four of eight."""
    with ss.ShardWriter(str(tmp_path / "d"), schema=ss.Schema(a=ss.Dense("uint8", (30_000,)), y=ss.Dense("int64"))) as writer:
        writer.write_batch({"a": np.zeros((1200, 30_000), np.uint8), "y": np.arange(1200)})
    slots, create = [], Slot.create
    monkeypatch.setattr("shardstream.workers.Slot.create", lambda: slots.append(create()) or slots[-1])
    ys, num_large = [], []
    for batch in loader(str(tmp_path / "d"), 1, batch_size=100):
        ys += batch["y"].tolist()
        time.sleep(0.03)
        num_large.append(sum(os.fstat(slot.fd).st_size > worker.SMALL_NBYTES for slot in slots))
    assert ys == list(range(1200)) and len(slots) == 8 and 1 <= max(num_large) <= worker.NUM_LARGE


def test_slots_count_as_memory_of_their_worker(urls, monkeypatch):
    told, tell = os.pipe()
    look = MemoryBudget.look
    monkeypatch.setattr(MemoryBudget, "look", lambda self: (os.write(tell, self._outside.get("slots", 0).to_bytes(8, "little")), look(self))[1])
    assert sum(len(batch["y"]) for batch in loader(urls["blocks"], 1, batch_size=100)) == NUM
    os.close(tell)
    with os.fdopen(told, "rb") as file:
        nbytes = np.frombuffer(file.read(), np.int64)
    assert nbytes[0] == 0 and nbytes[-1] == 8 * MIN_SLOT_NBYTES


def test_rows_larger_than_slots(tmp_path):
    """Batches of many megabytes pass, too."""
    url = str(tmp_path / "d")
    with ss.ShardWriter(url, schema=ss.Schema(a=ss.Dense("uint8", (100_000,)), b=ss.Bytes())) as writer:
        for i in range(100):
            writer.write({"a": np.full(100_000, i), "b": bytes([i]) * (i * 1000)})
    for one, other in zip(loader(url, 0, batch_size=50), loader(url, 2, batch_size=50), strict=True):
        assert_same(one, other)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_stats_count_what_was_done(urls, num_workers, tmp_path):
    """Batches, rows, blocks and bytes are counted once, with workers as without; seconds say which stage took long."""
    one = loader(urls["blocks"], num_workers, batch_size=64, shuffle=True, transform=slow_and_odd, lanes=4)
    assert one.stats()["num_batches"] == 0 and set(one.stats()["seconds"].values()) == {0}
    for _ in one:
        time.sleep(0.01)
    stats = one.stats()
    source = one.dataset.source
    stored = sum(int(source.load_index(shard, Fetcher()).extents[:, :, 1].sum()) for shard in range(source.num_shards))
    assert (stats["num_batches"], stats["num_rows"], stats["num_dropped"],
            stats["num_skipped"]) == (16, NUM // 2, NUM // 2, 0)  # fmt: skip
    assert stats["num_bytes_read"] >= stored and stats["num_blocks"] >= source.num_shards
    assert stats["num_cache_hits"] == stats["num_bytes_cached"] == 0
    assert stats["seconds"]["wait_for_consumer"] >= 16 * 0.01 and stats["seconds"]["transform"] >= NUM // 2 * 0.0001
    used = {name for name, seconds in stats["seconds"].items() if seconds}
    assert used >= {"fetch", "verify", "decode", "wait_for_blocks", "gather", "transform", "wait_for_consumer"}
    assert ({"hand_over", "wait_for_workers"} <= used) == (num_workers > 0)


def slow_and_odd(sample):
    """Drop every second sample, and take 100 us for each of the others."""
    if int(sample["y"]) % 2 == 0:
        return None
    time.sleep(0.0001)
    return {"y": sample["y"]}

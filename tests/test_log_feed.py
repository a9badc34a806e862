"""Entries as they come: each once, in order, few requests, whatever stands beside the log."""

import random

import pytest

from shardstream.errors import DatasetError
from shardstream.log import EntryFeed, entries
from tests.synthetic_log import DATASET, SyntheticLog


def read_all(feed: EntryFeed) -> list[int]:
    """Return the versions of all entries until none comes."""
    versions = []
    while steps := feed.read():
        versions += [step.entry.version for step in steps]
    return versions


@pytest.mark.parametrize("start, version", [(0, 0), (0, 1), (0, 5), (3, 21), (0, 200), (900, 1100), (0, 2500), (5000, 5000), (1023, 2049)])
def test_every_entry_comes_once_in_order(start, version):
    """From any version the rest of the log comes, with its shards, and then nothing."""
    log = SyntheticLog(version)
    feed = EntryFeed(log.read_many, DATASET, start)
    shards = []
    while steps := feed.read():
        assert [step.entry.version for step in steps] == list(range(feed.version - len(steps) + 1, feed.version + 1))
        shards += [(step.entry.version, step.added.sid(0), int(step.added.num_samples[0])) for step in steps]
    table = log.state(version).shards
    assert shards == [(v, table.sid(v - 1), int(table.num_samples[v - 1])) for v in range(start + 1, version + 1)]
    assert feed.read() == [] and not feed.is_behind


def test_an_idle_look_is_one_request():
    """While nothing comes, each look asks for the next number alone; one new entry costs that and the look after it."""
    log = SyntheticLog(8)
    feed = EntryFeed(log.read_many, DATASET, 8)
    for _ in range(5):
        assert feed.read() == []
    assert log.rounds == [[entries.name(9)]] * 5
    log.version = 9
    assert [step.entry.version for step in feed.read()] == [9]
    assert feed.is_behind and log.rounds[-1] == [entries.name(9)]


def test_a_long_backlog_takes_few_rounds():
    """10,000 entries come out of the folds: some three rounds for each 1,024 of them, and a bounded number at once."""
    log = SyntheticLog(10_000)
    feed, most = EntryFeed(log.read_many, DATASET, 0), 0
    while steps := feed.read():
        most = max(most, len(steps))
    assert feed.version == 10_000 and most <= 960
    assert len(log.rounds) < 60 and log.num_requests < 400


@pytest.mark.parametrize("seed", range(3))
def test_lost_and_spoilt_folds_change_nothing(seed):
    """Whatever becomes of the folds, the entries are the same."""
    choose, log = random.Random(seed), SyntheticLog(1100)
    for end in range(4, 1100, 4):
        name = entries.name(end, "tail")
        data = log.get(name)
        if data is not None and choose.random() < 0.7:
            place = choose.randrange(len(data))
            log.changed[name] = choose.choice([None, b"", data[:place], data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]])
    start = choose.randrange(1100)
    assert read_all(EntryFeed(log.read_many, DATASET, start)) == list(range(start + 1, 1101))


def test_folds_of_a_former_dataset_are_passed_over():
    """A fold counts only if it is of the dataset that is followed."""
    log, other = SyntheticLog(100), SyntheticLog(100)
    name = entries.name(64, "tail")
    log.changed[name] = other.get(name).replace(DATASET.encode(), DATASET.replace("0189", "0188").encode())
    assert read_all(EntryFeed(log.read_many, DATASET, 0)) == list(range(1, 101))


def test_entries_of_another_dataset_and_damage_are_errors():
    """An entry that bears another id, or does not match its checksum, is an error that names it."""
    log = SyntheticLog(5)
    with pytest.raises(DatasetError, match="belongs to dataset"):
        read_all(EntryFeed(log.read_many, DATASET.replace("0189", "0188"), 0))
    log.changed[entries.name(3)] = log.get(entries.name(3))[:-1]
    feed = EntryFeed(log.read_many, DATASET, 0)
    with pytest.raises(DatasetError, match="003.json"):
        read_all(feed)
    assert feed.version == 2  # what stands before it came

"""version= a number, a tag or a time: the same bytes as then, or an error that says why not."""

import time
from datetime import datetime, timedelta, timezone

import pytest

import shardstream as ss
from shardstream.errors import ConfigError, DatasetNotFoundError, StateError
from shardstream.log import Log, travel
from shardstream.log.opening import HINT_EXPIRED, Opening
from shardstream.storage import Store
from tests.synthetic_log import SyntheticLog

SCHEMA = ss.Schema(y=ss.Dense("int64"))


@pytest.fixture(params=["local", "memory", "s3"])
def anywhere(request, tmp_path):
    if request.param == "local":
        return str(tmp_path / "dataset")
    return f"memory://{tmp_path.name}" if request.param == "memory" else request.getfixturevalue("s3").url


@pytest.fixture
def url(tmp_path):
    return str(tmp_path / "dataset")


def named(log, name):
    return Opening(log.read_many, "here").named(name)


def append(url, *values: int) -> None:
    with ss.ShardWriter(str(url), schema=SCHEMA) as writer:
        for value in values:
            writer.write({"y": value})


def read(url, version) -> list[int]:
    return [int(row["y"]) for row in ss.ShardStream(str(url), version=version)]


def test_a_number_a_tag_and_a_time_name_a_version(anywhere):
    """Each gives what was the newest then, in Dataset and ShardStream, whatever was appended since."""
    url = anywhere
    append(url, 1, 2)
    log = Log(Store(url))
    log.tag("first", 1)
    then = datetime.fromtimestamp(log.entry(2).time, timezone.utc)
    time.sleep(0.01)
    append(url, 3)
    for version in (1, "1", "first", 2, then, then.isoformat(), then.astimezone(timezone(timedelta(hours=5)))):
        assert ss.Dataset(url, version=version).version in (1, 2)
        assert read(url, version) == [1, 2]
    assert ss.Dataset(url, version=then).version == 2 and ss.Dataset(url, version="first").version == 1
    assert read(url, None) == read(url, 3) == [1, 2, 3]


def test_a_moved_tag_does_not_move_a_run(url):
    """A tag is resolved once: a state goes on in the version that it meant when the run began."""
    append(url, 1, 2)
    log = Log(Store(url))
    log.tag("good", 1)
    stream = ss.ShardStream(url, version="good", batch_size=1)
    rows = iter(stream)
    next(rows)
    state = stream.state_dict()
    assert state["version"] == 1
    append(url, 3)
    log.tag("good", 3)
    resumed = ss.ShardStream(url, version="good", batch_size=1)
    resumed.load_state_dict(state)
    assert [batch["y"].tolist() for batch in resumed] == [[2]]
    assert read(url, "good") == [1, 2, 3]
    other = ss.ShardStream(url, version=3)  # a number is an order, and this state is of another
    with pytest.raises(StateError, match="version=1"):
        other.load_state_dict(state)


def test_what_is_no_version(url):
    """Unknown tags, times before the beginning or still to come, and values that are none are typed errors."""
    append(url, 1)
    Log(Store(url)).tag("release-1", 1)
    for version, error, words in [
        ("relaese-1", DatasetNotFoundError, "did you mean 'release-1'"),
        (7, DatasetNotFoundError, "no version 7"),
        ("2001-01-01", DatasetNotFoundError, "began at"),
        ("2999-01-01", ConfigError, "still to come"),
        ("2026-13-45", ConfigError, "not a version's number"),
        ("", ConfigError, "not a version's number"),
        (-1, ConfigError, "not a version's number"),
        (1.5, ConfigError, "not a version's number"),
        (True, ConfigError, "not a version's number"),
    ]:
        with pytest.raises(error, match=words):
            ss.Dataset(url, version=version)
        with pytest.raises(error, match=words):
            len(ss.ShardStream(url, version=version))


def test_an_expired_version_is_an_error(url):
    """Once gc has given up a version, opening it says so, however it is named; tagged ones stay open."""
    for value in range(4):
        append(url, value)
    log = Log(Store(url))
    log.tag("keep", 2)
    then = datetime.fromtimestamp(log.entry(1).time, timezone.utc)
    number = log.expire(4)
    log.store.put_bytes(HINT_EXPIRED, b"%d" % number)  # as gc does before it deletes
    for version in (1, 3, then):
        with pytest.raises(DatasetNotFoundError, match="has expired: gc gave up the versions below 4"):
            ss.Dataset(url, version=version)
    assert read(url, "keep") == read(url, 2) == [0, 1]
    assert read(url, 4) == [0, 1, 2, 3]


@pytest.mark.parametrize("hint", [b"99", b"1", b"junk", b""])
def test_a_wrong_expiry_hint_is_passed_over(tmp_path, hint):
    """A hint that names no expire entry, or none at all, changes nothing."""
    append(tmp_path, 1)
    Store(tmp_path).put_bytes(HINT_EXPIRED, hint)
    assert read(tmp_path, 1) == [1]


@pytest.mark.parametrize("length", [0, 1, 2, 15, 16, 17, 18, 300, 5000])
def test_a_time_is_found_in_few_rounds(length):
    """Every time gives the newest entry not later, in rounds of 16 requests that grow with the log's logarithm."""
    for wanted in {0, 1, length // 3, length - 1, length} - {-1}:
        log = SyntheticLog(length)
        for offset in (0.0, 0.5):
            name = travel.canonical(datetime.fromtimestamp(1e9 + wanted + offset, timezone.utc))
            assert named(log, name).state.version == min(wanted, length)
        assert len(log.rounds) <= 2 * (3 + 4) and max(map(len, log.rounds)) <= 17

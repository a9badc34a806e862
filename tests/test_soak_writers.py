"""Eight writers at once, three of them killed and restarted, one a zombie: the short form of ``make soak-writers``."""

import pytest

from tests import soak_writers


@pytest.mark.parametrize("place", ["local", "s3"])
def test_every_record_once_whoever_is_killed(request, tmp_path, place):
    """Every record of every writer is in the dataset once, in order; no gap in the log; what the dead left is not
    counted.
    """
    url = str(tmp_path / "d") if place == "local" else request.getfixturevalue("s3").url
    # A commit is a round trip on S3, and 8 writers race for each: fewer of them, of more records.
    done = soak_writers.run(url, seed=1, count=60, **({} if place == "local" else {"pause_s": 0.03, "latency_s": 0.6}))
    assert done.num_records == 480 and len(done.killed_at) == 3 and done.zombie_status == soak_writers.FENCED


def test_every_record_once_while_others_compact_and_collect(tmp_path):
    """A process that merges and deletes meanwhile, killed and started again itself, loses and doubles nothing."""
    done = soak_writers.run(str(tmp_path / "d"), seed=2, count=60, is_tidied=True)
    assert done.num_records == 480 and done.num_compacted > 0

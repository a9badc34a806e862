"""Twin of ``order/follow.py`` and ``following.py``: the whole sequence of a run that follows, from docs/FORMAT.md 7.7
alone.
"""

from tests.twins import order


def sequence(entries, *, start, seed=0, lanes=1, window=1, shuffle=True, group=1, until=None, whole=None):
    """The samples at the cumulative positions 0, 1, 2, ... of a run that begins at version ``start``.

    Args:
        entries: ``(version, kind, shards)`` in the log's order; each shard is the list of its samples.
        whole: The shards of version ``start``, if these come first.
    """
    segments = [] if whole is None else [(start, whole)]
    waiting, num_waiting = [], 0
    for version, kind, shards in entries:
        if version <= start or (until is not None and version > until):
            continue
        if kind == "append" and shards:
            waiting, num_waiting = waiting + shards, num_waiting + 1
        if num_waiting and (num_waiting == group or kind == "end" or version == until):
            segments.append((version, waiting))
            waiting, num_waiting = [], 0
        if kind == "end":
            break
    samples = []
    for version, shards in segments:
        sizes, base = [len(shard) for shard in shards], len(samples)
        for position in range(sum(sizes)):
            if shuffle:
                shard, row = order.sample(seed, version, sizes, lanes, window, position, base % lanes)
                samples.append(shards[shard][row])
            else:
                samples.append([sample for shard in shards for sample in shard][position])
    return samples

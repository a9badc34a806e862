"""The readable twin of opening a log: read every entry from 0 on, keep Python lists and dicts."""

from __future__ import annotations

import itertools
import json


def opened(get) -> dict:
    """Return what a log amounts to; ``get(name)`` is an object's bytes or None."""
    shards, producers, tags, schema, time, expired, ended = {}, {}, {}, None, 0.0, (0, []), None
    for version in itertools.count():
        data = get(f"_log/{version:020d}.json")
        if data is None:
            break
        entry = json.loads(data)
        time = max(time, entry["time"])
        schema = entry.get("schema", schema)
        for shard in entry.get("add", []):
            shards[shard["sid"]] = {**shard, "entry": version}
        for sid in entry.get("remove", []):
            del shards[sid]
        if "producer" in entry:
            source = entry.get("source", producers.get(entry["producer"], (None, None))[1])
            producers[entry["producer"]] = (entry["incarnation"], source, version)
        if entry["kind"] == "tag" and "tagged" in entry:
            tags[entry["tag"]] = entry["tagged"]
        elif entry["kind"] == "tag":
            tags.pop(entry["tag"], None)
        elif entry["kind"] == "expire":
            expired = (max(expired[0], entry["below"]), entry.get("keep", []))
        elif entry["kind"] == "end":
            ended = version
    return {"version": version - 1, "shards": list(shards.values()), "producers": producers, "tags": tags, "schema": schema,
            "time": time, "expired": expired, "ended": ended}  # fmt: skip

"""A dataset's log: immutable shards, one entry a commit, versions that never change.

===============  ===========================================================================
module           what it has
===============  ===========================================================================
``log``          :class:`Log`: opening, committing, putting folds
``snapshot``     :class:`Snapshot`: one version as readers see it
``table``        :class:`ShardTable`: a version's shards as columns
``entries``      :class:`Entry` and its bytes
``state``        what entries mean: a pure fold
``proposals``    what may be appended when: the preconditions
``commit``       the commit rule, free of any store
``folds``        many entries as one file
``opening``      from objects to the newest state in two rounds of requests
``feed``         :class:`EntryFeed`: entries as they come, for followers
``travel``       which version a number, a tag or a time means
``ids``          UUIDv7
===============  ===========================================================================

Imports ``storage``, ``schema`` and ``errors``; formats in docs/FORMAT.md, section 1.
"""

from shardstream.log.entries import Entry, ShardRecord
from shardstream.log.feed import EntryFeed
from shardstream.log.ids import new_id
from shardstream.log.log import Log
from shardstream.log.snapshot import Snapshot
from shardstream.log.state import Producer, Step
from shardstream.log.table import ShardTable

__all__ = ["Entry", "EntryFeed", "Log", "Producer", "ShardRecord", "ShardTable", "Snapshot", "Step", "new_id"]

"""Looking after a dataset: merging small shards, removing samples, naming versions, taking away what nobody needs.

=============  ===========================================================================
module         what it has
=============  ===========================================================================
``compact``    :func:`compact` and :func:`drop`: the same samples, or fewer, in better shards
``rewrite``    shards rewritten sample by sample, each sample keeping its id
``ids``        :func:`ids`: what samples are called, for ever
``collect``    :func:`gc`: what no kept version needs, and what was never committed
``marks``      :func:`tag`, :func:`untag`, :func:`end`
=============  ===========================================================================

All of it may run beside writers and readers, and may be killed at any moment: what was committed stays whole, and what
was not is for the next :func:`gc`.
"""

from shardstream.upkeep.collect import Collected, gc
from shardstream.upkeep.compact import Compacted, compact, drop
from shardstream.upkeep.ids import ids
from shardstream.upkeep.marks import end, tag, untag

__all__ = ["Collected", "Compacted", "compact", "drop", "end", "gc", "ids", "tag", "untag"]

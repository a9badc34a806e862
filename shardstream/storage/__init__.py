"""Local disk and object stores behind one small interface; the only layer that imports fsspec.

=============  ===========================================================================
module         what it has
=============  ===========================================================================
``store``      :class:`Store`: one dataset's objects; put-if-absent, the log's one primitive
``fetch``      :class:`Fetcher`: exact byte ranges of shards, for many threads
``urls``       URLs and the patterns that stand for many: :func:`expand_urls`
``retry``      a request tried until it succeeds, cannot succeed, or runs out of time
``clients``    fsspec clients by process id
``local``      atomic, durable files
``secrets``    credentials stay out of pickles
=============  ===========================================================================
"""

from shardstream.config import RetryPolicy
from shardstream.storage.fetch import Fetcher
from shardstream.storage.store import Store
from shardstream.storage.urls import expand_urls

__all__ = ["Fetcher", "RetryPolicy", "Store", "expand_urls"]

"""Local disk and object stores behind one small interface; the only layer that imports fsspec.

=============  ===========================================================================
module         what it has
=============  ===========================================================================
``store``      :class:`Store`: one dataset's objects; put-if-absent, the log's one primitive
``fetch``      :class:`Fetcher`: exact byte ranges of shards, for many threads
``cache``      :class:`Cache`: remote blocks kept on local disk, within a limit
``urls``       URLs and the patterns that stand for many: :func:`expand_urls`
``find``       files below a folder, for packing jobs
``uploads``    finished files to S3, large ones in parts
``ranges``     ranged GETs as futures, by fsspec or obstore
``pace``       how many requests are in flight; second requests for slow ones
``retry``      a request tried until it succeeds, cannot succeed, or runs out of time
``clients``    fsspec clients by process id
``threads``    calls on daemon threads
``local``      atomic, durable files
``secrets``    credentials stay out of pickles and messages
=============  ===========================================================================
"""

from shardstream.config import RetryPolicy
from shardstream.storage.cache import Cache
from shardstream.storage.fetch import Fetcher
from shardstream.storage.store import Store
from shardstream.storage.urls import expand_urls

__all__ = ["Cache", "Fetcher", "RetryPolicy", "Store", "expand_urls"]

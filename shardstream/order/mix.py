"""The order of a mixture: which source each position draws from, and which of its samples.

Sources share their number of lanes, and lane ``l`` of the mixture draws from lane ``l`` of each source, so
a reader reads its own lanes of all of them. In a lane the draws come in blocks of 1,024, each with a fixed
number for every source, permuted by the cipher. The numbers follow the weights exactly over 1,024 blocks
(2^20 draws) and within a few draws at any time.

Weights hold from a position on: a **piece**. Changing them at a resume appends a piece; what a source has
delivered before is counted, not stored. How the mixture ends:

==========  ==================================================================================
``stop``    the last position is
==========  ==================================================================================
"first"     the one before the first draw from a source that has nothing left in that lane
"rest"      the end of everything: draws from a source that is used up are passed over
"repeat"    the one that completes the last source; used up ones go on with their next epoch
==========  ==================================================================================

Twin: ``tests/twins/mix.py``; docs/FORMAT.md section 7.6.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np

from shardstream._native import order as native
from shardstream.errors import ConfigError
from shardstream.order import schedule
from shardstream.order.epoch import MIX, EpochOrder, normalize_seed

DRAWS = 1024  # of one lane, permuted together
BLOCKS = 1024  # after which the quotas are exact and come again

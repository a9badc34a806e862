"""Transforms of stream rows, in C where they work on arrays.

``ShardStream(transform=)`` takes a function of one sample, a dict, or, marked ``@ss.batched``, of the
columns of any number of rows. It never learns what else is in a batch, so that rows are the same for
every batch size and number of workers. Marked ``@ss.placed``, too, it gets a :class:`Place` as its second
argument, and may be random by that and by nothing else: then a resumed run repeats what it did.
"""

from shardstream.transforms.marks import Place, batched, placed

__all__ = ["Place", "batched", "placed"]

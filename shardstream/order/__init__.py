"""Which sample comes when: pure functions of sizes, seed, epoch and position; no I/O.

=============  ==============================================================================================
``epoch``      the order of one epoch, position -> sample (``EpochOrder``)
``batches``    positions of each batch, rank and worker; how an epoch ends
``schedule``   which block is needed from when until when
``mix``        the order of a mixture of several sources (``mix_schedule``, ``mix_rows``, ``mix_state``: as for one)
``follow``     the order over the segments of a growing dataset
``state``      the dict that a training run saves
=============  ==============================================================================================

docs/FORMAT.md sections 7 and 8 state all of it so that a stranger can rebuild it.
"""

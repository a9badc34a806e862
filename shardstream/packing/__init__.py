"""Packing jobs: a source of records, steps, fields, and datasets of shards, as a YAML file says.

``configs/pack_text_sparse.yaml`` shows every key; ``shardstream pack`` and :func:`shardstream.pack`
run it. The way of a record::

    sources/ -> splits.py -> steps/ -> fields.py, encode.py -> make.py -> assembly.py -> publish.py
    (read)      (which)      (change)  (columns, arrays)       (blocks)   (shards)       (log)

``document.py`` and ``config.py`` check the file; ``job.py`` is the job, ``engines/`` who does its
work, ``journal.py`` what a killed one goes on from.
"""

from shardstream.packing.classes import class_names
from shardstream.packing.job import PackedDataset, PackReport, pack

__all__ = ["PackReport", "PackedDataset", "class_names", "pack"]

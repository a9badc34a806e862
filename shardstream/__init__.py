"""Stream shuffled training samples from tar shards into PyTorch, exactly once, with a C core.

Public names are loaded when they are first used, so importing this package is quick and needs neither
torch nor fsspec until a stream or a store does.
"""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

_HOME = {
    "config": ["ReadPolicy", "RetryPolicy"],
    "dataset": ["Dataset"],
    "collate": ["Jagged", "KeyedJagged"],
    "expand": ["sparse_collate"],
    "forms": ["Padded"],
    "loader": ["StreamLoader"],
    "mixture": ["mix"],
    "memmap.dataset": ["MemmapDataset"],
    "memmap.writer": ["MemmapWriter"],
    "memory": ["MemoryDataset"],
    "packing": ["pack"],
    "schema": ["Bytes", "Dense", "Ragged", "Schema", "Sparse", "Text"],
    "shard_dataset": ["ShardDataset"],
    "stream": ["ShardStream"],
    "transforms": ["Place", "batched", "placed"],
    "writer": ["ShardWriter"],
    "errors": ["ChecksumError", "CodecError", "ConfigError", "Conflict", "DatasetError", "DatasetNotFoundError",
               "EmptyDatasetError", "ProducerFenced", "RowErrors", "SampleError", "SchemaError", "ShardError", "ShardNotFoundError",
               "ShardstreamError", "StateError", "StorageError", "TextError", "TokenizerError", "TransformError", "UnsafeFieldError", "WorkerError"],
}  # fmt: skip
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}
_SUBMODULES = ("text", "tokenizers", "transforms", "upkeep")

__all__ = sorted([*_MODULE_OF, "__version__"])


def __getattr__(name: str):
    if name in _MODULE_OF:
        value = getattr(importlib.import_module(f"shardstream.{_MODULE_OF[name]}"), name)
    elif name in _SUBMODULES:
        value = importlib.import_module(f"shardstream.{name}")
    else:
        raise AttributeError(f"module 'shardstream' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF, *_SUBMODULES})

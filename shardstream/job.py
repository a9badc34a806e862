"""The job that this process is a part of: its rank, and what all ranks must agree on.

Ranks agree through the key-value store of torch.distributed, not by a collective: the first rank to open a stream
pins the dataset's version for all, and nobody waits for anybody. So a rank that looks at a stream alone blocks no
other, and nothing has to be ordered among the collectives of training.
"""

from __future__ import annotations

import json
import os
import time
import warnings
import weakref
from collections import Counter
from typing import Any

import torch

from shardstream.errors import ConfigError

YOUNG_S = 600.0  # an entry younger than this may have come between the opening of two ranks

# How often this process has opened each dataset, for each process group it was in.
_num_opened: weakref.WeakKeyDictionary[Any, Counter] = weakref.WeakKeyDictionary()


def current_place() -> tuple[int, int]:
    """Return (rank, world_size) of torch.distributed if it is initialised, else of RANK and WORLD_SIZE, else (0, 1)."""
    if is_distributed():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    rank, world_size = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    if not rank.isdigit() or not world_size.isdigit() or not int(rank) < int(world_size):
        raise ConfigError(f"RANK={rank!r} and WORLD_SIZE={world_size!r} of the environment are not a "
                          "rank and a world size.")  # fmt: skip
    return int(rank), int(world_size)


def is_distributed() -> bool:
    """Return whether this process is in a process group of torch.distributed."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def agreed_version(dataset: str, version: int, arguments: dict[str, Any]) -> int:
    """Return the version of a dataset that all ranks take: the one that the first of them saw.

    Args:
        dataset: Its id.
        version: The newest that this rank sees.
        arguments: Of the stream, those that must be equal on all ranks.

    Raises:
        ConfigError: Another rank has opened a stream with other arguments at this turn.
    """
    store = torch.distributed.distributed_c10d._get_default_store()
    opened = _num_opened.setdefault(store, Counter())
    opened[dataset] += 1
    mine = json.dumps({"version": version, "rank": torch.distributed.get_rank(), "arguments": arguments},
                      sort_keys=True)  # fmt: skip
    first = json.loads(store.compare_set(f"shardstream/{dataset}/{opened[dataset]}", "", mine))
    if first["arguments"] != json.loads(mine)["arguments"]:
        raise ConfigError(f"rank {torch.distributed.get_rank()} opens a stream of dataset {dataset} with {arguments}, but rank {first['rank']} "
                          f"with {first['arguments']}: all ranks must open the same streams in the same order.")  # fmt: skip
    return first["version"]


def warn_if_young(entry_time: float, version: int) -> None:
    """Warn if the dataset grew so recently that processes which look for themselves may see different versions."""
    if time.time() - entry_time < YOUNG_S:
        warnings.warn(f"version {version} of the dataset is less than {YOUNG_S / 60:.0f} minutes old, and each process takes the newest version "
                      "it sees: initialise torch.distributed, or give all of them the same version=.", stacklevel=2)  # fmt: skip

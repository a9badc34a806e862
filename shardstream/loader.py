"""``StreamLoader``: a stream's batches, with exact state, for training loops."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from shardstream.collate import Jagged
from shardstream.errors import ConfigError
from shardstream.stream import ShardStream


class StreamLoader:
    """Iterates a :class:`ShardStream`; reading and decoding run ahead in threads of this process.

    Args:
        stream: What to load; its batches become the loader's.
        pin_memory: Copy tensors into page-locked memory; ignored where there is no CUDA.
        collate: Function of a whole batch (or sample), called in this process on each.

    ``state_dict`` and ``load_state_dict`` are what Lightning and torch.distributed.checkpoint look for; a state
    counts exactly the batches that the loop has received.
    """

    def __init__(self, stream: ShardStream, pin_memory: bool = False, collate: Callable | None = None):
        if not isinstance(stream, ShardStream):
            raise ConfigError(f"StreamLoader takes an ss.ShardStream, not {type(stream).__name__}.")
        self.dataset = stream
        self._pin = pin_memory and torch.cuda.is_available()
        self._collate = collate

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[Any]:
        return self.dataset.iterate(self.dataset.portions, self._finish)

    def _finish(self, batch: Any) -> Any:
        if self._collate is not None:
            batch = self._collate(batch)
        return pin(batch) if self._pin else batch

    def set_epoch(self, epoch: int) -> None:
        """See :meth:`ShardStream.set_epoch`."""
        self.dataset.set_epoch(epoch)

    def state_dict(self) -> dict:
        """See :meth:`ShardStream.state_dict`."""
        return self.dataset.state_dict()

    def load_state_dict(self, state: dict) -> None:
        """See :meth:`ShardStream.load_state_dict`."""
        self.dataset.load_state_dict(state)


def pin(batch: Any) -> Any:
    """Return ``batch`` with its tensors in page-locked memory."""
    if isinstance(batch, torch.Tensor):
        return batch.pin_memory() if batch.layout == torch.strided else batch
    if isinstance(batch, Jagged):
        return Jagged(*(None if part is None else part.pin_memory() for part in batch))
    if isinstance(batch, dict):
        return {name: pin(column) for name, column in batch.items()}
    if isinstance(batch, (list, tuple)):
        return type(batch)(map(pin, batch))
    return batch

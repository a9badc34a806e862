"""``StreamLoader``: a stream's batches, with exact state, for training loops."""

from __future__ import annotations

import contextlib
import multiprocessing
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch

from shardstream.errors import ConfigError
from shardstream.stats import COUNTS, SECONDS, Stats
from shardstream.stream import ShardStream
from shardstream.workers import Workers


class StreamLoader:
    """Iterates a :class:`ShardStream`; reading, decoding and, in worker processes, transforming run ahead.

    Batches do not depend on ``num_workers``. Workers start with the first iteration and stay until the loader goes, or until an iteration
    ends early; they never outlive this process. The fork server that they come from imports torch, for a second or two, from when the
    loader is made: what a program does between that and its first batch, such as making a model, costs no waiting. Each worker has a
    ``memory_limit`` of its own.

    Args:
        stream: What to load; its batches become the loader's.
        num_workers: Processes that make rows; 0 reads in threads of this process. Without a ``transform`` that is faster, for what
            workers make is copied once more; they are for transforms in Python, and for decoding that takes more than one core.
        pin_memory: Copy tensors into page-locked memory; where there is no CUDA a warning says that it is not done, as
            torch's does.
        collate: Function of a whole batch (or sample), called in this process on each.
        multiprocessing_context: How workers start: "forkserver", "spawn" or "fork", or a context of
            multiprocessing. With the first two, ``transform`` must pickle. "fork" saves the second or two of the fork server, but a
            lock that another thread holds just then stays held in the worker, and remote shards are read without obstore.

    ``state_dict`` and ``load_state_dict`` are what Lightning and torch.distributed.checkpoint look for; a state
    counts exactly the batches that the loop has received, however far workers are ahead.
    """

    def __init__(self, stream: ShardStream, num_workers: int = 0, pin_memory: bool = False, collate: Callable | None = None,
                 multiprocessing_context: Any = "forkserver"):  # fmt: skip
        if not isinstance(stream, ShardStream):
            raise ConfigError(f"StreamLoader takes an ss.ShardStream, not {type(stream).__name__}.")
        if isinstance(num_workers, bool) or not isinstance(num_workers, int) or num_workers < 0:
            raise ConfigError(f"num_workers={num_workers!r} must be an integer of at least 0.")
        if isinstance(multiprocessing_context, str) and multiprocessing_context not in (methods := multiprocessing.get_all_start_methods()):
            raise ConfigError(f"multiprocessing_context={multiprocessing_context!r} is not one of "
                              f"{', '.join(methods)}.")  # fmt: skip
        if collate is not None and not callable(collate):
            raise ConfigError(f"collate={collate!r:.100} is not a function.")
        self.dataset = stream
        self.num_workers = num_workers
        self._pin = pin_memory and torch.cuda.is_available()
        if pin_memory and not self._pin:
            warnings.warn("pin_memory=True, but there is no CUDA: batches stay in ordinary memory.", stacklevel=2)
        self._collate = collate
        self._portions = stream.portions
        self._stats, self._workers_stats = Stats(), Stats()
        # A mixture with a stream that follows is read as what it is, several streams.
        self._parts = [StreamLoader(part, num_workers, multiprocessing_context=multiprocessing_context) for part in getattr(stream, "parts", ())]
        if num_workers and not self._parts:
            workers = Workers(num_workers, multiprocessing_context)
            self._portions = lambda task: workers.portions(task, stream.source, stream.recipe)
            self._workers_stats = workers.stats
            weakref.finalize(self, workers.stop)

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[Any]:
        if self._parts:
            return self._watched(self.dataset.joined([iter(part) for part in self._parts], self._finish))
        return self._watched(self.dataset.iterate(self._portions, self._finish, num_workers=max(1, self.num_workers)))

    def _watched(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Yield ``batches``, and count them and the time until the next one is asked for."""
        with contextlib.closing(batches):
            for batch in batches:
                last = [batch]
                del batch  # so that nothing keeps it while the next one is made; see ShardStream._delivered
                begun = time.perf_counter()
                yield last.pop()
                self._stats.add(num_batches=1, wait_for_consumer=time.perf_counter() - begun)

    def _finish(self, batch: Any) -> Any:
        if self._collate is not None:
            batch = self._collate(batch)
        return pin(batch) if self._pin else batch

    def stats(self) -> dict[str, Any]:
        """Return where time and bytes have gone since the loader was made, in this process and its workers together.

        ``"seconds"`` is a dict by stage. Stages of threads and workers overlap, so they do not sum up to the time that
        passed:

        =====================  =====================================================================================
        ``fetch``              threads: waiting for bytes of the store, the disk or the cache
        ``verify``             threads: checksums
        ``decode``             threads: bytes to columns
        ``wait_for_blocks``    whoever makes rows (this process, or each worker) planned, or had to wait for these threads
        ``gather``             rows of a batch from the blocks held, or samples of the files layout decoded
        ``transform``          the transform, and collating its rows
        ``wait_for_slot``      workers: were ahead, and waited until a batch was taken
        ``hand_over``          workers: rows into shared memory; this process: batches out of it
        ``wait_for_workers``   this process had to wait for workers
        ``wait_for_consumer``  the loop's own time between two batches
        =====================  =====================================================================================

        The rest are counts: ``num_batches``, ``num_rows``, ``num_blocks`` read, ``num_bytes_read`` (stored bytes, from
        the cache too), ``num_bytes_cached`` and ``num_cache_hits`` of these, and ``num_skipped`` and ``num_dropped``
        samples. With workers, what they have done for batches not delivered yet counts when these are.
        """
        # Parts share what the dataset counts; each has workers of its own.
        parts = [part.sums() for part in (self._stats, self.dataset.stats, self._workers_stats, *(part._workers_stats for part in self._parts))]
        sums = {name: sum(part[name] for part in parts) for name in (*SECONDS, *COUNTS)}
        report = self.dataset.report
        return {"seconds": {name: sums[name] for name in SECONDS}, **{name: sums[name] for name in COUNTS},
                "num_skipped": report.num_skipped, "num_dropped": report.num_dropped}  # fmt: skip

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
    if isinstance(batch, dict):
        return {name: pin(column) for name, column in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):  # ss.Jagged is one
        return type(batch)(*map(pin, batch))
    if isinstance(batch, (list, tuple)):
        return type(batch)(map(pin, batch))
    return batch

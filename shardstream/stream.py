"""``ShardStream``: an IterableDataset over shards, in a shuffled order that is a function of a few numbers.

The way of a batch: ``order.batches.BatchPlan`` says which positions it has, ``order.epoch.EpochOrder`` which
samples these are, ``rowmaker.RowMaker`` reads and gathers them. What the loop has consumed is one number, the
position; ``state_dict()`` is that and a few more.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from datetime import datetime
from multiprocessing.context import get_spawning_popen
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info

from shardstream.collate import empty_like, split_rows
from shardstream.config import ReadPolicy
from shardstream.errors import ConfigError, DatasetNotFoundError, EmptyDatasetError, ShardNotFoundError
from shardstream.following import Follower, FollowOptions, GrowingSource, followed_log, start_of
from shardstream.forms import Forms, Padded
from shardstream.job import agreed_version, current_place, is_distributed, warn_if_young
from shardstream.log import Log
from shardstream.log.travel import canonical
from shardstream.order.batches import BatchPlan
from shardstream.order.epoch import normalize_seed, resolve_lanes, resolve_window
from shardstream.order.schedule import readers_per_block
from shardstream.order.state import SEQUENCE, SHUFFLE, State
from shardstream.reader import BlockReader
from shardstream.rowmaker import SAMPLES, Portion, Recipe, Report, RowMaker, Task
from shardstream.source import Source, open_source, source_of_snapshot
from shardstream.stats import Stats
from shardstream.storage import Cache
from shardstream.storage.urls import checked_urls
from shardstream.transforms.marks import check_callable

SAMPLES_AT_ONCE = 256  # rows gathered together when samples are delivered one by one
CACHE_LIMIT = "100GB"
MAX_EXAMPLES = 1024  # samples looked at to learn what a batch without rows looks like


def _check_kinds(flags: dict[str, Any], integers: dict[str, Any], read: Any) -> None:
    """Raise ConfigError for what is no bool, such as "no", which would count as True; no integer or None; no ReadPolicy or None."""
    for name, flag in flags.items():
        if flag not in (True, False):
            raise ConfigError(f"{name}={flag!r} must be True or False.")
    for name, number in integers.items():
        if number is not None and (isinstance(number, bool) or not hasattr(number, "__index__")):
            raise ConfigError(f"{name}={number!r} must be an integer.")
    if read is not None and not isinstance(read, ReadPolicy):
        raise ConfigError(f"read={read!r} must be an ss.ReadPolicy.")


class ShardStream(IterableDataset):
    """Streams the samples of a dataset or of WebDataset shards, shuffled, resumable, each exactly once an epoch.

    Args:
        url_or_urls: URL of a dataset; or shards, as a list, glob, brace pattern or folder, local or remote.
        batch_size: Rows of a batch on this rank, or None for single samples.
        shuffle: A new order in every epoch, or the log's order.
        seed: Of the shuffle.
        epochs: Epochs after which an iterator ends: where the number of the next epoch is a multiple of it.
        fields: Names to deliver; nothing else is read.
        sparse: Form of sparse fields, or a dict by field: "dense", "csr", "jagged", "indices" (``assemble.py``).
        dtypes: Dict of field to dtype; by default uint16, uint32 and uint64 come as int64, all else as stored.
        transform: Function of one sample (a dict), which may return None to drop it; or, marked
            ``@ss.batched``, of the columns of any number of rows. Marked ``@ss.placed`` it gets an ``ss.Place``
            besides: seed, epoch and position, which are all that it may be random by. A batch that loses all of its
            rows has the columns of the others, without rows; but no columns if this rank had no row yet and none of the
            epoch's first 1,024 samples is left either.
        on_error: "raise", or "skip" unreadable blocks, samples of WebDataset shards with a field that can't be decoded,
            and rows for which ``transform`` raises :class:`SampleError` (:class:`RowErrors` in a batched one), counted
            in ``report``, up to ``read.max_skipped`` samples.
        drop_last: Of a last, short batch: False delivers it short, True leaves it out, "pad" fills it from the
            epoch's start; batches then have a bool column ``__pad__``.
        version: A version's number, a tag, or a time (a ``datetime`` or ISO 8601, UTC if it has no offset); by default
            the newest when the stream is first used. A tag or time is resolved once: the state has the number.
        follow: Go on with what writers add: the samples of each log entry that adds some, one entry after the other,
            shuffled within each. Batches cross entries and are never cut by time; there is one epoch, without length.
            The columns are those of the schema at the start: fields that writers add meanwhile come with the next
            start.
        start: Where following begins: by default with the newest version, then what comes after it; a version, tag
            or time with that; ``"beginning"`` with the first entry, ``"end"`` with the next one to come.
        until: Version after which the stream ends; it also ends where the dataset was ended (``shardstream end``).
        follow_group: Entries that are shuffled together; their samples come when the last of them is there.
        idle_timeout: Time without a whole new batch, as ``"10min"`` or seconds, after which the iterator ends; what is
            left over comes with the next one. For one process: several end by the log alone.
        lanes, window: How many places of the epoch are interleaved, and how many samples are shuffled together;
            by default 96, and 16,384 samples or 256 MiB of decoded ones, as far as log and schema tell.
        rank, world_size: By default those of torch.distributed, else of the environment, else 0 and 1.
        cache_dir: Folder on this machine in which blocks of remote shards are kept, shared by all processes.
        cache_limit: Bytes that the folder may take, as "100GB" (the default) or a number.
        read: Memory and threads; never changes the order.
        allow_unsafe: Decode fields of WebDataset shards that execute code (pickle).
        storage_options: For fsspec.
        ragged: Form of ragged fields, or a dict by field: "jagged", or :class:`Padded` for tensors ``(B, length)``.
        keyed: Dict of a column's name to the sparse fields, or ragged ones of ids, that it holds: :class:`KeyedJagged`.

    Raises:
        ConfigError: An argument is not legal.
        DatasetNotFoundError, EmptyDatasetError: Nothing to read; at the first use, not at construction.
    """

    def __init__(self, url_or_urls, batch_size: int | None = None, shuffle: bool = False, seed: int = 0,
                 epochs: int | None = 1, fields: list[str] | None = None, sparse: str | dict[str, str] = "dense",
                 dtypes: dict[str, Any] | None = None, transform: Callable | None = None, on_error: str = "raise",
                 drop_last: bool | str = False, version: int | str | datetime | None = None, follow: bool = False,
                 start: int | str | datetime | None = None, until: int | None = None, follow_group: int = 1,
                 idle_timeout: float | str | None = None, lanes: int | None = None, window: int | None = None,
                 rank: int | None = None, world_size: int | None = None,
                 cache_dir: str | None = None, cache_limit: int | str | None = None,
                 read: ReadPolicy | None = None, allow_unsafe: bool = False,
                 storage_options: dict | None = None,
                 *, ragged: str | Padded | dict[str, str | Padded] = "jagged", keyed: dict[str, list[str]] | None = None):  # fmt: skip
        if batch_size is not None and (isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1):
            raise ConfigError(f"batch_size={batch_size!r} must be an integer of at least 1, or None for samples.")
        if isinstance(fields, str):
            raise ConfigError(f"fields={fields!r} must be a list of names.")
        check_callable(transform)
        _check_kinds({"shuffle": shuffle, "allow_unsafe": allow_unsafe}, {"rank": rank, "world_size": world_size}, read)
        if on_error not in ("raise", "skip"):
            raise ConfigError(f"on_error={on_error!r} must be 'raise' or 'skip'.")
        if epochs is not None and (isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 1):
            raise ConfigError(f"epochs={epochs!r} must be an integer of at least 1, or None for no end.")
        if (rank is None) != (world_size is None):
            raise ConfigError("rank and world_size belong together: give both or none.")
        if cache_limit is not None and cache_dir is None:
            raise ConfigError(f"cache_limit={cache_limit!r} needs cache_dir, the folder that it limits.")
        BatchPlan(0, 0, batch_size or 1, world_size or 1, drop_last)  # checks them
        self._follow = FollowOptions.checked(follow, start, until, follow_group, idle_timeout)
        if self._follow is not None and (version is not None or epochs != 1 or drop_last == "pad"):
            raise ConfigError("a stream that follows has start=, not version=; one epoch; and no "
                              "drop_last='pad', since there is no end to fill up.")  # fmt: skip
        self.batch_size = batch_size
        self.report = Report()
        self.stats = Stats()  #: what was read in this process, of all versions; see StreamLoader.stats
        self._urls, self._epochs, self._drop_last = checked_urls(url_or_urls), epochs, drop_last
        self.recipe = Recipe(fields, Forms(sparse, ragged, keyed, dtypes), transform, on_error, allow_unsafe, read or ReadPolicy(),
                              storage_options, pad=drop_last == "pad", as_samples=batch_size is None,
                              cache=None if cache_dir is None else Cache(cache_dir, CACHE_LIMIT if cache_limit is None else cache_limit))  # fmt: skip
        version = None if version is None else canonical(version)
        self._asked = {"version": version, "seed": seed, "shuffle": shuffle, "lanes": lanes, "window": window}
        self._asked_place = self._place = None if rank is None else (rank, world_size)
        self._source: Source | GrowingSource | None = None
        self._log: Log | None = None
        self._follower: Follower | None = None
        self._loaded: State | None = None
        self._is_loaded = False  # a state was, and no iterator has begun since
        self._reader: BlockReader | None = None
        self._iterator = 0  # the valid one; any other belongs to a position that was left
        self._has_warned_of_lanes = False
        self._no_rows: dict[str, Any] | None = None  # what a batch without rows looks like
        # the epoch, and the position from which samples were asked for it in vain
        self._looked_at: tuple[int, int] | None = None

    # -- what torch and training loops call -------------------------------------------------------

    def __len__(self) -> int:
        """Return the batches (or samples) of a whole epoch on this rank; the same on every rank."""
        if self._follow is not None:
            raise TypeError("a stream that follows has no length.")
        self._open()
        return self.plan(0).num_batches

    def __iter__(self) -> Iterator[Any]:
        """Yield batches (or samples) from the position on; then the position is the next epoch's start."""
        self._open()
        worker = get_worker_info()
        if worker is None:
            return self.iterate(self.portions)
        if self._follow is not None:
            raise ConfigError("a stream that follows needs ss.StreamLoader, or a plain DataLoader with num_workers=0.")
        if worker.id == 0:
            warnings.warn("a plain DataLoader with workers delivers every sample once, but its batches depend on the number "
                          "of workers and its state can't be saved exactly: use ss.StreamLoader to resume.", stacklevel=2)  # fmt: skip
        rank, world_size = self._place  # each worker is a rank of its own; row p still belongs to rank p mod world_size
        return self.iterate(self.portions, place=(rank + world_size * worker.id, world_size * worker.num_workers))

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of an epoch; does nothing if the stream is in it already (as after a resume)."""
        self._open()
        if epoch != self._state.epoch and self._follow is not None:
            raise ConfigError(f"set_epoch({epoch}): a stream that follows has one epoch, 0.")
        if epoch != self._state.epoch:
            self._state, self._position = replace(self._state, epoch=epoch), 0
            self._iterator += 1

    def state_dict(self) -> dict:
        """Return the state as a small JSON object, the same on every rank: what the loop has received so far."""
        return self.state.to_dict()

    def load_state_dict(self, state: dict) -> None:
        """Go on where ``state`` was taken, with any number of ranks and workers and any batch size.

        Raises:
            StateError: The state is malformed, of another dataset, or contradicts an explicit argument.
        """
        loaded = State.from_dict(state)
        if self._source is None or self._source.version != loaded.version or self._follow is not None:
            before = self._loaded, self._source, self._follower
            self._loaded, self._source, self._follower = loaded, None, None
            try:
                self._open()
            except BaseException:
                self._loaded, self._source, self._follower = before
                raise
        else:
            self._state = self._checked(loaded, self._source)
            self._position = loaded.position
        self._is_loaded = True
        self._iterator += 1

    def __getstate__(self) -> dict:
        # What was opened stays behind; its version and position travel, as a state that was loaded. So does the rank,
        # since a worker of DataLoader is not in the process group; but the place of a process that is alone is not
        # that of the ranks it may be about to start.
        if get_spawning_popen() is not None:
            self._open()
        place = self._asked_place or self._place or current_place()
        return {**self.__dict__, "_source": None, "_reader": None, "_follower": None, "_loaded": self._loaded if self._source is None else self.state,
                "_place": place if place[1] > 1 else self._asked_place}  # fmt: skip

    @property
    def state(self) -> State:
        """The state as an object; :meth:`state_dict` is its JSON form."""
        self._open()
        segment = None if self._follower is None else self._follower.last_consumed(self._position)
        if segment is None:
            return replace(self._state, position=self._position)
        where = replace(self._state.follow, after=segment.after, base=segment.base)
        return replace(self._state, version=segment.version, position=self._position, follow=where)

    @property
    def freshness(self) -> float | None:
        """Seconds since the newest consumed sample was committed; None before the first one, and if not following."""
        segment = None if self._follower is None else self._follower.last_consumed(self._position)
        return None if segment is None else max(0.0, time.time() - segment.time)

    @property
    def lag(self) -> int | None:
        """Samples that are committed and the job has not consumed, as of the last look at the log; None if not
        following.

        Costs no request, but for a run that is more than 1,024 entries behind: then it reads on, and counts.
        """
        return None if self._follower is None else self._follower.num_committed() - self._position

    def stop(self) -> None:
        """End an iterator that follows after its batch, from any thread; at once if it waits for samples.

        Raises:
            ConfigError: The job has several ranks, which must end at the same batch: end them by the log
                (``until=``, or ``shardstream end``).
        """
        if self._place is not None and self._place[1] > 1:
            raise ConfigError(f"stop() on one of {self._place[1]} ranks would leave the others waiting: "
                              "use until= or 'shardstream end'.")  # fmt: skip
        if self._follower is not None:
            self._follower.stop()

    @property
    def source(self) -> Source | GrowingSource:
        """The shards being read, of the version that was pinned when the stream was first used."""
        self._open()
        return self._source

    # -- opening ----------------------------------------------------------------------------------

    def _open(self) -> None:
        """Pin the version, resolve the defaults and check a loaded state; the first network access."""
        if self._source is not None:
            return
        self._place = self._place or current_place()
        if self._follow is not None:
            return self._open_followed(self._follow)
        version = self._asked["version"] if self._loaded is None else self._loaded.version
        try:
            source = self._source_at(version)
        except DatasetNotFoundError:
            if self._loaded is not None:  # perhaps it is another dataset, which never had this version
                self._loaded.check_dataset(self._source_at(None).id)
            raise
        if not isinstance(version, int) and source.version is not None:  # a tag may move while ranks start
            source = self._agreed(source)
        if source.total_samples == 0:
            raise EmptyDatasetError(f"there are no samples at {self._urls!r} (version {source.version}).")
        self._check_schema(source)
        self._state = self._start(source) if self._loaded is None else self._checked(self._loaded, source)
        self._position = self._state.position  # apart from the rest, since it changes with every batch
        self._source, self._reader = source, None

    def _source_at(self, version: int | str | datetime | None) -> Source:
        return open_source(self._urls, version, self.recipe.storage_options, retry=self.recipe.read.retry)

    def _open_followed(self, options: FollowOptions) -> None:
        """As :meth:`_open`, for a stream that follows: nothing but the log is read."""
        if options.idle_timeout_s is not None and self._place[1] > 1:
            raise ConfigError(f"idle_timeout= on {self._place[1]} ranks would end them at different "
                              "batches: use until= or 'shardstream end'.")  # fmt: skip
        log = followed_log(self._urls, self.recipe.storage_options, retry=self.recipe.read.retry)
        newest = source_of_snapshot(log.snapshot())
        if self._loaded is None:
            start = start_of(log, options, newest)
            if not options.starts_at_a_number:
                start = self._agreed(start)
            state = replace(self._start(start), follow=options.following(start.version))
        else:
            state = self._checked(self._loaded, newest)
        self._check_schema(newest)
        self._state, self._position = state, state.position
        self._source, self._reader, self._log = GrowingSource(newest), None, log

    def _check_schema(self, source: Source) -> None:
        if source.schema is None and self.recipe.forms not in (Forms(), Forms(keyed={}, dtypes={})):
            raise ConfigError("sparse=, ragged=, keyed= and dtypes= need a schema, which shards of the "
                              "files layout do not have.")  # fmt: skip

    def _agreed(self, newest: Source) -> Source:
        """Return the version that all processes of the job take; ``newest`` is what this one sees."""
        worker = get_worker_info()
        if is_distributed() and worker is None and self._place[1] > 1:
            arguments = {**self._asked, "batch_size": self.batch_size, "drop_last": self._drop_last,
                         "epochs": self._epochs}  # fmt: skip
            if self._follow is not None:
                arguments["follow"] = asdict(self._follow)
            version = agreed_version(newest.id, newest.version, arguments)
            return newest if version == newest.version else self._source_at(version)
        if self._asked["version"] is None and (worker.id == 0 if worker is not None else self._place[1] > 1):
            warn_if_young(newest.time, newest.version)
        return newest

    def _start(self, source: Source) -> State:
        """Return the state at the beginning of epoch 0, with lanes and window resolved once for all epochs."""
        asked = self._asked
        if not asked["shuffle"]:
            if asked["lanes"] is not None or asked["window"] is not None:
                raise ConfigError("lanes= and window= need shuffle=True.")
            return State(source.id, source.version, SEQUENCE, normalize_seed(asked["seed"]), 0, 1, 1, 0)
        lanes = resolve_lanes(self._place[1], asked["lanes"])
        window = resolve_window(lanes, source.mean_decoded_nbytes, asked["window"])
        return State(source.id, source.version, SHUFFLE, normalize_seed(asked["seed"]), 0, lanes, window, 0)

    def _checked(self, loaded: State, source: Source) -> State:
        """Return a loaded state if it is of this source and no argument says otherwise; defaults say nothing."""
        loaded.check_dataset(source.id)
        loaded.check_follow(None if self._follow is None else self._follow.group)
        if self._follow is None:
            loaded.check_position(source.total_samples)
        given = {name: value for name, value in self._asked.items() if value}
        if isinstance(given.get("version"), str):
            del given["version"]  # what a tag or time meant when the run began is in the state
        loaded.check_arguments(**given)
        return loaded

    def plan(self, start_position: int, world_size: int | None = None) -> BatchPlan:
        """Return the arithmetic of this stream's batches from a position of the epoch on.

        Raises:
            ConfigError: The stream follows: what it has grows, so there is no plan of all of it.
        """
        if self._follow is not None:
            raise ConfigError("plan(): a stream that follows has no length, so its batches can't be planned to an end.")
        self._open()
        return BatchPlan(self._source.total_samples, start_position, self.batch_size or 1, world_size or self._place[1],
                         self._drop_last)  # fmt: skip

    # -- iterating --------------------------------------------------------------------------------

    def iterate(self, portions: Callable[[Task], Iterator[Portion]], finish: Callable[[Any], Any] | None = None,
                place: tuple[int, int] | None = None, num_workers: int = 1) -> Iterator[Any]:  # fmt: skip
        """Return an iterator over the rest of the epochs; what ``__iter__`` is made of, for loaders.

        Args:
            portions: Makes the rows of a task, one portion for each of its plan's batches, in order.
            finish: Called on each batch or sample before it counts as delivered.
            place: Rank and world size, if not those of the job.
            num_workers: Readers that ``portions`` uses.
        """
        self._open()
        # A loop that takes exactly len() batches never sees the iterator end: then the next one begins the next epoch.
        may_end = self._follow is None and not self._is_loaded and self._position > 0
        if may_end and not self.plan(self._position, (place or self._place)[1]).num_batches:
            self._state, self._position = self._next_epoch(), 0
        self._is_loaded = False
        self._iterator += 1
        self._warn_of_shared_lanes(*(place or self._place), num_workers)
        steps = self._epochs_of if self._follow is None else self._followed
        return steps(self._iterator, portions, finish, *(place or self._place))

    def _epochs_of(self, iterator: int, portions, finish, rank: int, world_size: int) -> Iterator[Any]:
        while True:
            self._check_iterator(iterator)
            plan = self.plan(self._position, world_size)
            # nor would any later epoch have one
            if self._epochs is None and self._position == 0 and not plan.num_batches:
                raise ConfigError(f"epochs=None would never deliver a batch: an epoch has {plan.num_samples} samples, fewer than a batch of "
                                  f"{self.batch_size or 1} on each of {world_size} ranks, and drop_last=True leaves a short one out.")  # fmt: skip
            yield from self._delivered(iterator, Task(self._state, plan, rank), portions, finish)
            self._state, self._position = self._next_epoch(), 0
            if self._epochs is not None and self._state.epoch % self._epochs == 0:
                return

    def _next_epoch(self) -> State:
        """Return the state at the beginning of the next epoch."""
        return replace(self._state, epoch=self._state.epoch + 1)

    def _followed(self, iterator: int, portions, finish, rank: int, world_size: int) -> Iterator[Any]:
        """Yield what is there in whole batches, wait for more, and so on until the log ends."""
        self._check_iterator(iterator)
        self._state, batch_size = self.state, self.batch_size or 1
        next_shard = 0 if self._follower is None else self._follower.next_shard
        with Follower(self._log, self._state, self._follow, next_shard) as follower:
            self._follower = follower
            while True:
                known = follower.wait(self._position + batch_size * world_size, self._follow.idle_timeout_s)
                self._check_iterator(iterator)
                plan = BatchPlan(known.end, self._position, batch_size, world_size,
                                 self._drop_last if known.is_over else True)  # fmt: skip
                task = Task(self._state, plan, rank, follower.segments(self._position, plan.end_position))
                try:
                    for item in self._delivered(iterator, task, portions, finish):
                        last = [item]
                        del item
                        yield last.pop()
                        if follower.is_stopped:
                            return
                except ShardNotFoundError as error:
                    follower.explain(error, self._position)
                    raise
                self._position = plan.position_after(plan.num_batches)
                follower.forget(self._position)
                if known.is_over or known.is_stopped:
                    return

    def _delivered(self, iterator: int, task: Task, portions, finish) -> Iterator[Any]:
        """Yield the batches or samples of a task, each counted as delivered before it is.

        On the way to the loop nothing keeps a batch while the next one is made: if the loop has let go of it, too, the next one takes
        its memory, which the processor's cache still has.
        """
        if task.plan.num_batches:
            items = self._batches if self.batch_size is not None else self._samples
            for position, item in items(task, portions):
                last = [item if finish is None else finish(item)]
                del item
                self._position = position
                yield last.pop()
                self._check_iterator(iterator)

    def _warn_of_shared_lanes(self, rank: int, world_size: int, num_workers: int) -> None:
        """Say once how often blocks are fetched, if more readers than one share a lane."""
        lanes = self._state.lanes
        factor = readers_per_block(lanes, world_size * num_workers)
        if factor > 1 and rank == 0 and not self._has_warned_of_lanes:
            self._has_warned_of_lanes = True
            advice = f"choose lanes= a multiple of {world_size * num_workers}" if self._state.shuffle else "order without shuffle has one lane"
            warnings.warn(f"each block is fetched by {factor} readers: {world_size} ranks with {num_workers} workers each don't divide {lanes} "
                          f"lanes evenly; {advice}.", stacklevel=4)  # fmt: skip

    def _check_iterator(self, iterator: int) -> None:
        if iterator != self._iterator:
            raise ConfigError("this iterator is no longer valid: a stream has one position, and another iterator was started or a "
                              "state or an epoch set since.")  # fmt: skip

    def _batches(self, task: Task, portions) -> Iterator[tuple[int, dict]]:
        """Yield (position after it, batch), its losses counted, its columns there without rows, too."""
        ends = task.plan.positions_after()
        for portion in portions(task):
            self.report.add(portion.loss, self.recipe.read.max_skipped)
            if self._no_rows is None and portion.num_rows:
                self._no_rows = empty_like(portion.columns)
            if not portion.num_rows and not (portion.columns and self.recipe.transform is None):
                portion.columns = self._no_rows or self._example(task)
            yield next(ends), portion.give_columns()

    def _samples(self, task: Task, portions) -> Iterator[tuple[int, dict]]:
        """Yield (position after it, sample); rows are made many at a time."""
        plan = task.plan
        groups = BatchPlan(plan.end_position, plan.start_position, SAMPLES_AT_ONCE, plan.world_size)
        for t, portion in enumerate(portions(replace(task, plan=groups))):
            self.report.add(portion.loss, self.recipe.read.max_skipped)
            columns, num_rows = portion.columns, portion.num_rows
            samples = columns[SAMPLES] if SAMPLES in columns else split_rows(columns, num_rows)
            places = range(num_rows) if portion.kept is None else portion.kept.tolist()
            for place, sample in zip(places, samples):  # a row that vanished is consumed with the next that did not
                yield plan.position_after(t * SAMPLES_AT_ONCE + place + 1), sample

    def _example(self, task: Task) -> dict[str, Any]:
        """Return columns without rows, when this rank had no rows yet: those of the epoch's first samples that are
        left, if any are.
        """
        first, end = (task.plan.start_position, task.plan.end_position) if task.segments else (0, task.plan.num_samples)
        if (task.state.epoch, first) == self._looked_at:
            return {}  # looking again would tell no more
        self._looked_at, end, num = (task.state.epoch, first), min(end, first + MAX_EXAMPLES), 1
        while first < end:  # mostly the first tells; only if it does not are blocks of more read
            plan = BatchPlan(min(first + num, end), first, SAMPLES_AT_ONCE, 1)
            for portion in self.portions(replace(task, plan=plan, rank=0)):
                if portion.num_rows:
                    self._no_rows = empty_like(portion.columns)
                    return self._no_rows
            first, num = first + num, 8 * num
        return {}

    def portions(self, task: Task) -> Iterator[Portion]:
        """Yield the portion of each batch of a task, made by threads of this process."""
        if self._reader is None:  # made in the process that reads, kept over its epochs
            self._reader = self.recipe.reader(self._source)
            self._reader.count_in(self.stats)
        with RowMaker(self._reader, task.order(self._source), task.positions(), self.recipe) as maker:
            for num_rows in task.num_rows():
                yield maker.make(num_rows)

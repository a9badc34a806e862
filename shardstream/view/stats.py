"""What the values of each field are like, from some blocks spread over a dataset (``field_stats``)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from shardstream.look import Looker
from shardstream.reader import Block
from shardstream.schema import Bytes, Dense, Field, Ragged, Sparse, Text

MAX_BLOCKS = 16
MAX_CLASSES = 30  # more distinct integers than this are a histogram
NUM_BINS = 30
MAX_ELEMENTS = 1_000_000  # of a dense column, looked at
MAX_FILES = 512  # samples of a block in the files layout, looked at


@dataclass(frozen=True)
class Distribution:
    """How often each label, or value of a range, was seen.

    Attributes:
        title: What is counted, such as "tokens in a row".
        labels: One a bar; of a range, where it begins.
        counts: As many.
        summary: One line, such as "from 0 to 57, mean 12.5".
    """

    title: str
    labels: list[str]
    counts: list[int]
    summary: str


@dataclass(frozen=True)
class FieldStats:
    """A field's name, kind and distributions."""

    name: str
    kind: str
    distributions: list[Distribution]


@dataclass(frozen=True)
class Stats:
    """Statistics of ``num_samples`` of the dataset's samples."""

    num_samples: int
    fields: list[FieldStats]


def field_stats(looker: Looker, classes: dict[str, list[str]] | None = None) -> Stats:
    """Return statistics of every field over at most ``MAX_BLOCKS`` blocks, spread evenly over the shards."""
    blocks = list(_some_blocks(looker))
    num_samples = sum(block.num_samples for block in blocks)
    schema = looker.source.schema
    if schema is None:
        return _stats_of_files(blocks)
    if not blocks:
        return Stats(0, [FieldStats(name, _kind(field), []) for name, field in schema.items()])
    fields = []
    for name, field in schema.items():
        columns = [block.columns[name] for block in blocks]
        fields.append(FieldStats(name, _kind(field), _distributions(field, columns, (classes or {}).get(name))))
    return Stats(num_samples, fields)


def _some_blocks(looker: Looker) -> Iterator[Block]:
    num_shards = looker.source.num_shards
    shards = np.unique(np.linspace(0, num_shards - 1, min(MAX_BLOCKS, num_shards)).astype(int)).tolist() if num_shards else []
    for place, shard in enumerate(shards):
        num_blocks = looker.num_blocks(shard)
        wanted = MAX_BLOCKS * (place + 1) // len(shards) - MAX_BLOCKS * place // len(shards)
        for number in np.unique(np.linspace(0, num_blocks - 1, min(wanted, num_blocks)).astype(int)).tolist():
            yield looker.block(shard, number)


def _distributions(field: Field, columns: list, names: list[str] | None) -> list[Distribution]:
    if isinstance(field, Dense):
        values = np.concatenate([column.reshape(-1)[: MAX_ELEMENTS // len(columns)] for column in columns])
        title = "value" if field.shape == () else "element"
        is_label = values.dtype.kind in "biu" and (values.dtype.kind == "b" or len(np.unique(values)) <= MAX_CLASSES)
        return [_classes(title, values.tolist(), names) if is_label else _histogram(title, values)]
    lengths = np.concatenate([np.diff(column[1]) for column in columns])
    if isinstance(field, Sparse):
        density = lengths.sum() / max(1, len(lengths)) / field.dim
        made = _histogram("indices in a row", lengths, f"; {density:.3%} of {field.dim:,} dimensions")
        if field.values is None:
            return [made]
        return [made, _histogram("value", np.concatenate([column[2] for column in columns])[:MAX_ELEMENTS])]
    title = {Ragged: "elements in a row", Text: "bytes of UTF-8 in a row", Bytes: "bytes in a row"}[type(field)]
    made = [_histogram(title, lengths)]
    if isinstance(field, Ragged):
        made.append(_histogram("element", np.concatenate([column[0] for column in columns])[:MAX_ELEMENTS]))
    return made


def _stats_of_files(blocks: list[Block]) -> Stats:
    """Return statistics of members: their sizes, and classes where a field is one."""
    sizes: dict[str, list[int]] = {}
    labels: dict[str, list[str]] = {}
    num_samples = 0
    for block in blocks:
        for row in range(min(block.num_samples, MAX_FILES)):
            _, members = block.columns["__samples__"][row]
            num_samples += 1
            for name, data in members.items():
                sizes.setdefault(name, []).append(len(data))
                if name.rpartition(".")[2] in ("cls", "cls2", "id") and len(data) < 20:
                    labels.setdefault(name, []).append(bytes(data).decode("utf-8", "replace").strip())
    fields = []
    for name, nbytes in sizes.items():
        made = [_histogram("bytes of a member", np.array(nbytes))]
        if len(set(labels.get(name, ()))) in range(1, MAX_CLASSES + 1):
            made.insert(0, _classes("value", labels[name], None))
        fields.append(FieldStats(name, "member", made))
    return Stats(num_samples, fields)


def _classes(title: str, values: list, names: list[str] | None) -> Distribution:
    counts = Counter(values)
    keys = sorted(counts)
    is_named = names is not None and all(isinstance(key, int) and 0 <= key < len(names) for key in keys)
    labels = [names[key] if is_named else str(key) for key in keys]
    return Distribution(title, labels, [counts[key] for key in keys], f"{len(keys)} distinct")


def _histogram(title: str, values: np.ndarray, more: str = "") -> Distribution:
    if values.dtype.kind == "f":
        # so that a range is a number, too
        values = np.clip(values[np.isfinite(values)].astype(np.float64), -1e300, 1e300)
    if not len(values):
        return Distribution(title, [], [], "none" + more)
    counts, edges = _float_bins(values) if values.dtype.kind == "f" else _integer_bins(values)
    low, high, mean = values.min(), values.max(), values.mean(dtype=np.float64)
    return Distribution(title, [_number(edge) for edge in edges], counts.tolist(),
                        f"from {_number(low)} to {_number(high)}, mean {_number(mean)}{more}")  # fmt: skip


def _float_bins(values: np.ndarray) -> tuple[np.ndarray, list]:
    low, high = values.min(), values.max()
    # 0.3 and 0.1 + 0.2: edges would coincide, which numpy refuses
    if high / 2 - low / 2 <= NUM_BINS * np.spacing(max(-low, high)):
        return np.array([len(values)]), [float(low)]
    counts, edges = np.histogram(values, NUM_BINS)
    return counts, edges[:-1].tolist()


def _integer_bins(values: np.ndarray) -> tuple[np.ndarray, list]:
    """Return counts of at most ``NUM_BINS`` ranges of equally many integers, and where they begin; exact to 64 bits."""
    low, high = int(values.min()), int(values.max())
    width = -(-(high - low + 1) // NUM_BINS)
    above = values.astype(np.uint64) - np.uint64(low % 2**64)  # modulo 2^64, so right for negative numbers, too
    counts = np.bincount((above // np.uint64(width)).astype(np.int64))
    return counts, [low + place * width for place in range(len(counts))]


def _number(value: Any) -> str:
    return f"{int(value):,}" if float(value).is_integer() and abs(float(value)) < 1e15 else f"{value:,.4g}"


def _kind(field: Field) -> str:
    record = {key: value for key, value in field.to_json().items() if key not in ("kind", "default") and value not in (None, [])}
    return " ".join([type(field).__name__, *(f"{key}={value}" for key, value in record.items())])

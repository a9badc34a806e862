"""Reads a blocks-layout dataset of shardstream with plain WebDataset: one stage turns blocks into samples.

WebDataset sees one sample a block, whose fields are columns: ``y.npy``, ``tokens.values.npy`` and
``tokens.offsets.npy``, ``x.sparse``. ``unbatch(schema)`` is a pipeline stage that yields the rows of each.

    python examples/webdataset_unbatch.py DATASET_URL
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable, Iterator

import numpy as np

import shardstream as ss
from shardstream._native.sparse import parse
from shardstream.codecs import sparse


def unbatch(schema: ss.Schema) -> Callable[[Iterable[dict]], Iterator[dict]]:
    """Return a WebDataset stage that turns undecoded blocks into samples with the schema's fields."""

    def stage(blocks: Iterable[dict]) -> Iterator[dict]:
        for block in blocks:
            columns = {name: list(_rows(name, field, block)) for name, field in schema.items()}
            for i in range(len(next(iter(columns.values())))):
                yield {"__key__": f"{block['__key__']}:{i}", **{name: rows[i] for name, rows in columns.items()}}

    return stage


def _rows(name: str, field, block: dict) -> Iterable:
    if isinstance(field, ss.Dense):
        return np.load(io.BytesIO(block[f"{name}.npy"]))
    if isinstance(field, ss.Sparse):
        data = block[f"{name}.sparse"]
        indices, offsets, values = sparse.decode(data, field.dim, parse(data).num_rows, field.values)
        spans = [slice(begin, end) for begin, end in zip(offsets, offsets[1:])]
        return (indices[span] if values is None else (indices[span], values[span]) for span in spans)
    values, offsets = (np.load(io.BytesIO(block[f"{name}.{part}.npy"])) for part in ("values", "offsets"))
    rows = (values[begin:end] for begin, end in zip(offsets, offsets[1:]))
    if isinstance(field, ss.Ragged):
        return rows
    return (row.tobytes().decode() if isinstance(field, ss.Text) else row.tobytes() for row in rows)


def main(url: str) -> None:
    """Count the samples of a dataset and print the first."""
    import webdataset as wds

    dataset = ss.Dataset(url)
    samples = wds.DataPipeline(wds.SimpleShardList(dataset.shards), wds.tarfile_to_samples(), unbatch(dataset.schema))
    num_samples = 0
    for sample in samples:
        if num_samples == 0:
            print(sample)
        num_samples += 1
    print(f"{num_samples} samples; the log says {dataset.num_samples}")


if __name__ == "__main__":
    main(sys.argv[1])

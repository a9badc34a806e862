"""Hugging Face datasets: Arrow files, map-style, the rows of a batch fetched together; ``hf_numpy`` in the documented format for arrays,
``hf_arrow`` as Arrow tables, of which the batch is made here from whole columns. Shuffles all rows. Compressed it is Parquet, its format on the Hub.
"""

import datasets
import numpy as np
import torch
from pyarrow import parquet
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

from benchmarks.read.workloads import BATCH, WORKLOADS, sparse_to_dense, stack_images

datasets.disable_progress_bars()
FEATURES = {
    "tokens": {"x": datasets.Sequence(datasets.Value("uint16"), 2048)}, "sparse": {"x": datasets.Sequence(datasets.Value("uint16"))},
    "ragged": {"x": datasets.Sequence(datasets.Value("uint16"))},
    "tabular": {"dense": datasets.Sequence(datasets.Value("float32"), 13), "categories": datasets.Sequence(datasets.Value("uint32"), 26)},
    "images": {"jpg": datasets.Value("binary")}, "blobs": {"x": datasets.Value("binary")},
}  # fmt: skip


def write(workload, samples, folder, is_compressed):
    features = datasets.Features({"id": datasets.Value("int64"), **FEATURES[workload.name]})
    made = datasets.Dataset.from_list(samples, features=features)
    if is_compressed:
        folder.mkdir()
        parquet.write_table(made.with_format("arrow")[:], folder / "data.parquet", compression="zstd")
    else:
        made.save_to_disk(str(folder))


def loader(contender, workload, folder, num_workers):
    dataset = datasets.load_from_disk(folder)
    dataset = _Tables(dataset.with_format("arrow"), workload.name) if contender == "hf_arrow" else _Arrays(dataset.with_format("numpy"), workload.name)
    sampler = BatchSampler(RandomSampler(dataset), BATCH, drop_last=False)
    return DataLoader(dataset, sampler=sampler, batch_size=None, num_workers=num_workers, persistent_workers=num_workers > 0,
                      prefetch_factor=4 if num_workers else None)  # fmt: skip


class _Rows:
    """The dataset, with a choice of rows made into a batch."""

    def __init__(self, dataset, name):
        self._dataset, self._name = dataset, name

    def __len__(self):
        return len(self._dataset)


class _Arrays(_Rows):
    def __getitem__(self, rows):
        columns = self._dataset[rows]
        if self._name in ("tokens", "tabular"):  # arrays of all rows already
            return {name: torch.from_numpy(column) for name, column in columns.items()}
        columns = {name: column.tolist() if name == "jpg" or self._name == "blobs" else column for name, column in columns.items()}
        return WORKLOADS[self._name].collate([dict(zip(columns, values)) for values in zip(*columns.values())])


class _Tables(_Rows):
    def __getitem__(self, rows):
        table = self._dataset[rows]
        columns = {name: table[name].combine_chunks() for name in table.column_names}
        batch = {"id": torch.from_numpy(columns.pop("id").to_numpy().copy())}
        if self._name in ("sparse", "ragged"):
            values = columns["x"].flatten().to_numpy().astype(np.int64)
            offsets = np.concatenate([[0], np.cumsum(columns["x"].value_lengths().to_numpy())])
            batch["x"] = sparse_to_dense(values, offsets) if self._name == "sparse" else (torch.from_numpy(values), torch.from_numpy(offsets))
        elif self._name == "images":
            batch["jpg"] = stack_images(columns["jpg"].to_pylist())
        elif self._name == "blobs":
            batch["x"] = columns["x"].to_pylist()
        else:
            for name, column in columns.items():
                values = column.flatten().to_numpy().reshape(len(rows), -1)
                batch[name] = torch.from_numpy(values.copy() if values.dtype.kind == "f" else values.astype(np.int64))
        return batch

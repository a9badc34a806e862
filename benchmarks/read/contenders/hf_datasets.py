"""Hugging Face datasets: Arrow files, map-style, random rows of a batch fetched together in numpy format."""

import functools

import datasets
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

from benchmarks.read.workloads import BATCH, WORKLOADS

NAME = "HF datasets"
FEATURES = {
    "tokens": {"x": datasets.Sequence(datasets.Value("uint16"), 2048)}, "sparse": {"x": datasets.Sequence(datasets.Value("uint16"))},
    "ragged": {"x": datasets.Sequence(datasets.Value("uint16"))},
    "tabular": {"dense": datasets.Sequence(datasets.Value("float32"), 13), "categories": datasets.Sequence(datasets.Value("uint32"), 26)},
    "images": {"jpg": datasets.Value("binary")}, "blobs": {"x": datasets.Value("binary")},
}  # fmt: skip


def write(workload, num_samples, folder):
    features = datasets.Features({"id": datasets.Value("int64"), **FEATURES[workload.name]})
    made = datasets.Dataset.from_generator(functools.partial(workload.samples, num_samples), features=features, cache_dir=f"{folder}-building")
    made.save_to_disk(str(folder))


def loader(workload, folder, num_workers):
    dataset = _Rows(datasets.load_from_disk(str(folder)).with_format("numpy"), workload.name)
    sampler = BatchSampler(RandomSampler(dataset), BATCH, drop_last=False)
    return DataLoader(dataset, sampler=sampler, batch_size=None, num_workers=num_workers)


class _Rows:
    """The dataset, with the columns of a choice of rows made into a batch."""

    def __init__(self, dataset, name):
        self._dataset, self._name = dataset, name

    def __len__(self):
        return len(self._dataset)

    def __getitem__(self, rows):
        columns = self._dataset[rows]
        samples = [dict(zip(columns, values)) for values in zip(*columns.values())]
        return WORKLOADS[self._name].collate(samples)

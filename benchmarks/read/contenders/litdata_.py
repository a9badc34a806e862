"""LitData: chunks of 64 MB written by its own writer, its StreamingDataLoader with a vectorised collate."""

import functools

from litdata import StreamingDataLoader, StreamingDataset
from litdata.streaming.cache import Cache

from benchmarks.read.workloads import BATCH, WORKLOADS

NAME = "LitData"


def write(workload, num_samples, folder):
    folder.mkdir(parents=True)
    cache = Cache(str(folder), chunk_bytes=64 * 2**20)
    for number, sample in enumerate(workload.samples(num_samples)):
        cache[number] = sample
    cache.done()
    cache.merge()


def loader(workload, folder, num_workers):
    dataset = StreamingDataset(str(folder), shuffle=True, drop_last=False)
    return StreamingDataLoader(dataset, batch_size=BATCH, num_workers=num_workers, collate_fn=functools.partial(_collate, workload.name))


def _collate(name, samples):
    return WORKLOADS[name].collate(samples)

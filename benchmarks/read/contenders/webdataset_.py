"""WebDataset: a member a field, decoded by webdataset, batched by its ``batched`` with a vectorised collation."""

import functools

import webdataset as wds

from benchmarks.read.workloads import BATCH

NAME = "WebDataset"
EXTENSION = {"x": "npy", "dense": "npy", "categories": "npy", "jpg": "jpg"}


def write(workload, num_samples, folder):
    folder.mkdir(parents=True)
    with wds.ShardWriter(f"{folder}/%06d.tar", maxsize=64e6, maxcount=10**9, verbose=0) as writer:
        for sample in workload.samples(num_samples):
            members = {_member(name, value): value for name, value in sample.items() if name != "id"}
            writer.write({"__key__": f"{sample['id']:08d}", "id.id": sample["id"], **members})


def _member(name, value):
    return name if name == "jpg" else f"{name}.bin" if isinstance(value, bytes) else f"{name}.npy"


def loader(workload, folder, num_workers):
    shards = sorted(map(str, folder.glob("*.tar")))
    dataset = wds.WebDataset(shards, shardshuffle=len(shards), empty_check=False).shuffle(2000).decode()
    dataset = dataset.batched(BATCH, collation_fn=functools.partial(_collate, workload))
    return wds.WebLoader(dataset, batch_size=None, num_workers=num_workers)


def _collate(workload, samples):
    return workload.collate([{name.partition(".")[0]: value for name, value in sample.items() if name[0] != "_"} for sample in samples])

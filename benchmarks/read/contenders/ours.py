"""shardstream: columns of blocks, gathered by one C call a column and batch. Shuffles shards, and 16,384 samples together in 96 lanes.

``ours`` is what it does by default: blocks stay decoded in memory if all of them take less than half of ``memory_limit``, 1 GB. ``ours_streamed``
has a limit that is lower, so that every epoch reads, verifies and decodes everything again. Compressed by zstd.
"""

import shardstream as ss
from benchmarks.read.workloads import BATCH, DIM
from shardstream import ShardStream, ShardWriter, StreamLoader  # here, since shardstream loads them when first named

FIELDS = {
    "tokens": {"x": ss.Dense("uint16", (2048,))}, "sparse": {"x": ss.Sparse(DIM)}, "ragged": {"x": ss.Ragged("uint16")},
    "tabular": {"dense": ss.Dense("float32", (13,)), "categories": ss.Dense("uint32", (26,))},
    "images": {"jpg": ss.Bytes()}, "blobs": {"x": ss.Bytes()},
}  # fmt: skip


def write(workload, samples, folder, is_compressed):
    schema = ss.Schema(**FIELDS[workload.name], id=ss.Dense("int64"))
    with ShardWriter(str(folder), schema=schema, compression="zstd" if is_compressed else None) as writer:
        for sample in samples:
            writer.write(sample)


def loader(contender, workload, folder, num_workers):
    read = ss.ReadPolicy()
    if contender == "ours_streamed":
        read = ss.ReadPolicy(memory_limit=workload.num_bytes(ss.Dataset(folder).num_samples) * 2)
    return _loader(workload, folder, read, num_workers)


def remote_loader(contender, workload, url, scratch):
    return _loader(workload, url, ss.ReadPolicy(), 0)


def _loader(workload, url, read, num_workers):
    transform = ss.transforms.DecodeImages("jpg") if workload.name == "images" else None
    loader = StreamLoader(ShardStream(url, batch_size=BATCH, shuffle=True, transform=transform, epochs=1, read=read), num_workers=num_workers)
    return _Ragged(loader) if workload.name == "ragged" else loader


class _Ragged:
    """The loader, with the ragged column as the pair that all contenders deliver."""

    def __init__(self, loader):
        self._loader = loader

    def __iter__(self):
        return ({**batch, "x": (batch["x"].values, batch["x"].offsets)} for batch in self._loader)

"""shardstream: columns of blocks, gathered by one C call a column and batch."""

import shardstream as ss
from benchmarks.read.workloads import BATCH, DIM
from shardstream import ShardStream, ShardWriter, StreamLoader  # here, since shardstream loads them when first named

NAME = "shardstream"
FIELDS = {
    "tokens": {"x": ss.Dense("uint16", (2048,))}, "sparse": {"x": ss.Sparse(DIM)}, "ragged": {"x": ss.Ragged("uint16")},
    "tabular": {"dense": ss.Dense("float32", (13,)), "categories": ss.Dense("uint32", (26,))},
    "images": {"jpg": ss.Bytes()}, "blobs": {"x": ss.Bytes()},
}  # fmt: skip


def write(workload, num_samples, folder):
    with ShardWriter(str(folder), schema=ss.Schema(**FIELDS[workload.name], id=ss.Dense("int64"))) as writer:
        for sample in workload.samples(num_samples):
            writer.write(sample)


def loader(workload, folder, num_workers):
    transform = ss.transforms.DecodeImages("jpg") if workload.name == "images" else None
    stream = ShardStream(str(folder), batch_size=BATCH, shuffle=True, transform=transform, epochs=1)
    loader = StreamLoader(stream, num_workers=num_workers)
    return _Ragged(loader) if workload.name == "ragged" else loader


class _Ragged:
    """The loader, with the ragged column as the pair that all contenders deliver."""

    def __init__(self, loader):
        self._loader = loader

    def __iter__(self):
        return ({**batch, "x": (batch["x"].values, batch["x"].offsets)} for batch in self._loader)

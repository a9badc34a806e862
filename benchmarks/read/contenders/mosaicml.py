"""MosaicML Streaming: MDS shards of 64 MB, its own shuffle (py1e) and torch's DataLoader with a vectorised collate. Compressed by zstd.

Its package imports torchvision for datasets that are not used here, and torchvision needs a torch of exactly
its own version; so an empty module stands for it.
"""

import functools
import importlib.machinery
import sys
import types

from benchmarks.read.workloads import BATCH, WORKLOADS


def _stand_in(name, **attributes):
    module = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    module.__dict__.update(attributes)
    sys.modules[name] = module


_stand_in("torchvision")
_stand_in("torchvision.datasets", VisionDataset=type("VisionDataset", (), {}))
_stand_in("torchvision.transforms")
_stand_in("torchvision.transforms.functional", to_tensor=None)

from streaming import MDSWriter, StreamingDataset  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402

COLUMNS = {
    "tokens": {"x": "ndarray:uint16:2048"}, "sparse": {"x": "ndarray:uint16"}, "ragged": {"x": "ndarray:uint16"},
    "tabular": {"dense": "ndarray:float32:13", "categories": "ndarray:uint32:26"}, "images": {"jpg": "bytes"}, "blobs": {"x": "bytes"},
}  # fmt: skip


def write(workload, samples, folder, is_compressed):
    compression = "zstd" if is_compressed else None
    with MDSWriter(out=str(folder), columns={"id": "int64", **COLUMNS[workload.name]}, size_limit="64mb", compression=compression) as writer:
        for sample in samples:
            writer.write(sample)


def loader(contender, workload, folder, num_workers):
    return _loader(workload, StreamingDataset(local=folder, shuffle=True, batch_size=BATCH), num_workers)


def remote_loader(contender, workload, url, scratch):
    return _loader(workload, StreamingDataset(remote=url, local=scratch, shuffle=True, batch_size=BATCH), 0)


def _loader(workload, dataset, num_workers):
    return DataLoader(dataset, batch_size=BATCH, num_workers=num_workers, collate_fn=functools.partial(_collate, workload.name),
                      persistent_workers=num_workers > 0, prefetch_factor=4 if num_workers else None)  # fmt: skip


def _collate(name, samples):
    return WORKLOADS[name].collate(samples)

"""WebDataset: a member a field, decoded by webdataset, batched by its ``batched`` with a vectorised collation. Shuffles shards, and 2,000 samples
in a buffer. From S3 by ``pipe:s5cmd cat``, one of the commands that its documentation names. Compressed by gzip, which it reads.
"""

import functools
import os
import sys
from pathlib import Path

import webdataset as wds

from benchmarks.read.workloads import BATCH


def write(workload, samples, folder, is_compressed):
    folder.mkdir()
    with wds.ShardWriter(f"{folder}/%06d.tar{'.gz' if is_compressed else ''}", maxsize=64e6, maxcount=10**9, verbose=0) as writer:
        for sample in samples:
            members = {_member(name, value): value for name, value in sample.items() if name != "id"}
            writer.write({"__key__": f"{sample['id']:08d}", "id.id": sample["id"], **members})


def _member(name, value):
    return name if name == "jpg" else f"{name}.bin" if isinstance(value, bytes) else f"{name}.npy"


def loader(contender, workload, folder, num_workers):
    return _loader(workload, sorted(map(str, Path(folder).glob("*.tar"))), num_workers)


def remote_loader(contender, workload, url, scratch):
    import s3fs

    s5cmd, endpoint = Path(sys.executable).with_name("s5cmd"), os.environ["AWS_ENDPOINT_URL"]
    keys = sorted(key for key in s3fs.S3FileSystem(endpoint_url=endpoint).ls(url) if key.endswith(".tar"))
    return _loader(workload, [f"pipe:{s5cmd if s5cmd.exists() else 's5cmd'} --endpoint-url {endpoint} cat s3://{key}" for key in keys], 0)


def _loader(workload, shards, num_workers):
    dataset = wds.WebDataset(shards, shardshuffle=len(shards), empty_check=False).shuffle(2000).decode()
    dataset = dataset.batched(BATCH, collation_fn=functools.partial(_collate, workload))
    return wds.WebLoader(dataset, batch_size=None, num_workers=num_workers, persistent_workers=num_workers > 0,
                         prefetch_factor=4 if num_workers else None)  # fmt: skip


def _collate(workload, samples):
    return workload.collate([{name.partition(".")[0]: value for name, value in sample.items() if name[0] != "_"} for sample in samples])

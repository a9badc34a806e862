"""LitData: chunks of 64 MB by its own writer, its StreamingDataLoader with a vectorised collate; rows of tokens by its TokensLoader, which
takes them from a mapped file, with the id in four more tokens. Shuffles chunks, and the samples of each. Compressed by zstd.
"""

import functools
import os

import numpy as np
import torch
from litdata import StreamingDataLoader, StreamingDataset, TokensLoader
from litdata.streaming import downloader
from litdata.streaming.cache import Cache

from benchmarks.read.workloads import BATCH, WORKLOADS

LENGTH = 2048 + 4


def write(workload, samples, folder, is_compressed):
    folder.mkdir()
    compression = {"compression": "zstd", "compression_level": "chunk"} if is_compressed else {}  # of whole chunks it is smallest
    cache = Cache(str(folder), chunk_bytes=64 * 2**20, item_loader=_item_loader(workload), **compression)
    for number, sample in enumerate(samples):
        cache[number] = _with_id(sample) if workload.name == "tokens" else sample
    cache.done()
    cache.merge()


def loader(contender, workload, folder, num_workers):
    dataset = StreamingDataset(folder, shuffle=True, drop_last=False, item_loader=_item_loader(workload))
    return StreamingDataLoader(dataset, batch_size=BATCH, num_workers=num_workers, collate_fn=functools.partial(_collate, workload.name),
                               persistent_workers=num_workers > 0, prefetch_factor=4 if num_workers else None)  # fmt: skip


def remote_loader(contender, workload, url, scratch):
    options = {"endpoint_url": os.environ["AWS_ENDPOINT_URL"]}
    downloader._OBSTORE_CLIENT_OPTIONS["allow_http"] = True  # which a server on loopback speaks; it has no option for this
    dataset = StreamingDataset(url, cache_dir=scratch, shuffle=True, drop_last=False, item_loader=_item_loader(workload), storage_options=options)
    return StreamingDataLoader(dataset, batch_size=BATCH, num_workers=0, collate_fn=functools.partial(_collate, workload.name))


def _item_loader(workload):
    return TokensLoader(block_size=LENGTH) if workload.name == "tokens" else None


def _with_id(sample):
    return torch.from_numpy(np.concatenate([sample["x"], np.array([sample["id"]]).view(np.uint16)]))


def _collate(name, samples):
    if name != "tokens":
        return WORKLOADS[name].collate(samples)
    rows = torch.stack(samples)
    return {"id": rows[:, -4:].contiguous().view(torch.int64).squeeze(1), "x": rows[:, :-4].to(torch.int64)}

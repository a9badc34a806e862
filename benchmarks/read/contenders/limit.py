"""The limit: the same batches from arrays in RAM by vectorised numpy and torch, the order known before."""

import numpy as np
import torch

from benchmarks.read.workloads import BATCH, DIM, decode_jpeg


def loader(contender, workload, folder, num_workers):
    num_samples = int(folder)  # nothing is stored
    order = np.random.default_rng(1).permutation(num_samples)
    batches = [order[begin : begin + BATCH] for begin in range(0, num_samples, BATCH)]
    samples = list(workload.samples(num_samples))
    if workload.name in ("tokens", "tabular"):
        columns = {name: np.stack([sample[name] for sample in samples]) for name in samples[0] if name != "id"}
        return _Dense(columns, batches)
    if workload.name == "sparse":
        return _Sparse([samples[row]["x"] for row in order], batches)
    if workload.name == "ragged":
        return _Ragged([samples[row]["x"] for row in order], batches)
    return _Bytes([sample["jpg" if workload.name == "images" else "x"] for sample in samples], batches, workload.name)


class _Dense:
    def __init__(self, columns, batches):
        self._columns, self._batches = columns, batches

    def __iter__(self):
        for rows in self._batches:
            made = {name: np.take(column, rows, 0) for name, column in self._columns.items()}
            yield {"id": torch.from_numpy(rows), **{
                name: torch.from_numpy(array if array.dtype.kind == "f" else array.astype(np.int64)) for name, array in made.items()}}  # fmt: skip


class _Sparse:
    def __init__(self, sets, batches):
        self._batches = [(rows, torch.from_numpy(np.concatenate([sets[BATCH * number + place].astype(np.int64) + place * DIM
                                                                 for place in range(len(rows))])))
                         for number, rows in enumerate(batches)]  # fmt: skip

        self._dense, self._one = torch.zeros(BATCH, DIM), torch.tensor(1.0)

    def __iter__(self):
        for rows, places in self._batches:  # one tensor again and again: fresh pages would cost more than the rest
            x = self._dense[: len(rows)].zero_()
            x.view(-1).index_put_((places,), self._one)
            yield {"id": torch.from_numpy(rows), "x": x}


class _Ragged:
    def __init__(self, lists, batches):
        self._batches, self._lists = batches, lists
        self._values = np.concatenate(lists)
        self._bounds = np.concatenate([[0], np.cumsum([len(values) for values in lists])])

    def __iter__(self):
        for number, rows in enumerate(self._batches):
            bounds = self._bounds[BATCH * number : BATCH * number + len(rows) + 1]
            values = torch.from_numpy(self._values[bounds[0] : bounds[-1]].astype(np.int64))
            yield {"id": torch.from_numpy(rows), "x": (values, torch.from_numpy(bounds - bounds[0]))}


class _Bytes:
    def __init__(self, blobs, batches, name):
        self._blobs, self._batches, self._is_images = blobs, batches, name == "images"

    def __iter__(self):
        for rows in self._batches:
            if self._is_images:
                yield {"id": torch.from_numpy(rows), "jpg": torch.from_numpy(np.stack([decode_jpeg(self._blobs[row]) for row in rows.tolist()]))}
            else:  # a copy, as from a file
                yield {"id": torch.from_numpy(rows), "x": [bytes(memoryview(self._blobs[row])) for row in rows.tolist()]}

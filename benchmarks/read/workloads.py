"""What is read: six kinds of samples, the same for every contender, and the batches that each must deliver.

A sample is a dict of numpy arrays, ``bytes`` and one int64 ``id``. A batch is a dict of tensors (a list for
bytes), made by a contender's own means or by :meth:`Workload.collate`, and told apart from any other by
:meth:`Workload.digest`, whose sum over an epoch is the same for all who deliver each sample once.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("SHARDSTREAM_DATA", ROOT / "../shared/data"))
BATCH = 256
VOCABULARY, DIM = 50_000, 1024


@dataclass(frozen=True)
class Workload:
    """A kind of samples.

    Attributes:
        num_samples, num_quick: In the full run, and in the quick one.
        mean_nbytes: Of a sample in memory, as shardstream's blocks hold it decoded.
        delivers: What a batch must be, for the table.
    """

    name: str
    num_samples: int
    num_quick: int
    mean_nbytes: int
    delivers: str

    def samples(self, num_samples: int) -> Iterator[dict[str, Any]]:
        """Yield the samples, each with its number as ``id``."""
        rng = np.random.default_rng(7)
        jpegs = _jpegs() if self.name == "images" else []
        for number in range(num_samples):
            yield {"id": number, **self._sample(rng, number, jpegs)}

    def _sample(self, rng: np.random.Generator, number: int, jpegs: list[bytes]) -> dict[str, Any]:
        if self.name == "tokens":
            return {"x": rng.integers(0, VOCABULARY, 2048).astype(np.uint16)}
        if self.name == "sparse":
            return {"x": np.unique(rng.integers(0, DIM, 20)).astype(np.uint16)}
        if self.name == "ragged":
            return {"x": rng.integers(0, VOCABULARY, 1 + int(rng.exponential(200))).astype(np.uint16)}
        if self.name == "tabular":
            return {"dense": rng.random(13, np.float32), "categories": (rng.zipf(1.3, 26) % 100_000).astype(np.uint32)}
        if self.name == "images":
            return {"jpg": jpegs[number % len(jpegs)]}
        return {"x": rng.bytes(100_000)}

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the batch of samples that a contender delivers one by one, by vectorised numpy."""
        batch: dict[str, Any] = {"id": torch.tensor([int(sample["id"]) for sample in samples])}
        if self.name == "tokens":
            batch["x"] = torch.from_numpy(np.stack([sample["x"] for sample in samples]).astype(np.int64))
        elif self.name in ("sparse", "ragged"):
            values = np.concatenate([sample["x"] for sample in samples]).astype(np.int64)
            offsets = np.concatenate([[0], np.cumsum([len(sample["x"]) for sample in samples])])
            batch["x"] = sparse_to_dense(values, offsets) if self.name == "sparse" else (torch.from_numpy(values), torch.from_numpy(offsets))
        elif self.name == "tabular":
            batch["dense"] = torch.from_numpy(np.stack([sample["dense"] for sample in samples]))
            batch["categories"] = torch.from_numpy(np.stack([sample["categories"] for sample in samples]).astype(np.int64))
        elif self.name == "images":
            batch["jpg"] = stack_images([sample["jpg"] for sample in samples])
        else:
            batch["x"] = [sample["x"] for sample in samples]
        return batch

    def digest(self, batch: dict[str, Any]) -> list[int]:
        """Return integers of a batch whose sums over an epoch tell a lost, repeated, changed or exchanged sample.

        They are the number of samples, sums of ids and of their squares, and a sum over all content times a weight by its id.
        """
        ids = batch["id"].numpy().astype(np.int64)
        if self.name == "ragged":
            values, offsets = batch["x"][0].numpy(), batch["x"][1].numpy()
            content = np.diff(np.concatenate([[0], np.cumsum(values)])[offsets]) + np.diff(offsets)
        elif self.name == "blobs":
            content = np.array([len(blob) + blob[0] + 256 * blob[len(blob) // 2] + 65536 * blob[-1] for blob in batch["x"]])
        elif self.name == "tabular":
            content = batch["categories"].numpy().sum(1) + batch["dense"].numpy().view(np.int32).sum(1, dtype=np.int64)
        elif self.name == "sparse":
            content = np.rint(batch["x"].numpy() @ np.arange(1, DIM + 1, dtype=np.float32)).astype(np.int64)
        else:
            column = batch["jpg" if self.name == "images" else "x"].numpy()
            content = column.reshape(len(ids), -1).sum(1, dtype=np.int64)
        return [len(ids), int(ids.sum()), int((ids * ids).sum()), int((content * (ids % 1009 + 1)).sum())]

    def num_bytes(self, num_samples: int) -> int:
        """Return what as many samples take in memory, with their ids."""
        return num_samples * (self.mean_nbytes + 8)


WORKLOADS = {workload.name: workload for workload in (
    Workload("tokens", 20_000, 4_000, 4096, "uint16[2048] to int64 (256, 2048)"),
    Workload("sparse", 40_000, 10_000, 88, "about 20 of 1,024 indices to float32 (256, 1024)"),
    Workload("ragged", 40_000, 8_000, 410, "uint16 of about 200 to int64 values and offsets"),
    Workload("tabular", 40_000, 6_000, 156, "float32[13], uint32[26] to float32 and int64"),
    Workload("images", 4_000, 2_000, 950, "CIFAR JPEGs of about 1 kB to uint8 (256, 32, 32, 3)"),
    Workload("blobs", 2_000, 400, 100_000, "100 kB of bytes"),
)}  # fmt: skip


def sparse_to_dense(values: np.ndarray, offsets: np.ndarray) -> torch.Tensor:
    """Return the batch of index sets, which lie end to end, as float32 ``(batch, DIM)``."""
    dense = np.zeros((len(offsets) - 1, DIM), np.float32)
    dense.reshape(-1)[values + np.repeat(np.arange(len(offsets) - 1) * DIM, np.diff(offsets))] = 1.0
    return torch.from_numpy(dense)


def stack_images(jpegs: list[bytes]) -> torch.Tensor:
    """Return images of one size as uint8 ``(batch, H, W, 3)``, by the decoder that every contender uses."""
    return torch.from_numpy(np.stack([decode_jpeg(jpeg) for jpeg in jpegs]))


def decode_jpeg(data: bytes) -> np.ndarray:
    """Return an image as uint8 (H, W, 3)."""
    import simplejpeg

    return simplejpeg.decode_jpeg(data)


def _jpegs() -> list[bytes]:
    """Return 4,000 of CIFAR-10's images as JPEGs where they are, else as many of noise that are as large."""
    archives = sorted((DATA / "images").glob("*cifar*.zip"))
    if archives:
        with zipfile.ZipFile(archives[0]) as archive:
            return [archive.read(name) for name in sorted(archive.namelist()) if name.lower().endswith((".jpg", ".jpeg"))]
    from PIL import Image

    rng, made = np.random.default_rng(3), []
    for _ in range(4000):
        out = io.BytesIO()
        small = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)
        Image.fromarray(small).resize((32, 32)).save(out, "JPEG", quality=90)
        made.append(out.getvalue())
    return made

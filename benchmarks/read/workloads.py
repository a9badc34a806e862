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
        num_samples: In the full run; the quick one takes a tenth.
        delivers: What a batch must be, for the table.
    """

    name: str
    num_samples: int
    delivers: str

    def samples(self, num_samples: int) -> Iterator[dict[str, Any]]:
        """Yield the samples, each with its number as ``id``."""
        rng = np.random.default_rng(7)
        jpegs = _jpegs() if self.name == "images" else []
        blob = rng.bytes(300_000) if self.name == "blobs" else b""
        for number in range(num_samples):
            yield {"id": number, **self._sample(rng, number, jpegs, blob)}

    def _sample(self, rng: np.random.Generator, number: int, jpegs: list[bytes], blob: bytes) -> dict[str, Any]:
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
        begin = int(rng.integers(0, 200_000))
        return {"x": blob[begin : begin + 100_000]}

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the batch of samples that a contender delivers one by one, by vectorised numpy."""
        batch: dict[str, Any] = {"id": torch.tensor([int(sample["id"]) for sample in samples])}
        if self.name == "tokens":
            batch["x"] = torch.from_numpy(np.stack([sample["x"] for sample in samples]).astype(np.int64))
        elif self.name in ("sparse", "ragged"):
            values = np.concatenate([sample["x"] for sample in samples]).astype(np.int64)
            lengths = np.array([len(sample["x"]) for sample in samples])
            if self.name == "sparse":
                batch["x"] = torch.zeros(len(samples), DIM)
                batch["x"].view(-1)[torch.from_numpy(values + np.repeat(np.arange(len(samples)) * DIM, lengths))] = 1.0
            else:
                batch["x"] = (torch.from_numpy(values), torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)])))
        elif self.name == "tabular":
            batch["dense"] = torch.from_numpy(np.stack([sample["dense"] for sample in samples]))
            batch["categories"] = torch.from_numpy(np.stack([sample["categories"] for sample in samples]).astype(np.int64))
        elif self.name == "images":
            batch["jpg"] = torch.from_numpy(np.stack([decode_jpeg(sample["jpg"]) for sample in samples]))
        else:
            batch["x"] = [sample["x"] for sample in samples]
        return batch

    def digest(self, batch: dict[str, Any]) -> tuple[int, int, int]:
        """Return the batch's number of samples, sum of ids, and a sum over all of its content."""
        if self.name == "ragged":
            content = int(batch["x"][0].sum()) + len(batch["x"][1]) - 1
        elif self.name == "blobs":
            content = sum(len(blob) + blob[0] + 256 * blob[-1] for blob in batch["x"])
        elif self.name == "tabular":
            content = int(batch["categories"].sum()) + round(float(batch["dense"].double().sum()) * 1e3)
        else:
            content = int(batch["jpg" if self.name == "images" else "x"].sum(dtype=torch.int64 if self.name != "sparse" else None))
        return len(batch["id"]), int(batch["id"].sum()), content


WORKLOADS = {workload.name: workload for workload in (
    Workload("tokens", 20_000, "uint16[2048] to int64 (256, 2048)"),
    Workload("sparse", 200_000, "about 20 of 1,024 indices to float32 (256, 1024)"),
    Workload("ragged", 50_000, "uint16 of about 200 to int64 values and offsets"),
    Workload("tabular", 200_000, "float32[13], uint32[26] to float32 and int64"),
    Workload("images", 20_000, "CIFAR JPEGs of about 1 kB to uint8 (256, 32, 32, 3)"),
    Workload("blobs", 2_000, "100 kB of bytes"),
)}  # fmt: skip


def decode_jpeg(data: bytes) -> np.ndarray:
    """Return an image as uint8 (H, W, 3); the decoder that every contender uses."""
    import simplejpeg

    return simplejpeg.decode_jpeg(data)


def _jpegs() -> list[bytes]:
    """Return CIFAR-10's JPEGs where they are, else as many of noise that is as large."""
    archives = sorted((DATA / "images").glob("*cifar*.zip"))
    if archives:
        with zipfile.ZipFile(archives[0]) as archive:
            return [archive.read(name) for name in sorted(archive.namelist()) if name.lower().endswith((".jpg", ".jpeg"))]
    from PIL import Image

    rng, made = np.random.default_rng(3), []
    for _ in range(1000):
        out = io.BytesIO()
        small = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)
        Image.fromarray(small).resize((32, 32)).save(out, "JPEG", quality=90)
        made.append(out.getvalue())
    return made

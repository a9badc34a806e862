"""Print how fast ss.transforms make arrays ready for a model, beside torch and numpy, with equal output.

    .venv/bin/python benchmarks/transforms.py

Every figure is millions of values made a second of CPU time of one thread, the best of all rounds, which alternate
between contenders. All crop the middle and flip nothing, so that the others need no random numbers; "random" is the
same in C with random crops and flips. Outputs are compared.
"""

from __future__ import annotations

import argparse
import os
import platform
import time

import numpy as np
import torch

import shardstream as ss

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def middle(images, crop: int):
    begin = (images.shape[1] - crop) // 2
    return images[:, begin : begin + crop, begin : begin + crop]


def with_torch(images: torch.Tensor, crop: int) -> torch.Tensor:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return ((middle(images, crop).permute(0, 3, 1, 2).float() / 255 - mean) / std).contiguous()


def with_numpy(images: np.ndarray, crop: int) -> np.ndarray:
    mean, std = np.float32(MEAN), np.float32(STD)
    return np.ascontiguousarray(((middle(images, crop).astype(np.float32) / 255 - mean) / std).transpose(0, 3, 1, 2))


def image_contenders(num: int, size: int, crop: int) -> dict:
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (num, size, size, 3), dtype=np.uint8))
    place, options = ss.Place(0, 0, np.arange(num)), {"crop": (crop, crop), "mean": MEAN, "std": STD}
    plain, random = (
        ss.transforms.Images("x", **options),
        ss.transforms.Images("x", random_crop=True, random_flip=True, **options),
    )
    return {"torch": lambda: with_torch(images, crop), "numpy": lambda: with_numpy(images.numpy(), crop),
            "shardstream": lambda: plain({"x": images}, place)["x"], "random": lambda: random({"x": images}, place)["x"]}  # fmt: skip


def number_contenders(num: int, width: int) -> dict:
    values = torch.from_numpy(np.random.default_rng(0).normal(size=(num, width)).astype(np.float32))
    mean, std = np.linspace(-1, 1, width), np.linspace(0.5, 2, width)
    transform = ss.transforms.Standardize("x", mean, std)
    mean32, std32 = torch.from_numpy(mean).float(), torch.from_numpy(std).float()
    return {"torch": lambda: (values - mean32) / std32, "numpy": lambda: (values.numpy() - mean32.numpy()) / std32.numpy(),
            "shardstream": lambda: transform({"x": values})["x"]}  # fmt: skip


def measure(contenders: dict, rounds: int) -> dict[str, float]:
    """Return millions of values a second; raises if the outputs that must be equal are not."""
    made = {name: call() for name, call in contenders.items()}
    for name in ("numpy", "shardstream"):
        np.testing.assert_allclose(np.asarray(made[name]), np.asarray(made["torch"]), rtol=1e-4, atol=1e-5)
    best = dict.fromkeys(contenders, float("inf"))
    for _ in range(rounds):
        for name, call in contenders.items():
            begin = time.thread_time()
            call()
            best[name] = min(best[name], time.thread_time() - begin)
    return {name: np.asarray(made[name]).size / 1e6 / seconds for name, seconds in best.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    print(
        f"torch {torch.__version__}, numpy {np.__version__}, Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}, best of {rounds}"
    )
    print(
        f"{'M values a second':<34}"
        + "".join(f"{name:>13}" for name in ("torch", "numpy", "shardstream", "random"))
        + "   times torch"
    )
    cases = {
        "64 images, 256 to 224": image_contenders(64, 256, 224), "256 images, 32 to 28": image_contenders(256, 32, 28),
        "256 images of 32": image_contenders(256, 32, 32), "65,536 rows of 13 numbers": number_contenders(65_536, 13),
        "512 rows of 2,048 numbers": number_contenders(512, 2048),
    }  # fmt: skip
    for name, contenders in cases.items():
        speeds = measure(contenders, rounds)
        cells = "".join(
            f"{speeds[name]:>13.0f}" if name in speeds else f"{'':>13}"
            for name in ("torch", "numpy", "shardstream", "random")
        )
        print(f"{name:<34}{cells}{speeds['shardstream'] / speeds['torch']:>14.1f}", flush=True)


if __name__ == "__main__":
    main()

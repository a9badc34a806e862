"""Trains a classifier on a dataset while it grows: predict each batch first, then learn from it.

    python examples/online/train.py s3://bucket/events --checkpoint model.pt --metrics metrics.jsonl

The records are those of produce.py: hashed words (x), a label (y), a time (t). Accuracy is prequential: every sample is predicted
before the model has seen it. Killed at any moment and started again with the same --checkpoint, the run goes on behind the
checkpoint's last sample; what stood in --metrics after it is taken back. SIGTERM ends the run after its batch. The run ends by
itself when the dataset was ended (shardstream end URL), or with --idle-timeout.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time

import torch

import shardstream as ss
from shardstream.progress import following_bar

LOOK_S = 0.5  # for the dataset, while there is none


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("dataset", help="URL of the dataset; waited for if there is none yet")
    parser.add_argument("--start", default="beginning",
                        help="beginning, end, a version, tag or time (default: %(default)s)")  # fmt: skip
    parser.add_argument("--until", type=int, metavar="VERSION", help="the last version to train on")
    parser.add_argument("--idle-timeout", metavar="TIME",
                        help="end when no whole batch came for so long, such as 10min")  # fmt: skip
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=1.0)
    parser.add_argument("--num-classes", type=int, default=2)
    parser.add_argument("--num-workers", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint", metavar="FILE", help="to save to, and to go on from if it is there")
    parser.add_argument("--checkpoint-every", type=float, default=5.0, metavar="SECONDS")
    parser.add_argument("--metrics", metavar="FILE", help="a JSON line for each batch")
    return parser.parse_args()


class LinearText(torch.nn.Module):
    """Sums the weights of the features present, class by class."""

    def __init__(self, dim: int, num_classes: int):
        super().__init__()
        self.bag = torch.nn.EmbeddingBag(dim, num_classes, mode="sum", sparse=True, include_last_offset=True)
        torch.nn.init.zeros_(self.bag.weight)

    def forward(self, x: ss.Jagged) -> torch.Tensor:
        return self.bag(x.values, x.offsets)


class Run:
    """A model, its optimizer, the stream, and what was measured: all that a checkpoint brings back together."""

    def __init__(self, options: argparse.Namespace):
        start = int(options.start) if options.start.isdigit() else options.start
        self.stream = ss.ShardStream(options.dataset, options.batch_size, shuffle=True, seed=options.seed, sparse="jagged", follow=True,
                                     start=start, until=options.until, idle_timeout=options.idle_timeout)  # fmt: skip
        self.loader = ss.StreamLoader(self.stream, options.num_workers)
        self.model = LinearText(_waited_for(options.dataset).schema["x"].dim, options.num_classes)
        # steps of constant size forget what has changed
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=options.learning_rate)
        self.num_samples = self.num_right = 0
        self.path = options.checkpoint
        self.metrics = open(options.metrics or os.devnull, "ab")
        if self.path and os.path.exists(self.path):
            self._load()
        elif options.metrics:
            self.metrics.truncate(0)

    def step(self, batch: dict) -> None:
        """Predict a batch, note how well, and learn from it."""
        scores = self.model(batch["x"])
        num, right = len(batch["y"]), int((scores.argmax(1) == batch["y"]).sum())
        self.num_samples += num
        self.num_right += right
        loss = torch.nn.functional.cross_entropy(scores, batch["y"])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        record = {"at": time.time(), "num": num, "right": right, "age": time.time() - float(batch["t"].mean()), "loss": loss.item(),
                  "freshness": self.stream.freshness, "lag": self.stream.lag}  # fmt: skip
        self.metrics.write(json.dumps(record).encode() + b"\n")

    def save(self) -> None:
        """Write a checkpoint under its name only when it is complete, so that a kill leaves the one before."""
        self.metrics.flush()
        if self.path:
            parts = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "stream": self.loader.state_dict(),
                     "counts": (self.num_samples, self.num_right), "metrics_nbytes": os.fstat(self.metrics.fileno()).st_size}  # fmt: skip
            torch.save(parts, f"{self.path}.new")
            os.replace(f"{self.path}.new", self.path)

    def _load(self) -> None:
        parts = torch.load(self.path)
        self.model.load_state_dict(parts["model"])
        self.optimizer.load_state_dict(parts["optimizer"])
        self.loader.load_state_dict(parts["stream"])
        self.num_samples, self.num_right = parts["counts"]
        if os.fstat(self.metrics.fileno()).st_size > parts["metrics_nbytes"]:  # what is done again is noted again
            self.metrics.truncate(parts["metrics_nbytes"])
        print(f"going on after {self.num_samples:,} samples", flush=True)


def _waited_for(url: str) -> ss.Dataset:
    """Return the dataset at a URL, once there is one."""
    is_told = False
    while True:
        try:
            return ss.Dataset(url)
        except ss.DatasetNotFoundError:
            if not is_told:
                print(f"waiting for a dataset at {url}", flush=True)
            is_told = True
            time.sleep(LOOK_S)


def main() -> int:
    options = arguments()
    torch.sparse.check_sparse_tensor_invariants.disable()  # of the gradients; says nothing then
    try:
        run = Run(options)
        signal.signal(signal.SIGTERM, lambda *_: run.stream.stop())
        saved = time.monotonic()
        with following_bar(run.stream) as show:
            for batch in run.loader:
                run.step(batch)
                show(len(batch["y"]))
                if time.monotonic() - saved > options.checkpoint_every:
                    run.save()
                    saved = time.monotonic()
        run.save()
    except ss.ShardstreamError as error:
        print(f"train: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(f"{run.num_samples:,} samples, {100 * run.num_right / max(1, run.num_samples):.1f}% predicted right before "
          "they were learned", flush=True)  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Train a linear classifier on hashed text from a stream, and go on exactly after any interruption.

    shardstream pack configs/pack_text_sparse.yaml
    python examples/train_text.py demo/stdlib/train demo/stdlib/held_out

The model is a weight for each pair of feature and class: an EmbeddingBag that sums the rows of the
features that a passage has. A checkpoint holds model, optimizer and the stream's state, taken
together; started again with the same --checkpoint after a kill, the run ends with the very weights
that it would have had. Works on local folders and on s3:// alike.
"""

import argparse
import os
import signal
import time

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import shardstream as ss
from shardstream.packing import class_names


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("train", help="URL of the dataset to train on, with fields x (sparse) and y (classes)")
    parser.add_argument("held_out", help="URL of the dataset to measure on")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--learning-rate", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint", help="file to save to, and to go on from if it is there")
    parser.add_argument("--checkpoint-every", type=int, default=20, metavar="BATCHES")
    parser.add_argument("--weights", help="file for the final weights")
    parser.add_argument("--kill-after", type=int, metavar="BATCHES", help="end by SIGKILL, to try a resume")
    return parser.parse_args()


class LinearText(torch.nn.Module):
    """Sums the weights of the features present, class by class."""

    def __init__(self, dim: int, num_classes: int):
        super().__init__()
        self.bag = torch.nn.EmbeddingBag(dim, num_classes, mode="sum", sparse=True, include_last_offset=True)
        self.bias = torch.nn.Parameter(torch.zeros(num_classes))
        torch.nn.init.zeros_(self.bag.weight)

    def forward(self, x: ss.Jagged) -> torch.Tensor:
        return self.bag(x.values, x.offsets) + self.bias


def save(path: str, **parts) -> None:
    """Write a checkpoint under its name only when it is complete, so that a kill leaves the one before."""
    torch.save(parts, f"{path}.new")
    os.replace(f"{path}.new", path)


def train(options: argparse.Namespace, model: LinearText, loader: ss.StreamLoader) -> int:
    """Train to the last epoch, from the checkpoint if there is one; returns the number of batches done here."""
    optimizer = torch.optim.SGD(model.parameters(), lr=options.learning_rate)
    first_epoch = step = begun = 0
    if options.checkpoint and os.path.exists(options.checkpoint):
        parts = torch.load(options.checkpoint)
        model.load_state_dict(parts["model"])
        optimizer.load_state_dict(parts["optimizer"])
        loader.load_state_dict(parts["stream"])
        first_epoch, step = parts["stream"]["epoch"], parts["step"]
        begun = step
        print(f"going on after batch {step}: epoch {first_epoch}, position {parts['stream']['position']:,}")
    console = Console(stderr=True)
    columns = [
        TextColumn("epoch {task.fields[epoch]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
    ]
    with Progress(
        *columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(
            "train", total=options.epochs * len(loader), completed=step, epoch=first_epoch, loss=float("nan")
        )
        for epoch in range(first_epoch, options.epochs):
            loader.set_epoch(epoch)
            for batch in loader:
                loss = torch.nn.functional.cross_entropy(model(batch["x"]), batch["y"])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                step += 1
                if step % 10 == 0:
                    bar.update(task, completed=step, epoch=epoch, loss=loss.item())
                if options.checkpoint and step % options.checkpoint_every == 0:
                    save(options.checkpoint, model=model.state_dict(), optimizer=optimizer.state_dict(),
                         stream=loader.state_dict(), step=step)  # fmt: skip
                if step == options.kill_after:
                    os.kill(os.getpid(), signal.SIGKILL)
    return step - begun


@torch.no_grad()
def measure(model: LinearText, url: str, majority: int) -> tuple[float, float, int]:
    """Return ``(accuracy, accuracy of always saying the majority class, number of samples)``."""
    right, baseline, count = 0, 0, 0
    for batch in ss.ShardStream(url, batch_size=1024, fields=["x", "y"], sparse="jagged"):
        right += (model(batch["x"]).argmax(1) == batch["y"]).sum().item()
        baseline += (batch["y"] == majority).sum().item()
        count += len(batch["y"])
    return right / count, baseline / count, count


def main() -> None:
    options = arguments()
    torch.manual_seed(options.seed)
    names = class_names(options.train).get("y")
    if names is None:
        ss.Dataset(options.train)  # if there is none, its error says so
        raise SystemExit(f"{options.train} has no classes: pack it with `classes`, as "
                         "configs/pack_text_sparse.yaml does")  # fmt: skip
    stream = ss.ShardStream(options.train, batch_size=options.batch_size, shuffle=True, seed=options.seed,
                            fields=["x", "y"], sparse="jagged")  # fmt: skip
    model = LinearText(ss.Dataset(options.train).schema["x"].dim, len(names))
    start = time.monotonic()
    num_batches = train(options, model, ss.StreamLoader(stream))
    seconds = time.monotonic() - start
    labels = torch.cat([batch["y"] for batch in ss.ShardStream(options.train, batch_size=8192, fields=["y"])])
    majority = int(labels.bincount().argmax())
    accuracy, baseline, count = measure(model, options.held_out, majority)
    print(f"{num_batches} batches of {options.batch_size} in {seconds:.1f} s; an epoch is {len(labels):,} passages")
    print(f"held-out accuracy {accuracy:.1%} of {count:,} passages; always {names[majority]!r}: {baseline:.1%}")
    if options.weights:
        torch.save(model.state_dict(), options.weights)


if __name__ == "__main__":
    try:
        main()
    except ss.ShardstreamError as error:
        raise SystemExit(f"train_text: {error}") from None

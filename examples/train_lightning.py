"""Train with Lightning from a stream, and go on in mid-epoch from any checkpoint.

    python examples/train_lightning.py DATASET --epochs 2 --folder runs/first
    python examples/train_lightning.py DATASET --epochs 2 --folder runs/first     (again: goes on at the last checkpoint)

DATASET has the fields x (sparse) and y (classes), as configs/pack_text_sparse.yaml packs it. Nothing here is about
resuming: a StreamLoader has state_dict() and load_state_dict(), which Lightning's fit loop saves in its checkpoints
and loads from them. One thing to know: of a checkpoint taken at the very last batch of an epoch nothing is left to train on, and
Lightning counts that as one of its epochs; choose --checkpoint-every so that it does not divide the epoch. Needs
`pip install lightning`.
"""

import argparse
import os
import signal

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

import shardstream as ss


class LinearText(lightning.LightningModule):
    """Sums the weights of the features present, class by class."""

    def __init__(self, dim: int, num_classes: int, kill_after: int | None):
        super().__init__()
        self.kill_after = kill_after
        self.bag = torch.nn.EmbeddingBag(dim, num_classes, mode="sum", include_last_offset=True)

    def training_step(self, batch: dict, batch_index: int) -> torch.Tensor:
        if self.global_step == self.kill_after:
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.nn.functional.cross_entropy(self.bag(batch["x"].values, batch["x"].offsets), batch["y"])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1.0)


class Data(lightning.LightningDataModule):
    """The loader; on several devices each process reads its share, which the stream learns from torch.distributed."""

    def __init__(self, url: str, batch_size: int = 256, num_workers: int = 0):
        super().__init__()
        self.url, self.batch_size, self.num_workers = url, batch_size, num_workers

    def train_dataloader(self) -> ss.StreamLoader:
        stream = ss.ShardStream(self.url, batch_size=self.batch_size, shuffle=True, fields=["x", "y"], sparse="jagged")
        return ss.StreamLoader(stream, num_workers=self.num_workers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("dataset")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--num-workers", type=int, default=0)
    parser.add_argument("--num-classes", type=int, default=100)
    parser.add_argument("--folder", default="lightning", help="where checkpoints are")
    parser.add_argument("--checkpoint-every", type=int, default=20, metavar="BATCHES")
    parser.add_argument("--kill-after", type=int, metavar="BATCHES", help="end by SIGKILL, to try a resume")
    options = parser.parse_args()
    torch.manual_seed(0)
    last = os.path.join(options.folder, "last.ckpt")
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=options.epochs, default_root_dir=options.folder, logger=False,
        enable_progress_bar=False, enable_model_summary=False,
        callbacks=[ModelCheckpoint(options.folder, save_last=True, save_top_k=0, every_n_train_steps=options.checkpoint_every)])  # fmt: skip
    model = LinearText(ss.Dataset(options.dataset).schema["x"].dim, options.num_classes, options.kill_after)
    resumes = os.path.exists(last)
    trainer.fit(model, Data(options.dataset, options.batch_size, options.num_workers),
                ckpt_path=last if resumes else None)  # fmt: skip
    print(f"{'went on' if resumes else 'began'}; batch {trainer.global_step} of epoch {trainer.current_epoch}")


if __name__ == "__main__":
    main()

"""A rank of a small training job: it consumes, notes what it got, saves states, and may be killed at any moment.

What counts as consumed is what was noted before the newest saved state, as in any training job: whatever was done
after it is done again. ``tests/lineage.py`` starts such jobs, kills them, and checks what they noted.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import sys
import time
from pathlib import Path

import torch.distributed

# imported here, as all others are, so that who forks trainers does it once for all of them
import shardstream.codecs.foreign  # noqa: F401
from shardstream import ShardStream, StreamLoader, mix


def make_stream(source, seed: int = 0, weights=(3, 2), **options):
    """Return a stream of a source of ``lineage.write_sources``; all of a mixture comes once an epoch, whatever the
    weights.
    """
    if isinstance(source, dict) and "follow" in source:
        stream = ShardStream(source["follow"], seed=seed, follow=True, start="beginning", **options)
        return mix([stream, ShardStream(source["history"], seed=seed, **options)],
                   weights) if "history" in source else stream  # fmt: skip
    if isinstance(source, dict):
        streams = [ShardStream(url, seed=seed + i, **options) for i, url in enumerate(source["mix"])]
        return mix(streams, weights, seed=seed, stop="rest")
    return ShardStream(source, seed=seed, **options)


def followed(state: dict) -> dict | None:
    """Return the state of what follows: this one, or that of a source of such a mixture; None if nothing does."""
    return next((one for one in (state, *state.get("sources", ())) if "follow" in one), None)


def ids_of(batch: dict) -> list[int]:
    """Return the samples of a batch, without padding."""
    ids = [int(i) for i in (batch["y"] if "y" in batch else batch["cls"])]
    is_pad = batch.get("__pad__")
    return ids if is_pad is None else [i for i, pad in zip(ids, is_pad.tolist()) if not pad]


def train(spec: dict, folder: Path, rank: int) -> None:
    """Be a rank: the process group is there; ``spec`` says what to do, ``folder`` is this run's own."""
    stream = make_stream(spec["source"], spec["seed"], spec["weights"], shuffle=True, batch_size=spec["batch_size"])
    loader = StreamLoader(stream, spec["num_workers"], multiprocessing_context=spec["context"])
    if spec["state"] is not None:
        loader.load_state_dict(spec["state"])
    generator = random.Random(f"{spec['seed']} {rank} {os.getpid()}")
    step = 0
    with open(folder / f"rank-{rank}.jsonl", "a", buffering=1) as notes:
        while (epoch := loader.state_dict().get("epoch", 0)) < spec["num_epochs"]:
            for batch in loader:
                if step == 0:
                    notes.write(json.dumps({"workers": [process.pid for process in multiprocessing.active_children()]}) + "\n")
                notes.write(json.dumps({"step": step, "epoch": epoch, "ids": ids_of(batch)}) + "\n")
                step += 1
                if step % spec["save_every"] == 0:
                    save(loader, folder, rank, step)
                if step == spec["stop_after"]:
                    save(loader, folder, rank, step)
                    return
                time.sleep(generator.random() * spec["step_s"])
            if followed(loader.state_dict()):
                break  # the log has ended; there is one epoch
        save(loader, folder, rank, step)


def save(loader, folder: Path, rank: int, step: int) -> None:
    """Save the state as a training job does: one file, put in place when every rank has come this far with the same
    state.
    """
    state = loader.state_dict()
    states: list = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(states, (step, state))
    assert all(other == (step, state) for other in states), f"ranks have different states: {states}"
    if rank == 0:
        temporary = folder / "state.tmp"
        temporary.write_text(json.dumps({"step": step, "state": state}))
        os.replace(temporary, folder / "state.json")


def main(spec_path: str, rank: int, world_size: int, init_method: str) -> None:
    """Be a rank from its beginning to its end."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=init_method, rank=rank, world_size=world_size)
    train(json.loads(Path(spec_path).read_text()), Path(spec_path).parent, rank)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), "env://")

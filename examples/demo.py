"""The main job from end to end: ``make demo``, or ``make demo S3=1`` with the datasets on S3.

Packs the sources of Python's own standard library into hashed sparse features, measures what that
saved, trains a classifier from the stream, kills the training in mid-epoch and resumes it to the same
weights, and reads the data once more as fast as it goes. Each step is a command that is shown before it
runs; the README has them one by one, for any folder of text files.
"""

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

MADE = ("stdlib", "webdataset", "training")  # folders that a run makes below --out, and replaces


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", default="demo", help="local folder for what the demo makes")
    parser.add_argument(
        "--s3", action="store_true", help="datasets on S3: $AWS_ENDPOINT_URL, else a server on loopback"
    )
    parser.add_argument("--s3-url", default="s3://shardstream-demo", help="bucket, and prefix if you like, for --s3")
    parser.add_argument("--config", default=str(ROOT / "configs/pack_text_sparse.yaml"))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="passed on to shardstream pack")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=256)
    return parser.parse_args()


def title(text: str) -> None:
    print(f"\n== {text}", flush=True)


def run(*command: str, expect: int = 0) -> None:
    """Show a command, run it, and stop the demo unless it ends as expected."""
    shown = [
        "python" if part == sys.executable else os.path.relpath(part) if part.startswith(str(ROOT)) else part
        for part in command
    ]
    print(f"$ {shlex.join(shown)}", flush=True)
    status = subprocess.run(command).returncode
    if status != expect:
        sys.exit(f"demo: the command ended with status {status}, not {expect}")
    if expect < 0:
        print(f"(ended by {signal.Signals(-expect).name}, as it should)")


@contextmanager
def s3_server():
    """Give the environment an S3 server: the one it names, the one that runs already, or one for this run."""
    import s3_server as server

    if "AWS_ENDPOINT_URL" in os.environ:
        print(f"S3 at {os.environ['AWS_ENDPOINT_URL']}")
        yield
        return
    environment, folder = server.running(server.DEFAULT_DIR), None
    if environment is None:
        print("starting an S3 server on loopback ...", flush=True)
        folder = Path(tempfile.mkdtemp(prefix="shardstream-demo-s3-"))
        environment = server.start(folder)
    os.environ.update(environment)
    print(f"S3: {environment['SHARDSTREAM_S3_SERVER']} at {environment['AWS_ENDPOINT_URL']}")
    try:
        yield
    finally:
        if folder is not None:
            server.stop(folder)
            shutil.rmtree(folder, ignore_errors=True)


def make_bucket(url: str) -> None:
    import fsspec

    bucket = url.removeprefix("s3://").split("/")[0]
    s3 = fsspec.filesystem("s3")
    if not s3.exists(bucket):
        s3.mkdir(bucket)


def show_savings(urls: list[str], folder: Path) -> None:
    """Measure the same samples as shards, as a WebDataset tar with a member a field, and as dense float32."""
    import webdataset as wds

    import shardstream as ss

    folder.mkdir(parents=True)
    num_samples = num_indices = 0
    for number, url in enumerate(urls):
        with wds.TarWriter(str(folder / f"{number}.tar")) as tar:
            for row in ss.ShardStream(url, fields=["x", "y"], sparse="indices"):
                tar.write(
                    {
                        "__key__": f"{num_samples:08d}",
                        "x.npy": row["x"].numpy().astype("uint32"),
                        "y.cls": int(row["y"]),
                    }
                )
                num_samples += 1
                num_indices += len(row["x"])
    dim = ss.Dataset(urls[0]).schema["x"].dim
    ours = sum(ss.Dataset(url).nbytes for url in urls)
    theirs = sum(file.stat().st_size for file in folder.iterdir())
    dense = num_samples * dim * 4
    print(f"{num_samples:,} passages with {num_indices / num_samples:.0f} of {dim:,} features each, and a class")
    print(f"  dense float32                    {dense / 1e6:12,.2f} MB   samples x {dim:,} x 4 bytes")
    version = f"webdataset {wds.__version__}"
    print(f"  WebDataset, a member a field     {theirs / 1e6:12,.2f} MB   written with {version}: uint32 .npy and .cls")
    print(f"  shardstream                      {ours / 1e6:12,.2f} MB   all shards, with their keys and indexes;")
    print(f"  {'':32} {dense / ours:12,.0f} x less than dense, {theirs / ours:.1f} x less than WebDataset")


def check_same(one: Path, other: Path) -> None:
    import torch

    first, second = torch.load(one), torch.load(other)
    if first.keys() != second.keys() or not all(torch.equal(first[name], second[name]) for name in first):
        sys.exit("demo: the resumed run ended with other weights than the uninterrupted one")
    count = sum(part.numel() for part in first.values())
    print(f"the resumed run ended with the same weights: all {count:,} are equal bit for bit")


def train(options: argparse.Namespace, urls: list[str], folder: Path) -> None:
    import shardstream as ss

    folder.mkdir(parents=True)
    script = [sys.executable, str(ROOT / "examples/train_text.py"), *urls]
    script += ["--epochs", str(options.epochs), "--batch-size", str(options.batch_size)]
    title("train")
    run(*script, "--weights", str(folder / "whole.pt"))
    num_batches = len(ss.ShardStream(urls[0], batch_size=options.batch_size))
    kill_after = max(2, num_batches * options.epochs * 3 // 8)  # in the middle of an epoch, and of two checkpoints
    title("train again, killed in mid-epoch, and once more from the checkpoint")
    script += [
        "--checkpoint",
        str(folder / "checkpoint.pt"),
        "--checkpoint-every",
        str(max(1, min(20, kill_after // 2 + 1))),
    ]
    run(*script, "--kill-after", str(kill_after), expect=-signal.SIGKILL)
    run(*script, "--weights", str(folder / "resumed.pt"))
    check_same(folder / "whole.pt", folder / "resumed.pt")


def show_throughput(url: str) -> None:
    """Read epochs for two seconds, shuffled, as batches that are ready for EmbeddingBag."""
    import shardstream as ss

    nbytes, samples, indices = 0, 0, 0
    stream = ss.ShardStream(url, batch_size=256, shuffle=True, epochs=None, fields=["x", "y"], sparse="jagged")
    num_samples = ss.Dataset(url).num_samples
    start = time.monotonic()
    for batch in stream:
        samples += len(batch["y"])
        indices += len(batch["x"].values)
        if (seconds := time.monotonic() - start) > 2:
            break
    nbytes = ss.Dataset(url).nbytes * samples / num_samples
    print(
        f"streamed {samples:,} shuffled samples in {seconds:.1f} s, one process: {samples / seconds:,.0f} samples/s, "
        f"{indices / seconds / 1e6:.1f} M indices/s, {nbytes / seconds / 1e6:.1f} MB/s of shards"
    )


def main() -> None:
    options, start = arguments(), time.monotonic()
    out = Path(options.out)
    for name in MADE:
        shutil.rmtree(out / name, ignore_errors=True)
    with ExitStack() as stack:
        base = str(out / "stdlib")
        if options.s3:
            title("S3")
            stack.enter_context(s3_server())
            make_bucket(options.s3_url)
            base = f"{options.s3_url.rstrip('/')}/stdlib-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
        title("pack")
        settings = [f"output.url={base}/{{split}}", *options.set]
        run(
            sys.executable,
            "-m",
            "shardstream",
            "pack",
            options.config,
            *(part for one in settings for part in ("--set", one)),
        )
        urls = [f"{base}/train", f"{base}/held_out"]
        run(sys.executable, "-m", "shardstream", "ls", urls[0])
        title("what that saved")
        show_savings(urls, out / "webdataset")
        train(options, urls, out / "training")
        title(f"read as fast as it goes ({time.monotonic() - start:.0f} s so far)")
        show_throughput(urls[0])


if __name__ == "__main__":
    main()

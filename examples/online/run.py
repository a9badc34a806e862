"""The online loop from end to end: ``make online``, or ``make online S3=1`` with the dataset on S3.

Writes a log file in which the meaning of words changes from time to time; produce.py tails it into a dataset; train.py follows
the dataset, predicting before it learns. Both are killed by SIGKILL on the way and started again. At the end the dataset is
ended, every line of the log must have been trained on exactly once, and accuracy and freshness are plotted over time.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]

from demo import make_bucket, s3_server  # noqa: E402

import shardstream as ss  # noqa: E402

WORDS = [f"word{i}" for i in range(60)]
WORDS_A_TEXT = 11  # an odd number of voices, so that there is no draw
NOISE = 0.05  # of the labels are wrong, so that no model is always right
TICK_S = 0.05
PATIENCE_S = 120.0  # with a program that comes to its end
SMOOTH_S = 2.0  # of the plot


class Concept:
    """What texts mean: each word speaks for or against, and changes its mind at a drift."""

    def __init__(self, seed: int):
        self._chance = random.Random(seed)
        self.drift()

    def drift(self) -> None:
        self._weights = {word: self._chance.choice([-1, 1]) for word in WORDS}

    def record(self) -> dict:
        words = self._chance.sample(WORDS, k=WORDS_A_TEXT)
        label = int(sum(self._weights[word] for word in words) > 0) ^ (self._chance.random() < NOISE)
        return {"text": " ".join(words), "label": label, "time": time.time()}


class Program:
    """One of the two programs: can be killed and started again. ``sign`` is a file by which it shows that it has come to something."""

    def __init__(self, name: str, sign: Path, *arguments: object):
        self.name, self.sign, self._command = name, sign, [sys.executable, str(HERE / f"{name}.py"), *map(str, arguments)]
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        print(f"killed {self.name}.py by SIGKILL; starting it again", flush=True)
        self.start()

    def finish(self, number: signal.Signals | None = None) -> None:
        if number is not None:
            self._process.send_signal(number)
        if self._process.wait(PATIENCE_S) != 0:
            raise SystemExit(f"{self.name}.py failed")

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def check(self) -> None:
        if self._process.poll() is not None:
            raise SystemExit(f"{self.name}.py ended with exit status {self._process.returncode}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", default="demo/online", help="folder for everything (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long the log grows (default: %(default)s)")
    parser.add_argument("--drift-every", type=float, default=15.0, metavar="SECONDS")
    parser.add_argument("--rate", type=float, default=500.0, help="records a second (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--s3", action="store_true", help="the dataset on S3: $AWS_ENDPOINT_URL, else a server on loopback")
    parser.add_argument("--s3-url", default="s3://shardstream-demo", help="bucket, and prefix if you like, for --s3")
    return parser.parse_args()


def grow(options: argparse.Namespace, log: Path, programs: list[Program]) -> tuple[int, list[float]]:
    """Write the log for some time, let the concept drift, kill each program once; return lines written and times of drifts."""
    concept, begin, num, drifts = Concept(options.seed), time.time(), 0, []
    kills = [(begin + options.seconds * (place + 1) / 4, program) for place, program in enumerate(programs)]
    with open(log, "a") as file:
        while (now := time.time()) < begin + options.seconds or kills:
            if now - begin > options.drift_every * (len(drifts) + 1):
                concept.drift()
                drifts.append(now)
            for _ in range(int((now - begin) * options.rate) - num):
                file.write(json.dumps(concept.record()) + "\n")
                num += 1
            file.flush()
            for program in programs:
                program.check()
            if kills and now > kills[0][0] and kills[0][1].sign.exists():
                kills.pop(0)[1].kill()
            time.sleep(TICK_S)
    return num, drifts


def plot(metrics: list[dict], drifts: list[float], path: Path) -> None:
    """Draw prequential accuracy and freshness over time."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    begin = metrics[0]["at"]
    figure, (top, bottom) = pyplot.subplots(2, 1, sharex=True, figsize=(9, 6), constrained_layout=True)
    at, accuracy = [], []
    window: list[dict] = []
    for record in metrics:
        window = [one for one in window if one["at"] > record["at"] - SMOOTH_S] + [record]
        at.append(record["at"] - begin)
        accuracy.append(100 * sum(one["right"] for one in window) / sum(one["num"] for one in window))
    top.plot(at, accuracy)
    top.axhline(100 * (1 - NOISE), linewidth=0.8, linestyle=":", color="grey")
    top.set(ylabel=f"predicted right before learning, %\n(over {SMOOTH_S:g} s; dotted: the best possible)", ylim=(0, 100))
    bottom.plot(at, [record["age"] for record in metrics], label="since the record was made")
    bottom.plot(at, [record["freshness"] for record in metrics], label="since its commit")
    bottom.set(xlabel="s", ylabel="age of what is learned, s", yscale="log")
    bottom.legend()
    for axes in (top, bottom):
        for drift in drifts:
            axes.axvline(drift - begin, linewidth=0.8, linestyle="--", color="tab:red")
    top.set_title("a concept that drifts (dashed), and a model that follows")
    figure.savefig(path, dpi=120)


def finish(url: str, produce: Program, train: Program, num: int) -> None:
    """Let the producer come to the log's end, end the dataset, and let the trainer come to its end."""
    deadline = time.monotonic() + PATIENCE_S
    while ss.Dataset(url).num_samples < num and time.monotonic() < deadline:
        produce.check()
        time.sleep(1.0)
    produce.finish(signal.SIGTERM)
    if ss.Dataset(url).num_samples != num:
        raise SystemExit(f"{num} lines became {ss.Dataset(url).num_samples} records")
    subprocess.run([sys.executable, "-m", "shardstream", "end", url], check=True)
    train.finish()


def main() -> int:
    options = arguments()
    out = Path(options.out) / time.strftime("%Y%m%d-%H%M%S")
    out.mkdir(parents=True)
    log, metrics_path, url = out / "events.jsonl", out / "metrics.jsonl", str(out / "events")
    log.touch()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with ExitStack() as stack:
        if options.s3:
            stack.enter_context(s3_server())
            make_bucket(options.s3_url)
            url = f"{options.s3_url.rstrip('/')}/online-{out.name}-{os.getpid()}"
        produce = Program("produce", log, url, "--tail", log, "--max-latency", "1s")
        stack.callback(produce.end)
        train = Program("train", out / "model.pt", url, "--checkpoint", out / "model.pt", "--metrics", metrics_path, "--checkpoint-every", "2")
        stack.callback(train.end)
        while not metrics_path.exists():  # the trainer makes it when it has found the dataset
            for program in (produce, train):
                program.check()
            time.sleep(TICK_S)
        num, drifts = grow(options, log, [train, produce])
        finish(url, produce, train, num)
    metrics = [json.loads(line) for line in metrics_path.read_text().splitlines()]
    num_trained = sum(record["num"] for record in metrics)
    if num_trained != num:
        raise SystemExit(f"{num} lines were written, but {num_trained} trained on")
    plot(metrics, drifts, out / "online.png")
    ages = sorted(record["age"] for record in metrics)
    print(f"{num:,} lines written, committed and trained on, each once; median age when learned {ages[len(ages) // 2]:.2f} s")
    print(f"plot: {out / 'online.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Print how long training a byte-pair vocabulary takes, beside Hugging Face's BpeTrainer, with equal merges.

    .venv/bin/python benchmarks/bpe_train.py                # three corpora, two sizes; some minutes
    .venv/bin/python benchmarks/bpe_train.py --rounds 1     # noisier

Both get the same list of ``str`` and the cl100k pattern; both give merges, which must be equal. Wall and
CPU seconds of the fastest of all rounds, each in a fresh process, rounds alternating. tokenizers uses
all cores, shardstream one. "MB" is the peak of resident memory beyond what the texts and the imports take.

The texts are those of ``$SHARDSTREAM_DATA/text``, or of ``../shared/data/text`` beside the repository.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import resource
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path = [path for path in sys.path if Path(path).resolve() != ROOT / "benchmarks"]  # where "tokenizers" is another file
DATA = Path(os.environ.get("SHARDSTREAM_DATA", ROOT / "../shared/data")) / "text"
CONTENDERS = ("tokenizers", "shardstream")


def read_corpus(name: str) -> list[str]:
    """Return the texts of a corpus."""
    if name == "reuters":
        return [
            doc for path in sorted(DATA.glob("reuters/*.sgm")) for doc in path.read_text("latin-1").split("</REUTERS>")
        ]
    if name == "multilingual":
        return [
            line
            for path in sorted(DATA.glob("multilingual/*.txt"))
            for line in path.read_text("utf-8").splitlines(True)
        ]
    with zipfile.ZipFile(DATA / "nltk_movie_reviews.zip") as archive:
        return [archive.read(name).decode() for name in archive.namelist() if name.endswith(".txt")]


def train_tokenizers(texts: list[str], vocab_size: int) -> Callable[[], list[tuple[str, str]]]:
    """Train, and return a function that gives the merges."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    from shardstream.tokenizers.patterns import CL100K_JSON

    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(CL100K_JSON), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=vocab_size, initial_alphabet=alphabet, show_progress=False)
    )
    return lambda: [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]


def train_shardstream(texts: list[str], vocab_size: int) -> Callable[[], list[tuple[str, str]]]:
    """Train, and return a function that gives the merges."""
    import shardstream as ss
    from shardstream.tokenizers.files import byte_chars

    vocabulary = ss.tokenizers.train(texts, vocab_size, "cl100k", progress=False).vocabulary
    chars = [byte_chars(token) for token in vocabulary.tokens()]
    return lambda: [(chars[left], chars[right]) for left, right in vocabulary.merges.tolist()]


def measure(contender: str, corpus: str, vocab_size: int) -> dict:
    """Train once and return what it took; imports and reading apart."""
    train = {"tokenizers": train_tokenizers, "shardstream": train_shardstream}[contender]
    texts = read_corpus(corpus)
    train(["warm up"], 300)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, cpu = time.perf_counter(), time.process_time()
    merges = train(texts, vocab_size)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {"wall": wall, "cpu": cpu, "MB": peak / 1000, "nbytes": sum(len(text.encode()) for text in texts),
            "digest": hashlib.sha256(json.dumps(merges()).encode()).hexdigest()}  # fmt: skip


def in_fresh_process(*arguments) -> dict:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, __file__, "--measure", *map(str, arguments)], check=True, capture_output=True, env=environment
    )
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure[0], options.measure[1], int(options.measure[2]))))
        return
    import tokenizers

    print(f"tokenizers {tokenizers.__version__}, Python {platform.python_version()}, {os.cpu_count()} cores, "
          f"load {os.getloadavg()[0]:.1f}, best of {options.rounds} rounds")  # fmt: skip
    print(
        f"{'corpus':<14}{'MB':>6}{'ids':>8}   "
        + "".join(f"{name + ' s (CPU), MB':>28}" for name in CONTENDERS)
        + "   wall ratio   CPU ratio"
    )
    for corpus in ("reuters", "reviews", "multilingual"):
        for vocab_size in (8_000, 32_000):
            rounds = [
                {name: in_fresh_process(name, corpus, vocab_size) for name in CONTENDERS} for _ in range(options.rounds)
            ]
            assert len({found["digest"] for one in rounds for found in one.values()}) == 1, "the merges differ"
            best = {
                name: {key: min(one[name][key] for one in rounds) for key in ("wall", "cpu", "MB", "nbytes")}
                for name in CONTENDERS
            }
            cells = "".join(f"{b['wall']:>12.2f} ({b['cpu']:>6.2f}) {b['MB']:>6.0f}" for b in best.values())
            ratios = [best["tokenizers"][key] / best["shardstream"][key] for key in ("wall", "cpu")]
            print(
                f"{corpus:<14}{best['shardstream']['nbytes'] / 1e6:>6.1f}{vocab_size:>8}   {cells}{ratios[0]:>13.1f}{ratios[1]:>12.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()

"""Print how fast texts are hashed, beside scikit-learn's HashingVectorizer, with equal output.

    .venv/bin/python benchmarks/hashing.py                 # all corpora and settings; some minutes
    .venv/bin/python benchmarks/hashing.py --rounds 1      # noisier

Every figure is MB of UTF-8 a second, input a list of ``str`` unless it says "ragged", one thread unless it
says "2 threads". One thread is timed by the CPU time of its process, for others may use the machine, two threads by
the clock. A contender runs in a fresh process each round, rounds alternate between contenders, and the best time of
all rounds counts. Each timed output is hashed (indices, indptr, values) and all must be equal.

The texts are those of ``$SHARDSTREAM_DATA/text``, or of ``../shared/data/text`` beside the repository.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("SHARDSTREAM_DATA", ROOT / "../shared/data")) / "text"
MAX_NBYTES = 3_000_000  # of one corpus: enough for a steady figure, and scikit-learn takes about a second for it
BUDGETS = {"reuters": 20, "reviews": 20}  # times scikit-learn; 10 elsewhere
SETTINGS = {
    "words": {"ngrams": (1, 1)},
    "words and pairs": {"ngrams": (1, 2)},
    "pairs, signed, 2^18": {"ngrams": (1, 2), "signed": True, "dim": 2**18},
    "char_wb 2-4": {"ngrams": (2, 4), "analyzer": "char_wb"},
}
CONTENDERS = ("scikit-learn", "shardstream", "ragged", "2 threads")


def read_corpora() -> dict[str, list[str]]:
    """Return lists of texts by corpus, each cut to MAX_NBYTES."""
    sgml = "".join(path.read_text("latin-1") for path in sorted(DATA.glob("reuters/*.sgm")))
    corpora = {"reuters": re.findall(r"<BODY>(.*?)</BODY>", sgml, re.DOTALL)}
    corpora["reviews"] = texts_of_zip(DATA / "nltk_movie_reviews.zip", ".txt")
    for path in sorted(DATA.glob("multilingual/*.txt")):
        corpora[path.stem.removesuffix("_devtest")] = path.read_text("utf-8").splitlines()
    corpora["genesis"] = texts_of_zip(DATA / "multilingual/nltk_genesis.zip", ".txt")
    return {name: cut(texts) for name, texts in corpora.items()}


def texts_of_zip(path: Path, suffix: str) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(suffix)]
        return [archive.read(name).decode("utf-8", "replace") for name in names]


def cut(texts: list[str]) -> list[str]:
    kept, nbytes = [], 0
    for text in texts:
        nbytes += len(text.encode())
        if nbytes > MAX_NBYTES:
            break
        kept.append(text)
    return kept


def digest(indices, indptr, values) -> str:
    """Return a hash of a batch of rows that does not depend on dtypes."""
    state = hashlib.sha256()
    for array, dtype in ((indices, np.int64), (indptr, np.int64), (values, np.float64)):
        state.update(np.ascontiguousarray(array, dtype).tobytes())
    return state.hexdigest()


def make_call(contender: str, texts: list[str], settings: dict):
    """Return a function without arguments that hashes the texts; what it returns goes to digest()."""
    settings = {"dim": 2**20, "signed": False, "analyzer": "word"} | settings
    if contender == "scikit-learn":
        from sklearn.feature_extraction.text import HashingVectorizer

        vectorizer = HashingVectorizer(
            n_features=settings["dim"], ngram_range=settings["ngrams"], alternate_sign=settings["signed"],
            analyzer=settings["analyzer"], norm=None,
        )  # fmt: skip

        def by_sklearn():
            rows = vectorizer.transform(texts)
            return rows.indices, rows.indptr, rows.data

        return by_sklearn
    from shardstream.text import FeatureHasher

    hasher = FeatureHasher(**settings)
    if contender == "ragged":
        pieces = [text.encode() for text in texts]
        batch = np.frombuffer(b"".join(pieces), np.uint8), np.cumsum([0, *map(len, pieces)])
        return lambda: hasher.transform(batch)
    return lambda: hasher.transform(texts, num_threads=2 if contender == "2 threads" else 1)


def run_child(contender: str) -> None:
    """Print as JSON, for each corpus and setting, the best seconds of this process and the digests of its runs."""
    results = {}
    repeats = 1 if contender == "scikit-learn" else 5  # it takes some 20 s for all
    clock = time.perf_counter if contender == "2 threads" else time.process_time
    for corpus, texts in read_corpora().items():
        for name, settings in SETTINGS.items():
            call = make_call(contender, texts, settings)
            seconds, digests = [], set()
            for _ in range(repeats):
                begin = clock()
                output = call()
                seconds.append(clock() - begin)
                digests.add(digest(*output))
            results[f"{corpus}/{name}"] = [min(seconds), sorted(digests)]
    print(json.dumps(results))


def run_fresh(contender: str) -> dict:
    done = subprocess.run([sys.executable, __file__, "--child", contender], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def machine() -> str:
    from importlib.metadata import version

    import shardstream.text.hashing as hashing

    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return (
        f"{cpu[1] if cpu else platform.machine()}, {os.cpu_count()} cores; Python {platform.python_version()}, numpy "
        f"{version('numpy')}, scikit-learn {version('scikit-learn')}, tables of Unicode {hashing.UNICODE_VERSION}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="fresh processes for each contender (default 3)")
    parser.add_argument("--child", choices=CONTENDERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not DATA.is_dir():
        print(f"There is no text: set SHARDSTREAM_DATA, or have {DATA}.", file=sys.stderr)
        return 2
    if arguments.child:
        run_child(arguments.child)
        return 0
    print(machine())
    rounds = [{contender: run_fresh(contender) for contender in CONTENDERS} for _ in range(arguments.rounds)]
    return report(rounds)


def report(rounds: list[dict]) -> int:
    """Print the table; return 1 if outputs differ, else 0."""
    nbytes = {name: sum(len(text.encode()) for text in texts) for name, texts in read_corpora().items()}
    print(
        f"{'corpus':12}{'MB':>6}  {'n-grams':22}"
        + "".join(f"{name:>14}" for name in CONTENDERS)
        + f"{'ratio':>8}{'budget':>8}  output"
    )
    wrong = 0
    for key in rounds[0]["shardstream"]:
        corpus, name = key.split("/")
        speed = {c: nbytes[corpus] / min(one[c][key][0] for one in rounds) / 1e6 for c in CONTENDERS}
        equal = len({d for one in rounds for c in CONTENDERS for d in one[c][key][1]}) == 1
        wrong += not equal
        ratio = speed["shardstream"] / speed["scikit-learn"]
        print(f"{corpus:12}{nbytes[corpus] / 1e6:6.2f}  {name:22}" + "".join(f"{speed[c]:14.1f}" for c in CONTENDERS)
              + f"{ratio:7.1f}x{BUDGETS.get(corpus, 10):7}x  {'equal' if equal else 'DIFFERENT'}")  # fmt: skip
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())

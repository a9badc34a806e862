"""Print how fast jobs are packed, beside the same jobs written with the usual tools, in one run.

    .venv/bin/python benchmarks/packing.py                  # both jobs, three rounds; some minutes
    .venv/bin/python benchmarks/packing.py hash --rounds 1
    .venv/bin/python benchmarks/packing.py tokens           # needs litdata: pip install 'shardstream[bench]'

hash    the bodies of Reuters-21578, JSON Lines in one file, to sets of hashed words and word pairs (2^20) with a label:
        scikit-learn's HashingVectorizer and webdataset's ShardWriter in a plain script, the same in two processes
        (each half of the lines), and ``ss.pack`` with two workers.
tokens  the same bodies, one text file each 64 of them, to cl100k token ids in shards of 64 MB: litdata.optimize with tiktoken
        and two workers, and ``ss.pack`` with two workers.

A contender runs in a fresh process each round; rounds alternate, and one before them that is not counted fills caches
of files and byte code (which is allowed to be kept, as an installed package's is). Timed is the job, from the call to
its end, without the interpreter's start and imports (which all have paid before, litdata's own workers excepted); ours
ends when all it has written would survive a loss of power, theirs when it is written. Ratios are those of medians, with
the best of all rounds beside; CPU seconds are those of all processes of a job, the least of all rounds: on a machine
that others use they say more. What came out of the uncounted round is read back: the number of samples and of indices,
or of tokens, must be equal.

The budget of 20x is against the first: the plain script that WebDataset's documentation shows, one process. Who has two
cores may run it in two by hand, each on its half of the lines and with shards of its own names; that is the second
line, and its ratio stands there, too. The texts are those of ``$SHARDSTREAM_DATA/text/reuters``, or of
``../shared/data``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("SHARDSTREAM_DATA", ROOT / "../shared/data"))
DIM = 2**20
BATCH = 1000
DOCUMENTS_A_FILE = 64
JOBS = {
    "hash": ("scikit-learn + webdataset", "scikit-learn + webdataset, 2 processes", "shardstream"),
    "tokens": ("litdata + tiktoken", "shardstream"),
}
BUDGETS = {"hash": 20, "tokens": 10}


def write_input(folder: Path) -> int:
    """Write the bodies as JSON Lines and as text files; returns their bytes of UTF-8."""
    sgml = "".join(path.read_text("latin-1") for path in sorted((DATA / "text/reuters").glob("*.sgm")))
    stories = re.findall(r"<REUTERS (.*?)>.*?<BODY>(.*?)</BODY>", sgml, re.DOTALL)
    with open(folder / "reuters.jsonl", "w", encoding="utf-8") as file:
        for number, (attributes, body) in enumerate(stories):
            label = int('TOPICS="YES"' in attributes)
            file.write(json.dumps({"id": str(number), "text": body, "label": label}, ensure_ascii=False) + "\n")
    (folder / "texts").mkdir()
    for first in range(0, len(stories), DOCUMENTS_A_FILE):
        text = "\n\n".join(body for _, body in stories[first : first + DOCUMENTS_A_FILE])
        (folder / "texts" / f"{first:06d}.txt").write_text(text, "utf-8")
    return sum(len(body.encode()) for _, body in stories)


# -- hashed sets ------------------------------------------------------------------------------------


def plain_hash(folder: Path, part: int = 0, parts: int = 1) -> None:
    import webdataset
    from sklearn.feature_extraction.text import HashingVectorizer

    vectorizer = HashingVectorizer(n_features=DIM, ngram_range=(1, 2), norm=None, alternate_sign=False, binary=True)
    lines = open(folder / "reuters.jsonl", encoding="utf-8").readlines()  # noqa: SIM115  (a script would)
    lines = lines[len(lines) * part // parts : len(lines) * (part + 1) // parts]
    pattern = str(folder / f"plain/{part}-%06d.tar")
    with webdataset.ShardWriter(pattern, maxcount=10**6, maxsize=64e6, verbose=0) as sink:
        for begin in range(0, len(lines), BATCH):
            records = [json.loads(line) for line in lines[begin : begin + BATCH]]
            rows = vectorizer.transform([record["text"] for record in records])
            rows.sort_indices()
            for row, record in enumerate(records):
                indices = rows.indices[rows.indptr[row] : rows.indptr[row + 1]]
                sink.write({"__key__": record["id"], "x.npy": indices, "cls": record["label"]})


def plain_hash_in_two(folder: Path) -> None:
    processes = [get_context("fork").Process(target=plain_hash, args=(folder, part, 2)) for part in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()


def our_hash(folder: Path) -> None:
    from shardstream.packing import pack

    fields = {"x": None, "y": {"from": "label", "kind": "dense", "dtype": "int64"}, "key": None}
    pack({"source": {"kind": "jsonl", "paths": str(folder / "reuters.jsonl"), "key": "id"},
          "steps": [{"hash": {"dim": DIM, "ngrams": [1, 2]}}], "fields": fields, "output": {"url": str(folder / "ours")},
          "engine": {"kind": "local", "workers": 2}})  # fmt: skip


def count_plain_hash(folder: Path) -> tuple[int, int]:
    import webdataset

    shards = [str(path) for path in sorted((folder / "plain").glob("*.tar"))]
    sizes = [len(sample["x.npy"]) for sample in webdataset.WebDataset(shards, shardshuffle=False).decode()]
    return len(sizes), sum(sizes)


def count_our_hash(folder: Path) -> tuple[int, int]:
    import shardstream as ss

    sizes = [len(batch["x"].values) for batch in ss.ShardStream(str(folder / "ours"), batch_size=1000, sparse="jagged")]
    return ss.Dataset(str(folder / "ours")).num_samples, sum(sizes)


# -- tokens -----------------------------------------------------------------------------------------


def tiktokens(path: str):
    """Yield a file's tokens, as litdata's documentation shows for texts."""
    import tiktoken
    import torch

    if not hasattr(tiktokens, "encoding"):
        from tiktoken.load import load_tiktoken_bpe

        pattern = r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"""
        ranks = load_tiktoken_bpe(str(DATA / "vocab/tiktoken/cl100k_base.tiktoken"))
        tiktokens.encoding = tiktoken.Encoding("cl100k", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    text = Path(path).read_text("utf-8")
    yield torch.tensor(tiktokens.encoding.encode_ordinary(text), dtype=torch.int32)


def litdata_tokens(folder: Path) -> None:
    import litdata

    inputs = [str(path) for path in sorted((folder / "texts").iterdir())]
    litdata.optimize(fn=tiktokens, inputs=inputs, output_dir=str(folder / "plain"), num_workers=2, chunk_bytes="64MB",
                     item_loader=litdata.TokensLoader(), reorder_files=False, verbose=False)  # fmt: skip


def our_tokens(folder: Path) -> None:
    from shardstream.packing import pack

    vocabulary = str(DATA / "vocab/tiktoken/cl100k_base.tiktoken")
    pack({"source": {"kind": "text", "paths": str(folder / "texts")}, "steps": [{"tokenize": {"tokenizer": vocabulary}}],
          "fields": {"ids": None}, "output": {"url": str(folder / "ours")}, "engine": {"kind": "local", "workers": 2}})  # fmt: skip


def count_litdata_tokens(folder: Path) -> tuple[int, int]:
    index = json.loads((folder / "plain/index.json").read_text())
    return len(list((folder / "texts").iterdir())), sum(chunk["dim"] for chunk in index["chunks"])


def count_our_tokens(folder: Path) -> tuple[int, int]:
    import shardstream as ss

    count = sum(len(batch["ids"].values) for batch in ss.ShardStream(str(folder / "ours"), batch_size=64))
    return ss.Dataset(str(folder / "ours")).num_samples, count


RUNS: dict[str, tuple[Callable, Callable]] = {
    "scikit-learn + webdataset": (plain_hash, count_plain_hash),
    "scikit-learn + webdataset, 2 processes": (plain_hash_in_two, count_plain_hash),
    "litdata + tiktoken": (litdata_tokens, count_litdata_tokens),
    "hash shardstream": (our_hash, count_our_hash),
    "tokens shardstream": (our_tokens, count_our_tokens),
}
IMPORTS = {
    "scikit-learn + webdataset": ("sklearn.feature_extraction.text", "webdataset"),
    "scikit-learn + webdataset, 2 processes": ("sklearn.feature_extraction.text", "webdataset"),
    "litdata + tiktoken": ("litdata", "tiktoken"),
    "hash shardstream": ("shardstream.packing", "shardstream.text"),
    "tokens shardstream": ("shardstream.packing", "shardstream.tokenizers"),
}


def cpu_s() -> float:
    """Return the CPU seconds of this process and of those it has waited for."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def run_once(name: str, folder: Path, count: bool) -> None:
    """Run one contender in this process and print what it did as JSON; ``count`` what came out, too."""
    for module in IMPORTS[name]:
        __import__(module)
    for output in ("plain", "ours"):
        shutil.rmtree(folder / output, ignore_errors=True)
    (folder / "plain").mkdir()
    begin, cpu_begin = time.perf_counter(), cpu_s()
    RUNS[name][0](folder)
    seconds, cpu = time.perf_counter() - begin, cpu_s() - cpu_begin
    nbytes = sum(path.stat().st_size for output in ("plain", "ours") for path in (folder / output).rglob("*") if path.is_file())
    counts = RUNS[name][1](folder) if count else None
    print("RESULT", json.dumps({"seconds": seconds, "cpu": cpu, "counts": counts, "nbytes": nbytes}))


def measured(name: str, folder: Path, count: bool) -> dict:
    """Return what a contender's fresh process printed."""
    command = [sys.executable, __file__, "--one", name, "--folder", str(folder), *(["--count"] if count else [])]
    environment = {**os.environ, "TMPDIR": str(folder), "PYTHONPYCACHEPREFIX": str(folder / "bytecode")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        raise SystemExit(f"{name} failed:\n{done.stderr[-3000:]}")
    return json.loads(next(line for line in done.stdout.splitlines() if line.startswith("RESULT"))[6:])


def compare(job: str, folder: Path, nbytes_in: int, rounds: int) -> None:
    names = [f"{job} {name}" if name == "shardstream" else name for name in JOBS[job]]
    results: dict[str, list[dict]] = {name: [] for name in names}
    counts: dict[str, list[int]] = {}
    for number in range(rounds + 1):
        for name in names:
            result = measured(name, folder, count=number == 0)
            if number == 0:
                counts[name] = result["counts"]
            else:
                results[name].append(result)
    if len({tuple(count) for count in counts.values()}) > 1:
        raise SystemExit(f"{job}: the contenders did not pack the same: {counts}")
    best = {name: min(run["seconds"] for run in runs) for name, runs in results.items()}
    middle = {name: statistics.median(run["seconds"] for run in runs) for name, runs in results.items()}
    cpu = {name: min(run["cpu"] for run in runs) for name, runs in results.items()}
    print(f"\n{job}: {counts[names[0]][0]:,} samples, {counts[names[0]][1]:,} {'indices' if job == 'hash' else 'tokens'} of "
          f"{nbytes_in / 1e6:.1f} MB of text; median of {rounds}")  # fmt: skip
    for name in names:
        all_of_them = ", ".join(f"{run['seconds']:.2f}" for run in results[name])
        print(f"  {name.removeprefix(job + ' '):40} {middle[name]:7.2f} s {nbytes_in / 1e6 / middle[name]:7.1f} MB/s in {cpu[name]:6.2f} s of CPU "
              f"{results[name][0]['nbytes'] / 1e6:8.2f} MB out {middle[name] / middle[names[-1]]:6.1f}x  ({all_of_them})")  # fmt: skip
    ratio, least = middle[names[0]] / middle[names[-1]], best[names[0]] / best[names[-1]]
    print(f"  {'met' if ratio >= BUDGETS[job] else 'MISSED'}: {ratio:.1f}x the first ({least:.1f}x best "
          f"to best), budget {BUDGETS[job]}x")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("jobs", nargs="*", metavar="JOB", help='hash or tokens; both by default')
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--count", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        run_once(arguments.one, arguments.folder, arguments.count)
        return
    from importlib.metadata import PackageNotFoundError, version

    for package in ("shardstream", "scikit-learn", "webdataset", "litdata", "tiktoken", "numpy"):
        try:
            print(package, version(package), end="; ")
        except PackageNotFoundError:
            print(package, "not installed", end="; ")
    print(f"Python {platform.python_version()}; {os.cpu_count()} cores; load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as name:
        nbytes_in = write_input(Path(name))
        for job in arguments.jobs or JOBS:
            compare(job, Path(name), nbytes_in, arguments.rounds)


if __name__ == "__main__":
    main()

"""Bits per index and speed of the sparse block, beside its bound and its rivals, on uniform and real sets.

    python benchmarks/sparse_codec.py            # all sets, to standard output; three minutes
    python benchmarks/sparse_codec.py --quick    # smaller uniform sets, no texts
    python benchmarks/sparse_codec.py --report   # into docs/benchmarks.md and docs/sparse_codec.png; needs all sets and rivals

The bound is log2 C(dim, k) summed over the rows plus the entropy of the row lengths: what a
coder that knows only k and dim can't beat. Ours is blocks of 8,192 rows, as shards have them. A rival file holds
the whole set, with row lengths, in its densest usual setting; the bare codec is cut into the same blocks:

========  ==========================================================================================
npz       ``scipy.sparse.save_npz`` (deflate; its data array of ones included, since it can't be left out)
leb128    gaps and lengths as LEB128 bytes, zstd level 19, in blocks of 8,192 rows
parquet   one list column of uint32, zstd level 19, pyarrow's own encodings
roaring   a serialized Roaring bitmap a row
========  ==========================================================================================

Times are CPU seconds of one thread, best of several turns. Real sets are looked for in ``$SHARDSTREAM_DATA`` or
``../shared/data`` and left out where absent; so are rivals that are not installed.
"""

from __future__ import annotations

import argparse
import html
import io
import os
import platform
import re
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import scipy.sparse
import zstandard
from scipy.special import gammaln

from shardstream._native import sparse as native
from shardstream.codecs import sparse

try:
    import pyarrow
    import pyarrow.parquet
except ImportError:
    pyarrow = None
try:
    import pyroaring
except ImportError:
    pyroaring = None

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("SHARDSTREAM_DATA", ROOT / "../shared/data"))
PAGE, PICTURE = ROOT / "docs/benchmarks.md", ROOT / "docs/sparse_codec.png"
BEGIN, END = "<!-- sparse: begin -->", "<!-- sparse: end -->"
BLOCK_ROWS = 8192
HASH_DIM = 2**20


@dataclass
class Sets:
    """Rows as in CSR; ``counts`` are their values, if any."""

    name: str
    indices: np.ndarray
    indptr: np.ndarray
    dim: int
    counts: np.ndarray | None = None

    @property
    def log2_binomials(self) -> float:
        """Return log2 C(dim, k), summed over the rows."""
        k = np.diff(self.indptr)
        return float((gammaln(self.dim + 1) - gammaln(k + 1) - gammaln(self.dim - k + 1)).sum() / np.log(2))

    @property
    def lengths_entropy(self) -> float:
        """Return the entropy of the row lengths in bits, summed over the rows."""
        times = np.unique(np.diff(self.indptr), return_counts=True)[1]
        return float(-(times * np.log2(times / times.sum())).sum())


def uniform(dim: int, k: int, num_rows: int, *, varying: bool) -> Sets:
    """Return sets drawn uniformly, of k elements or of k/2 to 3k/2."""
    rng = np.random.default_rng(k)
    lengths = rng.integers(k // 2, k + k // 2 + 1, num_rows) if varying else np.full(num_rows, k)
    rows = [np.sort(rng.choice(dim, size, replace=False, shuffle=False)) for size in lengths]
    name = f"uniform {dim:,}, k {f'{k // 2} to {k + k // 2}' if varying else k}"
    return Sets(name, np.concatenate(rows).astype(np.uint32), np.append(0, np.cumsum(lengths)), dim)


def libsvm(name: str, path: Path, dim: int) -> Sets:
    """Return the rows of a LIBSVM file of binary features."""
    rows = [[int(pair.split(b":")[0]) for pair in line.split()[1:]] for line in path.read_bytes().splitlines()]
    indptr = np.append(0, np.cumsum([len(row) for row in rows]))
    return Sets(name, np.array([x for row in rows for x in sorted(row)], np.uint32), indptr, dim)


def reuters() -> list[str]:
    """Return the bodies of the news articles."""
    bodies = (
        re.findall(r"<BODY>(.*?)</BODY>", path.read_text("latin-1"), re.DOTALL)
        for path in sorted((DATA / "text/reuters").glob("*.sgm"))
    )
    return [html.unescape(body) for found in bodies for body in found]


def movie_reviews() -> list[str]:
    """Return the film reviews."""
    with zipfile.ZipFile(DATA / "text/nltk_movie_reviews.zip") as archive:
        return [
            archive.read(name).decode("latin-1")
            for name in sorted(archive.namelist())
            if re.search(r"/(pos|neg)/.*\.txt$", name)
        ]


def hashed(name: str, texts: list[str], ngrams: tuple[int, int]) -> Sets:
    """Return scikit-learn's hashed n-gram counts of the texts."""
    from sklearn.feature_extraction.text import HashingVectorizer

    matrix = HashingVectorizer(n_features=HASH_DIM, ngram_range=ngrams, alternate_sign=False, norm=None).transform(
        texts
    )
    matrix.sort_indices()
    return Sets(
        name, matrix.indices.astype(np.uint32), matrix.indptr.astype(np.int64), HASH_DIM, matrix.data.astype(np.int32)
    )


def all_sets(quick: bool) -> Iterator[Sets]:
    """Yield the sets of the benchmark, real ones where their files are."""
    num_rows = 2048 if quick else BLOCK_ROWS
    for dim, k in [(1000, 10), (1024, 20), (1000, 100), (100_000, 100), (1_000_000, 100), (10_000_000, 10)]:
        yield uniform(dim, k, num_rows, varying=False)
    yield uniform(1024, 20, num_rows, varying=True)
    if (DATA / "sparse").is_dir():
        yield libsvm("agaricus", DATA / "sparse/agaricus.txt.train", 127)
        yield libsvm("a9a", DATA / "sparse/a9a", 124)
    if (DATA / "text").is_dir() and not quick:
        news, reviews = reuters(), movie_reviews()
        yield hashed("Reuters words", news, (1, 1))
        yield hashed("Reuters 1-2-grams", news, (1, 2))
        yield hashed("reviews words", reviews, (1, 1))
        yield hashed("reviews 1-2-grams", reviews, (1, 2))


def blocks(sets: Sets) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield indices and indptr of each block's rows."""
    for begin in range(0, len(sets.indptr) - 1, BLOCK_ROWS):
        bounds = sets.indptr[begin : begin + BLOCK_ROWS + 1]
        yield sets.indices[bounds[0] : bounds[-1]], bounds - bounds[0]


def leb128(numbers: np.ndarray) -> bytes:
    """Return the numbers as LEB128 bytes."""
    num_groups = np.searchsorted([1 << 7, 1 << 14, 1 << 21, 1 << 28], numbers, side="right") + 1
    ends = np.cumsum(num_groups)
    out = np.zeros(ends[-1], np.uint8)
    for group in range(5):
        has = num_groups > group
        last = num_groups[has] == group + 1
        out[(ends - num_groups)[has] + group] = (numbers[has] >> (7 * group) & 0x7F) | np.where(last, 0, 0x80)
    return out.tobytes()


def leb128_nbytes(sets: Sets) -> int:
    compressor, nbytes = zstandard.ZstdCompressor(level=19), 0
    for indices, indptr in blocks(sets):
        gaps = np.diff(indices.astype(np.int64), prepend=-1) - 1
        first = indptr[:-1][np.diff(indptr) > 0]
        gaps[first] = indices[first]
        nbytes += len(compressor.compress(leb128(np.diff(indptr)) + leb128(gaps)))
    return nbytes


def npz_nbytes(sets: Sets) -> int:
    out = io.BytesIO()
    ones = np.ones(len(sets.indices), np.int8)
    scipy.sparse.save_npz(
        out, scipy.sparse.csr_matrix((ones, sets.indices, sets.indptr), shape=(len(sets.indptr) - 1, sets.dim))
    )
    return out.tell()


def parquet_nbytes(sets: Sets) -> int:
    out = io.BytesIO()
    lists = pyarrow.ListArray.from_arrays(pyarrow.array(sets.indptr.astype(np.int32)), pyarrow.array(sets.indices))
    pyarrow.parquet.write_table(pyarrow.table({"x": lists}), out, compression="zstd", compression_level=19)
    return out.tell()


def roaring_nbytes(sets: Sets) -> int:
    bounds = zip(sets.indptr[:-1], sets.indptr[1:])
    return sum(len(pyroaring.BitMap(sets.indices[begin:end]).serialize()) for begin, end in bounds)


def rivals() -> dict[str, Callable[[Sets], int]]:
    """Return the rivals that are installed, each a function from sets to bytes."""
    found = {"npz": npz_nbytes, "leb128": leb128_nbytes}
    if pyarrow is not None:
        found["parquet"] = parquet_nbytes
    if pyroaring is not None:
        found["roaring"] = roaring_nbytes
    return found


def best_seconds(action: Callable[[], object], turns: int) -> float:
    """Return the shortest CPU time that ``action`` took."""
    seconds = []
    for _ in range(turns):
        begin = time.thread_time()
        action()
        seconds.append(time.thread_time() - begin)
    return min(seconds)


def form(block: bytes) -> str:
    """Return the form of a block in words."""
    header = native.parse(block)
    return f"{native.VIEWS[header.view]} {native.CODERS[header.coder]}{' zstd' if header.index_zstd else ''}"


def measure(sets: Sets) -> dict:
    """Return sizes in bits per index and speeds in million indices per second."""
    parts = list(blocks(sets))
    encoded = [sparse.encode(*part, sets.dim) for part in parts]
    num = len(sets.indices)
    sizes = {"ours": sum(map(len, encoded))} | {name: nbytes(sets) for name, nbytes in rivals().items()}
    decode = best_seconds(
        lambda: [sparse.decode(block, sets.dim, len(part[1]) - 1) for block, part in zip(encoded, parts)], 9
    )
    encode = best_seconds(lambda: [sparse.encode(*part, sets.dim) for part in parts], 3)
    result = {"sets": sets, "form": form(encoded[0]), "decode": num / decode / 1e6, "encode": num / encode / 1e6}
    result |= {name: 8 * nbytes / num for name, nbytes in sizes.items()}
    if sets.counts is not None:
        with_counts = sum(
            len(sparse.encode(*part, sets.dim, sets.counts[begin : begin + len(part[0])]))
            for part, begin in zip(parts, sets.indptr[::BLOCK_ROWS])
        )
        result["counts"] = 8 * (with_counts - sizes["ours"]) / num
    return result


def table(results: list[dict]) -> Iterator[str]:
    """Yield the lines of a Markdown table."""
    names = list(rivals())
    head = ["sets", "k", "log2 C", "bound", "**ours**", *(LABELS[name] for name in names), "ours / log2 C", "ours / bound",
            "ours / best rival", "form", "encode M/s", "decode M/s", "counts"]  # fmt: skip
    yield " | ".join(["", *head, ""]).strip()
    yield "|---" * len(head) + "|"
    for r in results:
        sets, num = r["sets"], len(r["sets"].indices)
        binomials, bound = sets.log2_binomials / num, bound_of(r)
        best = min(r[name] for name in names)
        cells = [sets.name, f"{num / (len(sets.indptr) - 1):.0f}", f"{binomials:.2f}", f"{bound:.2f}", f"**{r['ours']:.2f}**",
                 *(f"{r[name]:.2f}" for name in names), f"{r['ours'] / binomials:.3f}", f"{r['ours'] / bound:.3f}",
                 f"{r['ours'] / best:.3f}", r["form"], f"{r['encode']:.1f}", f"{r['decode']:.0f}",
                 f"{r['counts']:.2f}" if "counts" in r else ""]  # fmt: skip
        yield " | ".join(["", *cells, ""]).strip()


def bound_of(result: dict) -> float:
    """Return log2 C(dim, k) and the entropy of the row lengths in bits per index."""
    sets = result["sets"]
    return (sets.log2_binomials + sets.lengths_entropy) / len(sets.indices)


LABELS = {"ours": "shardstream", "npz": "scipy npz", "leb128": "LEB128 + zstd", "parquet": "Parquet + zstd",
          "roaring": "Roaring"}  # fmt: skip


def machine() -> str:
    """Return what was measured with, and on."""
    packages = ["numpy", "scipy", "zstandard", *(["pyarrow"] if pyarrow else []), *(["pyroaring"] if pyroaring else [])]
    model = re.search(r"model name\s*: (.*)",
                      Path("/proc/cpuinfo").read_text()) if Path("/proc/cpuinfo").exists() else None  # fmt: skip
    return (f"Python {platform.python_version()}, {', '.join(f'{name} {version(name)}' for name in packages)}; "
            f"{model[1] if model else platform.machine()}, one thread, load {os.getloadavg()[0]:.1f}")  # fmt: skip


def plot(results: list[dict], path: Path) -> None:
    """Write a PNG of bits per index, ours beside the bound and the rivals."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = ["ours", *rivals()]
    places = np.arange(len(results))
    figure, axes = plt.subplots(figsize=(1.1 * len(results) + 2, 5), layout="constrained")
    for i, name in enumerate(names):
        left = places + (i - len(names) / 2) * 0.8 / len(names)
        axes.bar(left, [r[name] for r in results], 0.8 / len(names), align="edge", label=LABELS[name],
                 color=COLORS[name])  # fmt: skip
        for x, r in zip(left, results, strict=True):
            if r[name] > TOP:
                axes.text(x + 0.4 / len(names), TOP, f"{r[name]:.0f}", ha="center", va="bottom", fontsize=8)
    for place, r in zip(places, results, strict=True):
        axes.hlines(bound_of(r), place - 0.4, place + 0.4, colors="black",
                    label="log2 C(dim, k) + lengths" if place == 0 else None)  # fmt: skip
    axes.set_xticks(places, [r["sets"].name for r in results], rotation=30, ha="right")
    axes.set_ylabel("bits per index")
    axes.set_ylim(0, TOP)
    axes.margins(x=0.01)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(ncols=len(names) + 1, loc="outside upper left", frameon=False)
    figure.savefig(path, dpi=110)


TOP = 32  # bits, of the plot: what is above is cut off, with its number
COLORS = {"ours": "#1f4e79", "npz": "#c9c9c9", "leb128": "#e3a857", "parquet": "#8fb08c", "roaring": "#b08caf"}


def write_report(results: list[dict]) -> None:
    """Put the table between the marks of docs/benchmarks.md, and the plot beside it."""
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    note = f"![Bits per index of each codec]({PICTURE.name})\n\nMeasured with {machine()}."
    PAGE.write_text("\n\n".join([before + BEGIN, "\n".join(table(results)), note, END + after]), "utf-8")
    plot(results, PICTURE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smaller uniform sets, no texts")
    parser.add_argument("--plot", metavar="PNG", help="write the sizes as a picture")
    parser.add_argument("--report", action="store_true", help="write docs/benchmarks.md and docs/sparse_codec.png")
    arguments = parser.parse_args()
    if arguments.report and (arguments.quick or set(rivals()) | {"ours"} != set(LABELS) or not (DATA / "text").is_dir()):
        parser.error(f"--report needs all sets (in {DATA}), pyarrow and pyroaring: pip install 'shardstream[bench]'")
    results = [measure(sets) for sets in all_sets(arguments.quick)]
    if arguments.report:
        write_report(results)
    else:
        print("\n".join([*table(results), "", machine()]))
    if arguments.plot:
        plot(results, Path(arguments.plot))


if __name__ == "__main__":
    main()

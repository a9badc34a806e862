"""The bytes that sparse blocks may take (docs/ARCHITECTURE.md, performance notes); exact, so a test can assert them."""

import html
import os
import re
from math import comb, log2
from pathlib import Path

import numpy as np
import pytest

from shardstream.codecs import sparse
from shardstream.text import FeatureHasher

REUTERS = (
    Path(os.environ.get("SHARDSTREAM_DATA", Path(__file__).resolve().parents[1] / "../shared/data")) / "text/reuters"
)


def log2_binomials(dim, indptr):
    """Return log2 C(dim, k), summed over the rows."""
    lengths, times = np.unique(np.diff(indptr), return_counts=True)
    return sum(int(t) * log2(comb(dim, int(k))) for k, t in zip(lengths, times, strict=True))


@pytest.mark.parametrize("spread", [0, 0.5])
@pytest.mark.parametrize(
    "dim, k", [(1000, 10), (1000, 100), (1000, 420), (10_000, 10), (100_000, 100), (1_000_000, 30), (2**32, 10)]
)
def test_uniform_sets_are_within_5_percent_of_the_bound(dim, k, spread):
    """Uniform sets take at most 1.05 x (log2 C(dim, k) + the entropy of the row lengths), the header included."""
    rng = np.random.default_rng(k)
    lengths = rng.integers(k - int(spread * k), k + int(spread * k) + 1, 1500)
    rows = [np.sort(rng.choice(dim, size, replace=False, shuffle=False)) for size in lengths]
    indptr = np.append(0, np.cumsum([len(row) for row in rows]))
    times = np.unique(np.diff(indptr), return_counts=True)[1]
    bound = log2_binomials(dim, indptr) - float((times * np.log2(times / times.sum())).sum())
    assert 8 * len(sparse.encode(np.concatenate(rows), indptr, dim)) <= 1.05 * bound


@pytest.mark.skipif(not REUTERS.is_dir(), reason="no real text: neither $SHARDSTREAM_DATA nor ../shared/data is there")
@pytest.mark.parametrize("ngrams, share", [((1, 1), 0.60), ((1, 2), 0.88)])
def test_hashed_news_is_far_below_log2_binomial(ngrams, share):
    """In one block of news, hashed words take less than 60% of log2 C(dim, k), word 1-2-grams less than 88%."""
    files = sorted(REUTERS.glob("*.sgm"))[:5]
    texts = [
        html.unescape(body)
        for path in files
        for body in re.findall(r"<BODY>(.*?)</BODY>", path.read_text("latin-1"), re.DOTALL)
    ][:4096]
    indices, indptr, _ = FeatureHasher(2**20, ngrams=ngrams).transform(texts)
    assert 8 * len(sparse.encode(indices, indptr, 2**20)) < share * log2_binomials(2**20, indptr)


def test_counts_that_are_mostly_1_take_little():
    """Counts of which 3 in 4 are 1 take at most 12% more than their entropy."""
    rng = np.random.default_rng(0)
    counts = rng.geometric(0.75, 50_000).astype(np.int32)
    times = np.unique(counts, return_counts=True)[1]
    indices, indptr = np.tile(np.arange(50, dtype=np.uint32), 1000), np.arange(0, 50_001, 50)
    extra = len(sparse.encode(indices, indptr, 50, counts)) - len(sparse.encode(indices, indptr, 50))
    assert 8 * extra <= 1.12 * -float((times * np.log2(times / times.sum())).sum())

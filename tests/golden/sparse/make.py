"""Writes ``blocks.json``: a block of every form, which readers of version 1 must read forever.

Run only to add forms, from the repository root: ``PYTHONPATH=. python tests/golden/sparse/make.py``.
What stands there must not change.
"""

import json
from pathlib import Path

import numpy as np

from shardstream._native import sparse as native
from shardstream.codecs import sparse
from tests.test_native_sparse import block, csr

ROWS = [[1, 5, 6], [], [0, 6], list(range(97)), [3, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 96], [6]]
DIM = 97


def main():
    cases = {
        f"{coder} {view}": {"dim": DIM, "rows": ROWS, "block": block(ROWS, DIM, coder, view).hex()}
        for coder in native.CODERS
        for view in native.VIEWS
    }
    rng = np.random.default_rng(0)
    wide = [sorted(set(rng.integers(0, 2**32, 20).tolist())) for _ in range(20)]
    cases["rice rows 2**32"] = {"dim": 2**32, "rows": wide, "block": block(wide, 2**32, "rice", "rows").hex()}
    num = len(csr(ROWS)[0])
    for coder, dtype, values in [
        ("plain", "float32", np.arange(num) / 8),
        ("planes", "float16", np.arange(num) / 8),
        ("palette", "float32", np.arange(num) % 3 - 1),
        ("palette", "int32", np.arange(num) % 7 - 3),
        ("counts", "int32", np.ones(num)),
        ("counts", "int32", np.arange(num) % 50 // 48 + 1),
        ("counts", "int32", np.arange(num) ** 3 % 70),
        ("counts", "int32", 2 ** (np.arange(num) % 13)),
        ("counts", "int32", np.arange(num) % 3 * 200 + 5),
        ("counts", "int32", np.array([3 + (i % 2 + i % 4 // 3 + i % 8 // 7 * 3) for i in range(num)])),
    ]:
        array = values.astype(dtype)
        cases[f"{coder} {dtype} {len(cases)}"] = {
            "dim": DIM,
            "rows": ROWS,
            "dtype": dtype,
            "values": array.tolist(),
            "block": block(ROWS, DIM, "rice", "rows", array, coder).hex(),
        }
    many = [[i for i in range(40) if (i * 7 + r % 4) % 5 < 2] for r in range(60)]
    indices, indptr = csr(many)
    floats = np.sqrt(indices % 7).astype(np.float32)
    cases["zstd"] = {
        "dim": 40,
        "rows": many,
        "dtype": "float32",
        "values": floats.tolist(),
        "block": sparse.encode(indices, indptr, 40, floats).hex(),
    }
    Path(__file__).with_name("blocks.json").write_text(json.dumps(cases, separators=(",", ":")))


if __name__ == "__main__":
    main()

"""The samples as each contender stores them: written once into ``build/bench``, read by every piece (``python -m benchmarks.read.store``).

A folder's name has a digest of what writes it, so other samples or another form are other folders. What each takes on disk is counted
here, and what it takes compressed, each library by the means that it has.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from benchmarks.read.contenders import MODULES, STORED_AS
from benchmarks.read.results import ROOT

DATA = ROOT / "build/bench/data"
BUCKET = os.environ.get("SHARDSTREAM_BENCH_BUCKET", "s3://shardstream-bench")
HERE = Path(__file__).parent


def folder_of(contender: str, workload: str, num_samples: int) -> Path:
    """Return where it stands, once it is complete: ``data`` with a folder of the samples, and ``about.json``."""
    contender = STORED_AS.get(contender, contender)
    written_by = [HERE / "workloads.py", *([HERE / f"contenders/{MODULES[contender]}.py"] if contender != "limit" else [])]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in written_by)).hexdigest()[:8]
    return DATA / f"{workload}-{num_samples}-{contender}-{digest}"


def about(contender: str, workload: str, num_samples: int) -> dict[str, Any] | None:
    """Return what is known of the folder; None if it is to be written. Of "limit" it is the sums of an epoch."""
    path = folder_of(contender, workload, num_samples) / "about.json"
    return json.loads(path.read_text()) if path.exists() else None


def write(contender: str, workload: str, num_samples: int) -> None:
    from benchmarks.read.workloads import WORKLOADS

    folder = folder_of(contender, workload, num_samples)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if contender == "limit":
        found = {"totals": expected(WORKLOADS[workload], num_samples)}
    else:
        module = importlib.import_module(f"benchmarks.read.contenders.{MODULES[contender]}")
        samples = list(WORKLOADS[workload].samples(num_samples))
        module.write(WORKLOADS[workload], samples, folder / "data", False)
        module.write(WORKLOADS[workload], samples, folder / "compressed", True)
        found = {"plain_nbytes": nbytes_of(folder / "data"), "compressed_nbytes": nbytes_of(folder / "compressed")}
        shutil.rmtree(folder / "compressed")
    unfinished = folder / "about.new"
    unfinished.write_text(json.dumps(found))
    unfinished.rename(folder / "about.json")


def expected(workload: Any, num_samples: int) -> list[int]:
    """Return the sums over what is written."""
    from benchmarks.read.workloads import BATCH

    totals, waiting = [0] * 4, []
    for sample in workload.samples(num_samples):
        waiting.append(sample)
        if len(waiting) == BATCH or sample["id"] == num_samples - 1:
            totals = [total + part for total, part in zip(totals, workload.digest(workload.collate(waiting)))]
            waiting = []
    return totals


def nbytes_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def upload(contender: str, workload: str, num_samples: int) -> str:
    """Return the URL of the folder's copy on S3, which is made if there is none yet."""
    import s3fs

    folder = folder_of(contender, workload, num_samples)
    url, s3 = f"{BUCKET}/{folder.name}", s3fs.S3FileSystem(endpoint_url=os.environ.get("AWS_ENDPOINT_URL"))
    if not s3.exists(f"{url}/about.json"):
        s3.makedirs(BUCKET, exist_ok=True)
        s3.put(f"{folder / 'data'}", f"{url}/data", recursive=True)
        s3.put(str(folder / "about.json"), f"{url}/about.json")
    return f"{url}/data"


def main() -> None:
    """Write for one contender all that is missing, ``WORKLOAD=NUM_SAMPLES`` each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.read.store", description=main.__doc__)
    parser.add_argument("contender", choices=MODULES)
    parser.add_argument("workloads", nargs="+")
    arguments = parser.parse_args()
    for workload, _, num_samples in (given.partition("=") for given in arguments.workloads):
        if about(arguments.contender, workload, int(num_samples)) is None:
            write(arguments.contender, workload, int(num_samples))


if __name__ == "__main__":
    sys.exit(main())

"""Results: what stands in ``build/bench/read.json``, piece by piece, and the machine that it was measured on."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LIBRARIES = ("shardstream", "torch", "numpy", "webdataset", "mosaicml-streaming", "litdata", "datasets", "pyarrow", "simplejpeg", "s3fs", "obstore")


class Results:
    """The pieces that have been measured on this machine with these versions; those of another machine or other versions are left out.

    Args:
        path: A JSON file, which is written anew with each piece that is kept.
    """

    def __init__(self, path: Path):
        self._path = path
        self.machine = machine()
        self.stored: dict[str, dict[str, dict[str, Any]]] = {}  #: bytes on disk by workload and contender
        self.pieces: dict[str, dict[str, Any]] = {}  #: what ``race.py`` found, by the piece's name
        if path.exists():
            old = json.loads(path.read_text())
            if old["machine"] == self.machine:
                self.stored, self.pieces = old["stored"], old["pieces"]

    def lacks(self, name: str, num_samples: int) -> bool:
        """Return whether a piece of as many samples is still to be measured."""
        return self.pieces.get(name, {}).get("num_samples") != num_samples

    def keep(self, name: str, found: dict[str, Any]) -> None:
        self.pieces[name] = {**found, "load": round(os.getloadavg()[0], 1), "date": time.strftime("%Y-%m-%d %H:%M"), "revision": revision()}
        self.save()

    def save(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self._path.with_suffix(".new")
        unfinished.write_text(json.dumps({"machine": self.machine, "stored": self.stored, "pieces": self.pieces}, indent=1))
        unfinished.replace(self._path)


def machine() -> dict[str, Any]:
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            pass
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {"cpu": cpu[1] if cpu else platform.machine(), "cores": os.cpu_count(), "python": platform.python_version(), "versions": versions}


def revision() -> str:
    """Return the commit that is measured, if this is a checkout."""
    done = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""

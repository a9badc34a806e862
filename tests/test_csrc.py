"""The C core's own tests are part of this suite, and the extension exports nothing else."""

import shutil
import subprocess
from pathlib import Path

import pytest

from shardstream import _native

CSRC = Path(__file__).resolve().parents[1] / "csrc"


@pytest.mark.timeout(900)
def test_c_tests_and_fuzz_corpus_pass_under_sanitizers():
    """`make -C csrc test` succeeds: sanitized C tests, with SIMD and without, and the short fuzz pass."""
    done = subprocess.run(["make", "-C", CSRC, "test"], capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-8000:]


def test_extension_exports_only_its_init_function():
    """The shared object defines no dynamic symbol but PyInit__core, so it can't clash with another library."""
    assert shutil.which("nm"), "nm (binutils) comes with every C compiler"
    listing = subprocess.run(
        ["nm", "-D", "--defined-only", _native._core.__file__], capture_output=True, text=True, check=True
    )
    assert [line.split()[-1] for line in listing.stdout.splitlines()] == ["PyInit__core"]

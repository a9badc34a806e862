"""What a user installs: the sdist builds, and its wheel holds the C core for every Python from 3.10 on."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ("setup.cfg", "setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "shardstream", "csrc")


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """The sdist of a clean copy of this tree, and the wheel built from that sdist alone."""
    tree = tmp_path_factory.mktemp("tree")
    unwanted = shutil.ignore_patterns("*.so", "*.o", "_core.c", "__pycache__", "*.egg-info", "build")
    for name in SHIPPED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tree / name, ignore=unwanted)
        else:
            shutil.copy(ROOT / name, tree / name)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", "dist", "."]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return tree / "dist"


@pytest.fixture(scope="module")
def wheel(dist):
    (path,) = dist.glob("*.whl")
    return path


def extension_of(wheel: Path) -> str:
    (name,) = [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".so")]
    return name


def test_wheel_holds_the_abi3_extension(wheel):
    """The wheel has the one extension, in the package, with the stable ABI's suffix."""
    assert extension_of(wheel) == "shardstream/_native/_core.abi3.so"


def test_wheel_tag_is_abi3_from_python_310_and_not_pure(wheel):
    """One wheel serves CPython 3.10 and newer, on this platform only."""
    assert "-cp310-abi3-" in wheel.name and not wheel.name.endswith("none-any.whl"), wheel.name


def test_wheel_holds_every_module(wheel):
    """No package is left out of ``packages``: each .py of the tree is in the wheel, and nothing of the tests."""
    names = {name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".py")}
    assert names == {path.relative_to(ROOT).as_posix() for path in (ROOT / "shardstream").rglob("*.py")}


def test_sdist_holds_the_c_sources(dist):
    """Every C source and header is in the sdist, so that it builds elsewhere."""
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as sdist:
        names = {name.split("/", 1)[-1] for name in sdist.getnames()}
    wanted = {path.relative_to(ROOT).as_posix() for kind in ("c", "h") for path in (ROOT / "csrc").rglob(f"*.{kind}")}
    assert wanted and wanted <= names


@pytest.mark.skipif(shutil.which("nm") is None, reason="nm (binutils) is not installed")
def test_extension_exports_its_init_function_only(wheel, tmp_path):
    """No symbol of the C core can clash with another library in the process."""
    path = zipfile.ZipFile(wheel).extract(extension_of(wheel), tmp_path)
    listing = subprocess.run(["nm", "-D", "--defined-only", path], capture_output=True, text=True, check=True).stdout
    assert [line.split()[-1] for line in listing.splitlines()] == ["PyInit__core"]


@pytest.mark.skipif(shutil.which("nm") is None, reason="nm (binutils) is not installed")
def test_extension_uses_the_stable_abi_only(wheel, tmp_path):
    """No private CPython symbol (``_Py...``) is needed, so the abi3 tag is true."""
    path = zipfile.ZipFile(wheel).extract(extension_of(wheel), tmp_path)
    listing = subprocess.run(["nm", "-D", "--undefined-only", path], capture_output=True, text=True, check=True).stdout
    wanted = {line.split()[-1] for line in listing.splitlines()}
    private = {name for name in wanted if name.startswith("_Py") and name not in ("_Py_NoneStruct", "_Py_Dealloc")}
    assert any(name.startswith("Py") for name in wanted) and not private


def test_extension_loads_from_the_wheel(wheel, tmp_path):
    """The package works from the wheel alone, without the source tree."""
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = "from shardstream._native.crc32c import crc32c; print(hex(crc32c(b'123456789')))"
    environment = {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "0xe3069283", done.stderr

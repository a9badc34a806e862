"""The set-up commands: what they would run and when, and what they say of a machine that lacks something."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture
def tree(tmp_path):
    """A tree in which everything is older than the environment, as after a first run."""
    for name in ("Makefile", "setup.cfg", "setup.py", "pyproject.toml", "csrc", "shardstream/_native/build.py"):
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(ROOT / name, target) if (ROOT / name).is_dir() else shutil.copy(ROOT / name, target)
    for path in tmp_path.rglob("*"):
        os.utime(path, (1_000, 1_000))
    stamps = tmp_path / ".venv/.stamps"
    stamps.mkdir(parents=True)
    for age, name in enumerate(("torch", "runs", "tested", "built")):
        (stamps / name).touch()
        os.utime(stamps / name, (2_000 + age, 2_000 + age))
    return tmp_path


def steps(tree: Path, *arguments: str) -> str:
    """Return the commands that make would run; the make that may be running these tests is to have no say."""
    ours = ("MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES", "MAKELEVEL", "PYTHON", "VENV", "TORCH", "S3", "ARGS")
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    command = ["make", "-n", *arguments]
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("target", ["demo", "test"])
def test_second_run_installs_and_builds_nothing(tree, target):
    """With the environment made, make goes straight to the work."""
    commands = steps(tree, target)
    assert "pip" not in commands and "venv" not in commands.replace(".venv", "") and "build_ext" not in commands


def test_first_run_installs_torch_before_shardstream(tree):
    """pip would choose a torch of gigabytes by itself, so it is named and comes first."""
    shutil.rmtree(tree / ".venv")
    commands = steps(tree, "test")
    assert 0 < commands.index("pip install -qq torch==") < commands.index('-e ".[test]"') < commands.index("build_ext")


def test_torch_of_the_system_is_taken_on_request(tree):
    """TORCH= installs none and lets the environment see the interpreter's own packages."""
    shutil.rmtree(tree / ".venv")
    commands = steps(tree, "demo", "TORCH=")
    assert "--system-site-packages" in commands and "torch==" not in commands


def test_changed_c_source_is_rebuilt(tree):
    """A newer file in csrc makes the extension anew, and installs nothing."""
    os.utime(tree / "csrc/lib/crc32c.c", (3_000, 3_000))
    commands = steps(tree, "demo")
    assert "build_ext" in commands and "pip" not in commands


def test_changed_dependencies_are_installed(tree):
    """A newer setup.cfg installs again, without a new environment."""
    os.utime(tree / "setup.cfg", (3_000, 3_000))
    commands = steps(tree, "test")
    assert '-e ".[test]"' in commands and "-m venv" not in commands and "torch==" not in commands


def lacking(code: str) -> str:
    """Return what tools/check_machine.py says after ``code`` has taken something away."""
    script = f"import sys, runpy\n{code}\nrunpy.run_path({str(ROOT / 'tools/check_machine.py')!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode == 0) == (done.stderr == "") and done.stderr.count("\n") <= 1, done.stderr
    return done.stderr.strip()


@pytest.mark.parametrize(
    "code, message",
    [
        ("sys.modules['ensurepip'] = None", "Python's venv: apt-get install python3-venv"),
        ("sys.version_info = (3, 9)", "Python 3.10 or newer"),
        ("import shutil; shutil.which = lambda name: None", "a C compiler: apt-get install"),
        (
            "import sysconfig, venv, ensurepip; sysconfig.get_paths = lambda: {'include': '/nowhere'}",
            "Python's headers (Python.h): apt-get install",
        ),
    ],
)
def test_missing_package_is_one_line(code, message):
    """What the machine lacks is said in one line that names Debian's packages."""
    assert lacking(code).startswith(f"shardstream needs {message}")


@pytest.mark.parametrize("arguments", [[], ["help"]])
def test_make_alone_says_what_there_is(tree, arguments):
    """Every command is listed with a line on it; nothing is installed or run."""
    said = subprocess.run(["make", *arguments], cwd=tree, capture_output=True, text=True, check=True).stdout
    commands = re.search(r"^\.PHONY: (.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()
    assert all(re.search(rf"^  make {command} +\S", said, re.MULTILINE) for command in commands) and "PHONY" not in said

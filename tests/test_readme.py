"""The README is true: its Python runs, its commands exist, its links lead somewhere."""

import re
import shlex
from pathlib import Path

import pytest

from shardstream.cli.app import app

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def test_python_blocks_run(tmp_path, monkeypatch):
    """All Python in the README, in order and in one session, does what it says."""
    monkeypatch.chdir(tmp_path)
    session: dict = {}
    for code in (text for language, text in BLOCKS if language == "python"):
        exec(compile(code, "README.md", "exec"), session)
    assert len(list((tmp_path / "words").glob("*.tar"))) == 1
    assert session["state"]["position"] == 10_000 and next(iter(session["loader"]), None) is None


def test_write_and_read_takes_15_lines():
    """The first example is as short as it is said to be: at most 15 lines that are not blank."""
    first = next(text for language, text in BLOCKS if language == "python")
    assert sum(bool(line.strip()) for line in first.splitlines()) <= 15


def commands() -> list[list[str]]:
    lines = [line for language, text in BLOCKS if language == "sh" for line in text.splitlines()]
    return [shlex.split(line, comments=True) for line in lines]


def test_shardstream_commands_exist():
    """Each subcommand that the README types is one, and each file that it names is there."""
    known = {command.name for command in [*app.registered_commands, *app.registered_groups]}
    typed = [command for command in commands() if command[0] == "shardstream"]
    assert typed and {command[1] for command in typed} <= known
    assert all((ROOT / part).exists() for command in typed for part in command if part.endswith(".yaml"))


def test_make_targets_exist():
    """Each make command of the README has its target."""
    makefile = (ROOT / "Makefile").read_text()
    for target in {command[1] for command in commands() if command[0] == "make"} | {"s3-server"}:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#]+)", README))
def test_links_lead_somewhere(link):
    """Relative links name files of the repository."""
    assert link.startswith("https://") or (ROOT / link).exists()

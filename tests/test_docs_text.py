"""docs/TEXT.md is true: its commands and its Python run, in order, in one folder."""

import re
import shlex
from pathlib import Path

import pytest
import torch

import shardstream as ss
from shardstream.cli import main
from tests import texts

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/TEXT.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def test_examples_run(tmp_path, monkeypatch, capfd):
    """Every block runs, and leaves what the text around it says."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "books").mkdir()
    for number, text in enumerate(texts.library_text(200_000)[:6]):
        (tmp_path / "books" / f"{number}.txt").write_text(text)
    session: dict = {}
    for language, block in BLOCKS:
        if language == "python":
            exec(compile(block, "docs/TEXT.md", "exec"), session)
        for line in block.splitlines() if language == "sh" else ():
            command = shlex.split(line)
            assert command[0] == "shardstream" and main(command[1:]) == 0, line
    assert "1,000 ids" in capfd.readouterr().out
    assert (
        session["ids"].dtype == torch.int64
        and session["ids"].shape[1] == 128
        and isinstance(session["cu_seqlens"], ss.Jagged)
    )
    assert ss.Dataset("tokens").schema["ids"] == ss.Dense("uint16", (128,))
    assert sorted(session["batch"]) == ["ids", "y"]
    assert len(session["first"]) == len(session["second"]) == 6 and session["first"] != session["second"]


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#]+)", PAGE))
def test_links_lead_somewhere(link):
    """Relative links name files of the repository."""
    assert link.startswith("https://") or (ROOT / "docs" / link).exists()

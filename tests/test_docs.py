"""The pages of docs/ are true: their Python runs, in order, in an empty folder."""

import re
from pathlib import Path

import pytest

from tests.test_readme import ROOT

PAGES = ("batches.md", "coming-from.md", "tiers.md")


@pytest.mark.parametrize("page", PAGES)
def test_python_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / page).read_text(), re.DOTALL | re.MULTILINE)
    session: dict = {}
    for code in blocks:
        exec(compile(code, page, "exec"), session)
    assert blocks and any(tmp_path.iterdir())


@pytest.mark.parametrize("page", sorted(path.name for path in (ROOT / "docs").glob("*.md")))
def test_links_of_a_page_lead_somewhere(page):
    """Relative links and images name files beside the page."""
    for link in re.findall(r"\]\(([^)#]+)", (ROOT / "docs" / page).read_text()):
        assert link.startswith("https://") or (Path(ROOT) / "docs" / link).exists(), link

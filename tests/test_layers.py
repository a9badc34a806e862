"""The layers of docs/ARCHITECTURE.md: imports go down only, and heavy packages load late."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "shardstream"

# From the bottom up. A module imports from its own row and those below it.
ROWS = (
    {"errors", "schema", "config", "buffers", "progress", "locks", "stats"},
    {"_native"},
    {"storage"},
    {"log", "codecs", "tokenizers", "text"},
    {"order"},
    {"source", "joined", "following", "dataset", "adopt", "extents", "reader", "parts", "budget", "window", "shardfile", "writer", "scan", "verify",
     "export", "energon", "look", "publish", "upkeep"},
    {"forms", "collate", "transforms", "assemble", "rowmaker", "handover", "merge", "worker", "workers", "job"},
    {"access", "expand"},
    {"stream", "mixture", "replay", "loader", "packing", "memory", "memmap", "shard_dataset", "convert", "view", "bench"},
    {"cli", "__main__"},
    {"__init__"},  # the public names, imported on first use
)

# Who may import a package that is heavy, or that one layer is there to hide. Function-level imports count too.
ALLOWED = {
    "torch": {"forms", "collate", "transforms", "assemble", "rowmaker", "handover", "merge", "worker", "workers", "job", "stream", "loader",
              "access", "expand", "memory", "memmap", "shard_dataset"},
    "fsspec": {"storage"},
    "s3fs": {"storage"},
    "cffi": {"_native"},
    "webdataset": {"codecs"},
    "typer": {"cli"},
}

SOURCES = sorted(PACKAGE.rglob("*.py"))


def unit(path: Path) -> str:
    """Return the name in ROWS that a source file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Return the dotted names of all modules that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import; write the module's full name"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def row_of(name: str) -> int:
    rows = [row for row, names in enumerate(ROWS) if name in names]
    assert rows, f"shardstream.{name} has no place in ROWS; give it one"
    return rows[0]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_go_down_only(path):
    """A module imports nothing of a layer above its own, nor the public package."""
    own = row_of(unit(path))
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "shardstream" and unit(path) != "__init__" and name != "shardstream.__version__":
            assert len(parts) > 1, "import the module that defines a name, not the package of public names"
            assert row_of(parts[1]) <= own, f"{unit(path)} imports {name}, which stands above it"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_heavy_packages_stay_in_their_layer(path):
    """torch, fsspec, cffi, webdataset and typer are imported where ALLOWED says and nowhere else."""
    used = {name.split(".")[0] for name in imports(path)}
    assert not {name for name in used & set(ALLOWED) if unit(path) not in ALLOWED[name]}


def test_no_module_imports_in_a_circle():
    """Within a row, too, imports have a direction: no chain of units leads back to its start."""
    uses = {}
    for path in SOURCES:
        inner = {name.split(".")[1] for name in imports(path) if name.startswith("shardstream.")}
        uses.setdefault(unit(path), set()).update(inner - {unit(path)})

    def reached(start: str) -> set[str]:
        seen, todo = set(), [start]
        while todo:
            new = uses.get(todo.pop(), set()) - seen
            seen |= new
            todo += new
        return seen

    assert not {name for name in uses if name in reached(name)}


def modules_after(statement: str) -> set[str]:
    """Return what is in sys.modules of a fresh process after a statement."""
    code = f"{statement}\nimport sys\nprint(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing_heavy():
    """``import shardstream`` loads neither torch nor fsspec, webdataset, rich or typer."""
    loaded = modules_after("import shardstream")
    assert "shardstream" in loaded
    assert not loaded & {"torch", "fsspec", "s3fs", "webdataset", "rich", "typer", "yaml"}

"""Records from a Python function, for configs/pack_records.yaml: the documented functions of modules."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator


def functions(modules: list[str]) -> Iterator[dict]:
    """Give a record for each function and method of the modules that has a docstring, in the order of names."""
    for module_name in modules:
        module = importlib.import_module(module_name)
        found = {}
        for holder in (module, *(value for _, value in inspect.getmembers(module, inspect.isclass))):
            for _, function in inspect.getmembers(holder, inspect.isfunction):
                if function.__module__ == module_name:
                    found[function.__qualname__] = function
        for name, function in sorted(found.items()):
            if doc := inspect.getdoc(function):
                private = name.rpartition(".")[2].startswith("_")
                yield {"name": f"{module_name}.{name}", "doc": doc, "num_lines": doc.count("\n") + 1,
                       "private": private}  # fmt: skip

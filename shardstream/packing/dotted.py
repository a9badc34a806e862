"""Python objects by dotted path, as configurations name them."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from shardstream.packing.document import Document, Path


def load(document: Document, path: Path, name: str) -> Any:
    """Return the object ``package.module.attribute``; the working directory is importable, as under ``python -m``."""
    module_name, dot, attribute = name.rpartition(".")
    if not dot or not all(part.isidentifier() for part in name.split(".")):
        raise document.error(
            path, f"{name!r} is not the dotted path of a Python object, such as mypackage.mymodule.name."
        )
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise document.error(path, f"cannot import {module_name!r}: {error}.") from error
    if not hasattr(module, attribute):
        raise document.error(path, f"the module {module_name!r} has no {attribute!r}.")
    return getattr(module, attribute)

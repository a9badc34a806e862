"""Say in one line what this machine lacks to build shardstream, or nothing.

``make`` runs it with the interpreter that the environment will be made from, before anything
else, because the messages of venv and of a failing compiler do not name Debian's packages.
"""

import os
import shutil
import sys
import sysconfig

PACKAGES = "apt-get install python3-venv python3-dev gcc"


def missing() -> str | None:
    """Return what is missing, or ``None``."""
    if sys.version_info < (3, 10):  # noqa: UP036  (older ones run this, to be told)
        return (
            f"Python 3.10 or newer; {sys.executable} is {sys.version.split()[0]}. Name another: make PYTHON=python3.12"
        )
    try:
        import ensurepip  # noqa: F401  Debian ships venv without it unless python3-venv is installed
        import venv  # noqa: F401
    except ImportError:
        return f"Python's venv: {PACKAGES}"
    if not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")):
        return f"Python's headers (Python.h): {PACKAGES}"
    if shutil.which("gcc") is None:
        return f"a C compiler: {PACKAGES}"
    return None


if __name__ == "__main__":
    lacking = missing()
    if lacking:
        sys.exit(f"shardstream needs {lacking}")

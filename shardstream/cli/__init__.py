"""The ``shardstream`` command: one module a subcommand, each from argv to one library call.

Exit status: 0 done, 1 it failed, 2 the command line or a configuration is wrong, 130 interrupted.
A failure is one line on standard error; ``--debug`` anywhere on the line shows the traceback.
Subcommands import what they need when they run, so ``--help`` is quick.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

FAILED, USAGE, INTERRUPTED = 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (``sys.argv`` by default) and return its exit status."""
    from shardstream.cli.app import app
    from shardstream.cli.report import run

    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    return run(app, [argument for argument in arguments if argument != "--debug"], debug)

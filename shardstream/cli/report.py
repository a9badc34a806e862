"""From a command's outcome to its exit status, and to one line on standard error if it failed."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence

import typer

from shardstream.cli import FAILED, INTERRUPTED, USAGE
from shardstream.errors import ConfigError, ShardstreamError

# Typer has click inside or beside it, by version; this is the base of what either raises for a wrong command line.
USAGE_ERROR = typer.BadParameter.__base__


def run(app: typer.Typer, arguments: Sequence[str], debug: bool) -> int:
    """Run the app and return its exit status; ``debug`` adds the traceback."""
    try:
        status = app(args=list(arguments), prog_name="shardstream", standalone_mode=False) or 0
        return _failed("interrupted.", INTERRUPTED, debug) if status == INTERRUPTED else status
    except USAGE_ERROR as error:
        error.show()
        return error.exit_code
    except (typer.Abort, KeyboardInterrupt):
        return _failed("interrupted.", INTERRUPTED, debug)
    except BrokenPipeError:  # whoever read our output has seen enough
        sys.stderr.close()
        return FAILED
    except ConfigError as error:
        return _failed(str(error), USAGE, debug)
    except (ShardstreamError, OSError) as error:
        return _failed(str(error), FAILED, debug)
    except Exception as error:
        return _failed(f"unexpected {type(error).__name__}: {error} (--debug shows where)", FAILED, debug)


def _failed(message: str, status: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print(f"shardstream: {message}", file=sys.stderr)
    return status

"""All subcommands under one name. A new one adds its module here and nothing else."""

from __future__ import annotations

from typing import Annotated

import typer

from shardstream.cli import (
    bench,
    cache,
    cat,
    compact,
    convert,
    end,
    export,
    gc,
    index,
    ls,
    pack,
    tag,
    tokenizer,
    verify,
    view,
)

app = typer.Typer(
    name="shardstream",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
COMMANDS = (
    pack,
    ls,
    cat,
    view,
    verify,
    bench,
    index,
    export,
    convert,
    compact,
    tag,
    gc,
    end,
)
for module in COMMANDS:
    app.command(module.__name__.rpartition(".")[2], epilog=module.EXAMPLES)(module.command)
app.add_typer(cache.app, name="cache")
app.add_typer(tokenizer.app, name="tokenizer")


def _print_version(wanted: bool) -> None:
    if wanted:
        from shardstream import __version__

        typer.echo(f"shardstream {__version__}")
        raise typer.Exit()


@app.callback(
    epilog="Exit status: 0 done, 1 it failed, 2 the command line or a configuration is wrong, 130 interrupted."
)
def _top(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error (anywhere on the line).")
    ] = False,
) -> None:
    """Pack training data into tar shards, and look after datasets of them."""

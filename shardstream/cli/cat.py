"""``shardstream cat``: samples, for people."""

from __future__ import annotations

from typing import Annotated, Any

import typer

EXAMPLES = """\
[bold]Examples[/bold]

    shardstream cat s3://bucket/reviews/train

    shardstream cat demo/stdlib/train 1500 --num 3 --field x --field y

    shardstream cat images-dataset last --images .

    shardstream cat demo/stdlib/train 0192f7c4-2b1e-7a55-9d0c-3f0f6b1a9e77:12 --json
"""

SHOWN_ELEMENTS, SHOWN_CHARACTERS = 32, 2000


def command(
    url: Annotated[str, typer.Argument(metavar="URL", help="A dataset; or shards: a file, folder or pattern.")],
    row: Annotated[str, typer.Argument(metavar="[ROW]", help="A row number, 'last', or an id <sid>:<row>.")] = "0",
    num: Annotated[int, typer.Option(min=1, help="How many samples from there on.")] = 1,
    field: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Show this field only; may be repeated.")] = None,
    version: Annotated[str | None, typer.Option(help="Of the dataset: a number, a tag or a time.")] = None,
    images: Annotated[str | None, typer.Option(metavar="FOLDER", help="Write images there as PNG files.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line; bytes as base64.")] = False,
) -> None:
    """Show samples: texts, arrays, sparse sets, and images as PNG files."""
    import msgspec

    from shardstream.look import Looker, image_kind
    from shardstream.packing import class_names

    looker = Looker(url, version, field)
    first = len(looker) - 1 if row == "last" else int(row) if row.isdecimal() else looker.row_of(row)
    classes = {} if looker.source.version is None else class_names(url)
    for number in range(first, min(first + num, max(len(looker), first + 1))):
        sample = looker.sample(number)
        if as_json:
            values = {name: _plain(value) for name, value in sample.fields.items()}
            typer.echo(msgspec.json.encode({"row": sample.row, "id": sample.id, "fields": values}).decode())
        else:
            typer.echo(f"row {sample.row}, {sample.id}")
            for name, value in sample.fields.items():
                typer.echo(_printable(f"  {name}: {_shown(value, classes.get(name))}"))
        if images is not None:
            for name, value in sample.fields.items():
                if image_kind(value) is not None:
                    typer.echo(f"  {name}: {_write_image(images, sample, name, value)}", err=as_json)


def _shown(value: Any, classes: list[str] | None) -> str:
    """Return a value as people read it, cut where it is long."""
    import numpy as np

    from shardstream.cli import show
    from shardstream.look import IndexSet, image_kind

    if isinstance(value, IndexSet):
        pairs = value.indices[:SHOWN_ELEMENTS].tolist()
        if value.values is not None:
            pairs = [f"{index}={weight:g}" for index, weight in zip(pairs, value.values.tolist())]
        more = " ..." if len(value.indices) > SHOWN_ELEMENTS else ""
        return f"{len(value.indices)} of {value.dim:,}: {' '.join(map(str, pairs))}{more}"
    if isinstance(value, bytes):
        kind = image_kind(value)
        return f"{kind} image, {show.nbytes(len(value))}" if kind else f"{show.nbytes(len(value))}: {value[:SHOWN_ELEMENTS]!r}"
    if isinstance(value, np.ndarray) and value.ndim:
        text = np.array2string(value, threshold=SHOWN_ELEMENTS, edgeitems=3).replace("\n", "\n    ")
        return f"{value.dtype.name}{list(value.shape)} {text}"
    text = str(value)
    text = text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]} ... {len(text):,} characters"
    is_class = classes and isinstance(value, np.ndarray) and value.dtype.kind in "iu" and 0 <= int(value) < len(classes)
    return f"{text} ({classes[int(value)]})" if is_class else text


def _plain(value: Any) -> Any:
    import numpy as np

    from shardstream.look import IndexSet

    if isinstance(value, IndexSet):
        return {"indices": value.indices.tolist(), "dim": value.dim} | ({} if value.values is None else {"values": value.values.tolist()})
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return {_printable(str(key)): _plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return value if isinstance(value, (int, float, bytes, type(None))) else _printable(str(value))


def _printable(text: str) -> str:
    """Return a text that UTF-8 can hold: JSON in a shard may have halves of surrogate pairs."""
    return text.encode("utf-8", "backslashreplace").decode()


def _write_image(folder: str, sample: Any, name: str, value: Any) -> str:
    import os
    import re

    from shardstream.look import to_png

    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, re.sub(r"[^A-Za-z0-9_.-]", "-", f"{sample.row}-{name}").lstrip(".") + ".png")
    with open(path, "wb") as file:
        file.write(to_png(value))
    return path

"""Which files of a folder: patterns on paths relative to it.

``*`` and ``?`` match within one part of a path, ``[abc]`` one character, ``**`` any number of
parts. A pattern without ``/`` is about a single name wherever it stands; one with ``/`` about the
path from the folder down.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

WILDCARDS = re.compile(r"[*?\[]")


def split_glob(url: str) -> tuple[str, str | None]:
    """Return ``(folder, pattern)`` of a URL with wildcards, or ``(url, None)`` of one without.

    The folder is everything before the first part with a wildcard: ``a/b/**/*.txt`` gives
    ``("a/b", "**/*.txt")``. Over HTTP these signs are part of a query, as there is no listing.
    """
    if url.startswith(("http://", "https://")):
        return url, None
    parts = url.split("/")
    for index, part in enumerate(parts):
        if WILDCARDS.search(part):
            return "/".join(parts[:index]) or ("/" if url.startswith("/") else "."), "/".join(parts[index:])
    return url, None


def regex(pattern: str) -> str:
    """Return the regular expression of a pattern, to be matched against a whole relative path."""
    expression, position = "", 0
    while position < len(pattern):
        rest = pattern[position:]
        if rest.startswith("**/"):
            expression, position = expression + "(?:[^/]+/)*", position + 3
        elif rest.startswith("**"):
            expression, position = expression + ".*", position + 2
        elif rest[0] == "*":
            expression, position = expression + "[^/]*", position + 1
        elif rest[0] == "?":
            expression, position = expression + "[^/]", position + 1
        elif rest[0] == "[" and (end := rest.find("]", 2)) > 0:
            inside = rest[1:end].replace("\\", "\\\\")
            inside = "^" + inside[1:] if inside[0] == "!" else inside
            expression, position = expression + f"(?!/)[{inside}]", position + end + 1
        else:
            expression, position = expression + re.escape(rest[0]), position + 1
    return expression


def compile_glob(pattern: str) -> re.Pattern:
    """Return what matches the relative paths that the pattern of :func:`split_glob` names."""
    return re.compile(regex(pattern), re.DOTALL)


def compile_include(patterns: Sequence[str]) -> re.Pattern:
    """Return what matches the paths of files that one of the patterns names."""
    return re.compile("|".join(regex(p) if "/" in p else f"(?:.*/)?{regex(p)}" for p in patterns), re.DOTALL)


def compile_exclude(patterns: Sequence[str]) -> re.Pattern:
    """Return what matches the paths of files and folders that one of the patterns names; all below goes too."""
    return compile_include([pattern.rstrip("/") for pattern in patterns]) if patterns else re.compile("(?!)")

"""Credentials: handed to child processes, left out of every other pickle. (`errors.py` leaves them out of every
message.)

The rule of multiprocessing's own ``AuthenticationString``: a secret may be pickled only while a
child process is being started, when the bytes go down a pipe to it and nowhere else. What is
pickled otherwise has a number in its place, which this process and its forks know the secret by; in a file, on
another host it says nothing, and credentials are found there as the cloud's tools find them, in
environment, profile or instance role.
"""

from __future__ import annotations

import re
import uuid
from multiprocessing.context import get_spawning_popen
from typing import Any
from urllib.parse import parse_qsl

SECRET = re.compile(r"secret|token|password|passwd|credential|^key$|_key$|access_key|sas|connection_string|auth", re.I)
SIGNED = re.compile(r"signature|^sig$", re.I)  # in the query of a URL that is lent out for some time


def in_url(url: str) -> bool:
    """Return whether a URL has credentials in it: a user, or a query that is signed or names a secret."""
    place, _, query = url.partition("://")[2].partition("?")
    return "@" in place.partition("/")[0] or any(SECRET.search(name) or SIGNED.search(name) for name, _ in parse_qsl(query))


def without_secrets(options: Any) -> Any:
    """Return storage options without the entries whose names say that they are secret."""
    if not isinstance(options, dict):
        return options
    return {name: without_secrets(value) for name, value in options.items() if not SECRET.search(str(name))}


_kept: dict[str, dict] = {}  # the options that this process has pickled by number


class _ByNumber:
    """Stands for options in a pickle; unpickles as a dict: all of it where the number is known, else what is public."""

    def __init__(self, number: str, public: dict):
        self.number, self.public = number, public

    def __reduce__(self):
        return _recalled, (self.number, self.public)


def _recalled(number: str, public: dict) -> dict:
    return _kept.get(number, public)


def pickled_options(options: dict | None) -> Any:
    """Return what a pickle may hold of storage options; it unpickles as options."""
    public = without_secrets(options)
    if public == options or get_spawning_popen() is not None:
        return options
    number = next((number for number, kept in _kept.items() if kept == options), None)
    if number is None:
        number = uuid.uuid4().hex
        _kept[number] = options
    return _ByNumber(number, public)

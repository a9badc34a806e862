"""Credentials: handed to child processes, left out of every other pickle and of every message.

The rule of multiprocessing's own ``AuthenticationString``: a secret may be pickled only while a
child process is being started, when the bytes go down a pipe to it and nowhere else. A Store
pickled to a file, a queue or another host leaves them out, and finds credentials there as the
cloud's tools do, in environment, profile or instance role.
"""

from __future__ import annotations

import re
from multiprocessing.context import get_spawning_popen
from typing import Any

SECRET = re.compile(r"secret|token|password|passwd|credential|^key$|_key$|access_key|sas|connection_string|auth", re.I)


def without_secrets(options: Any) -> Any:
    """Return storage options without the entries whose names say that they are secret."""
    if not isinstance(options, dict):
        return options
    return {name: without_secrets(value) for name, value in options.items() if not SECRET.search(str(name))}


def pickled_options(options: dict | None) -> dict | None:
    """Return what a pickle may hold of storage options."""
    return options if get_spawning_popen() is not None else without_secrets(options)


QUERY = re.compile(r"(\w+://[^\s?'\"<>]*)\?[^\s'\"<>]*")
USER = re.compile(r"(\w+://)[^\s/'\"<>@]+@")
HEADER = re.compile(r"(authorization|x-amz-security-token|x-amz-[a-z-]*key[a-z-]*)(['\"]?\s*[:=]\s*)[^\n]*", re.I)


def scrubbed(text: str) -> str:
    """Return a message without what may be secret: queries and users of URLs, signed headers."""
    return HEADER.sub(r"\1\2...", USER.sub(r"\1", QUERY.sub(r"\1", text)))

"""A configuration as plain data that still knows where each part of it stands.

YAML is composed to nodes, not loaded: nodes carry the line of every key, so a mistake found
later, by whatever part of the packer reads that key, is reported as ``file:line: key: rule``.
Dicts given from Python go the same way without lines, ``--set`` overrides with their own text.
"""

from __future__ import annotations

import difflib
import os
import re
import sysconfig
import typing
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
import yaml

from shardstream.errors import ConfigError

Path = tuple[str | int, ...]

VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
KEY = re.compile(r"[^.\[\]]+(?:\.[^.\[\]]+|\[\d+\])*")  # steps[0].hash.dim, or steps.0.hash.dim
UNKNOWN_KEY = re.compile(r"Object contains unknown field `(.*)`")
WRONG_VALUE = re.compile(r"Invalid enum value '?(.*?)'?", re.DOTALL)
MISSING_KEY = re.compile(r"Object missing required field `(.*)`")
INNER_PATH = re.compile(r"(.*?)(?: - at `\$(.*)`)?\Z", re.DOTALL)
STEP_OF_PATH = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]")  # "$.types[...]" leads to types


def spell(path: Path) -> str:
    """Return ``("steps", 1, "hash", "dim")`` as ``steps[1].hash.dim``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


class Document:
    """Configuration data, and for every key the place to name when it is wrong.

    Attributes:
        data: The whole configuration: mappings, lists and scalars, changed by :meth:`set` and :meth:`expand`.
        places: Where a path stands, as ``file:line`` or ``--set key``; paths from Python have none.
    """

    def __init__(self, data: Any, places: Mapping[Path, str]):
        self.places = dict(places)
        self.data = data
        if not isinstance(data, dict):
            raise self.error((), f"a configuration is a mapping of keys to values, not {data!r:.80}.")

    def __getstate__(self) -> dict:
        # Sources and steps take their document along to other machines, where nothing is left to complain of.
        return {"data": {}, "places": {}}

    @classmethod
    def from_yaml(cls, text: str, name: str) -> Document:
        """Parse one YAML document; ``name`` is the file's name for messages."""
        try:
            node = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise ConfigError(f"{name}:{line}: not YAML: {error.problem}.") from error
        except yaml.YAMLError as error:
            raise ConfigError(f"{name}: not YAML: {error}.") from error
        if node is None:
            raise ConfigError(f"{name}: the file is empty.")
        places: dict[Path, str] = {}
        return cls(_plain(node, (), name, places), places)

    def set(self, assignment: str) -> None:
        """Apply one ``key=value`` override; the value is YAML, and keys of mappings are made as needed."""
        key, equals, text = assignment.partition("=")
        if not equals or not KEY.fullmatch(key.strip()):
            raise ConfigError(f"--set {assignment}: write key=value, such as output.url=s3://bucket/name.")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {assignment}: the value is not YAML: {error}.") from error
        path = tuple(int(part) if part.isdigit() else part for part in re.findall(r"[^.\[\]]+", key.strip()))
        target = self.data
        for depth, part in enumerate(path):
            if not _can_hold(target, part):
                raise ConfigError(f"--set {assignment}: there is no {spell(path[: depth + 1])} to set.")
            if depth < len(path) - 1:
                target = target.setdefault(part, {}) if isinstance(target, dict) else target[part]
        target[path[-1]] = value
        self.places = {known: place for known, place in self.places.items() if known[: len(path)] != path}
        self.places[path] = f"--set {key.strip()}"

    def expand(self) -> None:
        """Replace ``${stdlib}`` and ``${NAME}`` of the environment in all texts; once, after the overrides."""
        self.data = self._expanded((), self.data)

    def error(self, path: Path, message: str) -> ConfigError:
        """Return the error that names the place, the key and the rule."""
        place = next((self.places[path[:n]] for n in range(len(path), -1, -1) if path[:n] in self.places), None)
        key = "" if place == f"--set {spell(path)}" else spell(path)
        parts = [part for part in (place, key) if part]
        return ConfigError(": ".join([*parts, message]))

    def convert(self, path: Path, value: Any, kind: type) -> Any:
        """Return ``value``, which stands at ``path``, as a ``kind`` of msgspec's; raises with the place.

        Unknown keys are errors that name the nearest known one.
        """
        try:
            return msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            message, inner = INNER_PATH.match(str(error)).groups()
            deeper = tuple(name or int(index) for name, index in STEP_OF_PATH.findall(inner or ""))
            if unknown := UNKNOWN_KEY.fullmatch(message):
                raise self.unknown((*path, *deeper, unknown[1]), unknown[1], _known_keys(kind, deeper)) from None
            if missing := MISSING_KEY.fullmatch(message):
                raise self.error((*path, *deeper), f"the key {missing[1]!r} is missing.") from None
            if wrong := WRONG_VALUE.fullmatch(message):
                raise self.unknown((*path, *deeper), wrong[1], _known_values(kind, deeper), "value") from None
            raise self.error((*path, *deeper), f"{message[:1].lower()}{message[1:]}.".replace("`", "")) from None

    def unknown(self, path: Path, name: str, known: list[str], what: str = "key") -> ConfigError:
        """Return the error for a name, at ``path``, that is none of the known ones; it says the nearest, of values all.
        """
        near = difflib.get_close_matches(name, known, n=1) if what != "value" else []
        hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}." if known else "."
        return self.error(path, f"unknown {what} {name!r}{hint}")

    def _expanded(self, path: Path, value: Any) -> Any:
        if isinstance(value, str):
            return VARIABLE.sub(lambda match: self._variable(path, match[1]), value)
        if type(value) is dict:
            return {key: self._expanded((*path, key), inner) for key, inner in value.items()}
        if type(value) is list and path != ("source", "records"):  # records given from Python are data, not words
            return [self._expanded((*path, index), inner) for index, inner in enumerate(value)]
        return value

    def _variable(self, path: Path, name: str) -> str:
        if name == "stdlib":
            return sysconfig.get_paths()["stdlib"]
        if name not in os.environ:
            raise self.error(path, f"${{{name}}} is neither 'stdlib' nor a variable of the environment.")
        return os.environ[name]


def _known_keys(kind: Any, path: Path) -> list[str]:
    """Return the keys of the struct at ``path`` below a struct; none where no struct is."""
    for name in path:
        inner = [of_key := _kind_of(kind, name), *typing.get_args(of_key)]  # a struct, or "struct | None"
        kind = next((one for one in inner if isinstance(one, type) and issubclass(one, msgspec.Struct)), None)
        if kind is None:
            return []
    return [field.encode_name for field in msgspec.structs.fields(kind)]


def _known_values(kind: Any, path: Path) -> list[str]:
    """Return the words that may stand at ``path`` below a struct, as far as literals say."""
    for name in path:
        kind = _kind_of(kind, name) if isinstance(name, str) and isinstance(kind, type) else kind
    literals = [kind, *typing.get_args(kind)]  # of "literal | None", or of a list of literals
    return [str(word) for one in literals if typing.get_origin(one) is Literal for word in typing.get_args(one)]


def _kind_of(kind: Any, name: str | int) -> Any:
    """Return the type of a struct's key, None if it has no such key."""
    return next((field.type for field in msgspec.structs.fields(kind) if field.encode_name == name), None)


def _can_hold(target: Any, part: str | int) -> bool:
    if isinstance(target, list):
        return isinstance(part, int) and part < len(target)
    return isinstance(target, dict) and isinstance(part, str)


def _plain(node: yaml.Node, path: Path, name: str, places: dict[Path, str], open_nodes: tuple = ()) -> Any:
    line = node.start_mark.line + 1
    places.setdefault(path, f"{name}:{line}")
    if isinstance(node, yaml.ScalarNode):
        try:
            return yaml.constructor.SafeConstructor().construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            raise ConfigError(f"{places[path]}: {spell(path)}: {error}.") from error
    if node in open_nodes:
        raise ConfigError(f"{name}:{line}: {spell(path)}: an alias that contains itself.")
    open_nodes = (*open_nodes, node)
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, (*path, index), name, places, open_nodes) for index, item in enumerate(node.value)]
    data: dict = {}
    for key_node, value_node in node.value:
        key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
        line = key_node.start_mark.line + 1
        if key is None or key == "<<":
            raise ConfigError(f"{name}:{line}: {spell(path)}: keys are plain words here.")
        if key in data:
            raise ConfigError(f"{name}:{line}: {spell((*path, key))}: this key stands twice.")
        places[(*path, key)] = f"{name}:{line}"
        data[key] = _plain(value_node, (*path, key), name, places, open_nodes)
    return data

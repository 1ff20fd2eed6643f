"""Text, JSON and YAML that somebody wrote, read so that nothing is lost: a key that is there twice is an error.

Python's ``json`` and PyYAML keep the last of equal keys without a word. Every reader of cube3d reads through here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from cube3d.errors import UserError


def read_text(path: Path) -> str:
    """What a UTF-8 file holds, without its byte order mark.

    Raises:
        UserError: it cannot be read; with the line, it is not UTF-8, or holds a zero byte, as no text does.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(
            f"{path}:{line}: not UTF-8 (byte {error.object[error.start]:#04x}); convert the file"
        ) from error
    if "\0" in text:
        raise UserError(f"{path}:{text[: text.index(chr(0))].count(chr(10)) + 1}: a zero byte; this is no text file")
    return text


# JSON

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}:]')


class _TwiceError(Exception):
    """An object has a key twice."""


def parse_json(text: str, origin: object, line: int | None = None) -> Any:
    """The value of a JSON text.

    Args:
        text: a whole file, or one line of it.
        origin: the file.
        line: which line of the file the text is; None for a whole file.

    Raises:
        UserError: with the line, not JSON; a key that an object has twice, with both places.

    >>> parse_json('{"a": 1, "a": 2}', "pairs.jsonl", 7)
    Traceback (most recent call last):
    cube3d.errors.UserError: pairs.jsonl:7: the key 'a' is there twice in one object, at characters 2 and 10
    """
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except _TwiceError:
        raise UserError(_twice_in_json(text, origin, line)) from None
    except json.JSONDecodeError as error:
        raise UserError(f"{origin}:{line or error.lineno}: not JSON ({error})") from error
    except (ValueError, RecursionError) as error:  # a number too long, brackets too deep
        where = origin if line is None else f"{origin}:{line}"
        raise UserError(f"{where}: not JSON ({error})") from error


def parse_json_lines(text: str, origin: object) -> Iterable[tuple[int, str, Any]]:
    """Number, text and value of each line that is not blank. Raises what :func:`parse_json` does."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line, parse_json(line, origin, number)


def _unique(items: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(items)
    if len(values) < len(items):
        raise _TwiceError
    return values


def _twice_in_json(text: str, origin: object, line: int | None) -> str:
    """Where the keys are: ``json`` does not tell, and the text is known to be JSON up to there."""
    objects: list[dict[str, int]] = []  # those that are open, with the place of each key
    string = ("", 0)
    for token in _TOKEN.finditer(text):
        if token[0] == "{":
            objects.append({})
        elif token[0] == "}":
            objects.pop()
        elif token[0] != ":":
            string = (token[0], token.start())
        else:
            key, second = json.loads(string[0]), string[1]
            first = objects[-1].setdefault(key, second)
            if first != second:
                break
    if line is not None:
        return (
            f"{origin}:{line}: the key {key!r} is there twice in one object, at characters {first + 1} and {second + 1}"
        )
    one, two = (text.count("\n", 0, place) + 1 for place in (first, second))
    return f"{origin}:{two}: the key {key!r} is there twice in one object, first in line {one}"


# YAML


class _Unique(yaml.composer.Composer):
    """Refuses a mapping that has a key twice, as YAML itself does."""

    origin: object

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        first: dict[Any, yaml.Node] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):  # "yes" and "true" are one key where they are one value
                merge = key.tag == "tag:yaml.org,2002:merge"  # "<<", which has no value of its own
                value = key.value if merge else self.construct_object(key)  # type: ignore[attr-defined]
                if first.setdefault(value, key) is not key:
                    line, before = (mark.start_mark.line + 1 for mark in (key, first[value]))
                    raise UserError(
                        f"{self.origin}:{line}: the key {key.value!r} is there twice in one mapping, "
                        f"first in line {before}"
                    )
        return node


class _Values(_Unique, yaml.SafeLoader):
    """YAML 1.1 takes 3e-3 for a string; here it is a number, as in YAML 1.2."""


class _Nodes(_Unique, yaml.BaseLoader):
    """Takes every value as it is written: ``yes`` and ``42`` are text."""


YAML_NUMBER = ("tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789"))
"""How a number with an exponent is told from text, for loaders and dumpers."""

_Values.add_implicit_resolver(*YAML_NUMBER)


def parse_yaml(text: str, origin: object) -> Any:
    """The value of a YAML text; None if it is empty.

    Raises:
        UserError: with the line, not YAML; a key that a mapping has twice, with both lines.
    """
    return _parse(_Values, "get_single_data", text, origin)


def parse_yaml_nodes(text: str, origin: object) -> yaml.Node | None:
    """The same as nodes, which know their lines, and whose values are text. Raises what :func:`parse_yaml` does."""
    node: yaml.Node | None = _parse(_Nodes, "get_single_node", text, origin)
    return node


def _parse(kind: Any, method: str, text: str, origin: object) -> Any:
    try:
        loader = kind(text)
        loader.origin = origin
        return getattr(loader, method)()
    except UserError:
        raise
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UserError(f"{origin}:{line}: not YAML ({error.problem})") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise UserError(f"{origin}:{line}: not YAML (the character {chr(error.character)!r})") from error
    except RecursionError as error:
        raise UserError(f"{origin}: not YAML (nested too deeply)") from error
    except ValueError as error:  # a date that is none
        raise UserError(f"{origin}: not YAML ({error})") from error

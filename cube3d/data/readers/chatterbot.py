"""The YAML of ChatterBot's corpora: ``categories`` and ``conversations``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml

from cube3d.data.readers.dialogue import replies
from cube3d.data.readers.record import Record
from cube3d.errors import UserError

EXPECTED = "'conversations', a list of lists of texts"


def chatterbot(path: Path, text: str) -> Iterator[Record]:
    """Each statement of a conversation replies to the one before. The categories are the domain.

    Values are taken as they are written: ``yes`` and ``42`` are text.
    """
    try:
        root = yaml.compose(text, yaml.BaseLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UserError(f"{path}:{line}: not YAML ({error.problem})") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise UserError(f"{path}:{line}: not YAML (the character {chr(error.character)!r})") from error
    except RecursionError as error:
        raise UserError(f"{path}: not YAML (nested too deeply)") from error
    if not isinstance(root, yaml.MappingNode):
        raise UserError(f"{path}: expected {EXPECTED}")
    top = {key.value: value for key, value in root.value if isinstance(key, yaml.ScalarNode)}
    if "conversations" not in top:
        raise UserError(f"{path}: has {', '.join(map(repr, top))}; expected {EXPECTED}")
    categories = _texts(path, top["categories"]) if "categories" in top else []
    for conversation in _items(path, top["conversations"]):
        turns = _texts(path, conversation)
        yield from replies(path, _place(conversation), {"turns": turns, "domain": ", ".join(categories)})


def _place(node: yaml.Node) -> str:
    return f":{node.start_mark.line + 1}"


def _items(path: Path, node: yaml.Node) -> list[yaml.Node]:
    if not isinstance(node, yaml.SequenceNode):
        found = f", found {node.value[:40]!r}" if isinstance(node, yaml.ScalarNode) else ""
        raise UserError(f"{path}{_place(node)}: expected a list{found}; a conversation is one of '- - ' and '  - '")
    return list(node.value)


def _texts(path: Path, node: yaml.Node) -> list[str]:
    items = _items(path, node)
    for item in items:
        if not isinstance(item, yaml.ScalarNode) or not item.value.strip():
            raise UserError(f"{path}{_place(item)}: expected text; quote it if it has a colon")
    return [item.value.strip() for item in items]

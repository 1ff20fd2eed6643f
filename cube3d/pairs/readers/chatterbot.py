"""The YAML of ChatterBot's corpora: ``categories`` and ``conversations``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml

from cube3d.errors import UserError
from cube3d.pairs.readers.dialogue import replies
from cube3d.pairs.readers.record import Record
from cube3d.strict import parse_yaml_nodes

EXPECTED = "'conversations', a list of lists of texts"


def chatterbot(path: Path, text: str) -> Iterator[Record]:
    """Each statement of a conversation replies to the one before. The categories are the domain.

    Values are taken as they are written: ``yes`` and ``42`` are text.
    """
    root = parse_yaml_nodes(text, path)
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

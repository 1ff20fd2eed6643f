"""Arrows go one way: of two rooms of a package, one knows the other, or neither does."""

import ast
from pathlib import Path

import pytest

import cube3d
import cube_kernels


def imports(package):
    """For each room, a folder or a module at the top, the rooms that its code imports, wherever in a file."""
    root = Path(package.__file__).parent
    found = {}
    for file in root.rglob("*.py"):
        place = file.relative_to(root).with_suffix("").parts
        if place == ("__init__",):
            continue
        room = found.setdefault(place[0], set())
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module is not None:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                parts = [name.split(".") for name in names]
                room.update(words[1] for words in parts if words[0] == package.__name__)
    return {room: others - {room} for room, others in found.items()}


@pytest.mark.parametrize("package", [cube3d, cube_kernels], ids=lambda package: package.__name__)
def test_rooms_know_each_other_in_one_direction(package):
    left = imports(package)
    assert len(left) > 10
    while free := [room for room, others in left.items() if not others & set(left)]:
        for room in free:
            del left[room]
    assert left == {}, "these rooms know each other in a circle"

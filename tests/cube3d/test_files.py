"""Saving: whole or not at all, whatever happens in between."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cube3d.errors import UserError
from cube3d.files import load_json, replacing, save_json, save_text

ROOT = Path(__file__).parents[2]
FULL = OSError(28, "No space left on device")


@pytest.fixture
def old_file(tmp_path):
    path = tmp_path / "saved.txt"
    path.write_text("old")
    return path


@pytest.fixture
def old_folder(tmp_path):
    path = tmp_path / "saved"
    path.mkdir()
    (path / "old").write_text("old")
    return path


def tree(folder):
    """Every file below the folder, hidden ones too, with its text."""
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


def write_folder(path, **texts):
    path.mkdir()
    for name, text in texts.items():
        (path / name).write_text(text)


def run_python(code, *arguments):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_file_is_replaced_and_nothing_else_is_left(old_file, tmp_path):
    with replacing(old_file) as temporary:
        temporary.write_text("new")
        assert old_file.read_text() == "old"
    assert tree(tmp_path) == {"saved.txt": "new"}


def test_folder_is_replaced_as_a_whole(old_folder, tmp_path):
    with replacing(old_folder) as temporary:
        write_folder(temporary, a="1", b="2")
        assert tree(old_folder) == {"old": "old"}
    assert tree(tmp_path) == {"saved/a": "1", "saved/b": "2"}
    assert os.listdir(tmp_path) == ["saved"]


def test_folders_on_the_way_are_made(tmp_path):
    save_text(tmp_path / "a" / "b" / "c.txt", "text")
    assert tree(tmp_path) == {"a/b/c.txt": "text"}


def save_half(path, error):
    """A body that fails half way, on a file or a folder."""
    with replacing(path) as temporary:
        if path.is_dir():
            write_folder(temporary, half="half")
        else:
            temporary.write_text("half")
        raise error


@pytest.mark.parametrize("what", ["file", "folder"])
@pytest.mark.parametrize(
    ("error", "seen"),
    [(FULL, UserError), (RuntimeError("a bug"), RuntimeError), (KeyboardInterrupt(), KeyboardInterrupt)],
)
def test_old_stays_and_nothing_else_is_left_when_the_body_raises(request, tmp_path, what, error, seen):
    path = request.getfixturevalue(f"old_{what}")
    before = tree(tmp_path)
    with pytest.raises(seen):
        save_half(path, error)
    assert tree(tmp_path) == before
    assert os.listdir(tmp_path) == [path.name]


def test_error_of_the_system_becomes_the_users_with_path_and_reason(old_file):
    with pytest.raises(UserError) as caught, replacing(old_file):
        raise FULL
    assert str(old_file) in str(caught.value)
    assert "No space left on device" in str(caught.value)


def test_other_errors_come_through_as_they_are(old_file):
    with pytest.raises(ZeroDivisionError), replacing(old_file):
        raise ZeroDivisionError


def test_folder_stays_when_nothing_was_written(old_folder, tmp_path):
    with pytest.raises(UserError), replacing(old_folder):
        pass
    assert tree(tmp_path) == {"saved/old": "old"}


def test_folder_stays_when_it_cannot_be_renamed(old_folder, tmp_path, monkeypatch):
    """The second of the two renames fails: the first is taken back."""
    rename = os.replace

    def fail(source, target):
        if ".partial-" in str(source):
            raise FULL
        rename(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(UserError), replacing(old_folder) as temporary:
        write_folder(temporary, new="new")
    assert tree(tmp_path) == {"saved/old": "old"}


def test_path_below_a_file_is_the_users_error(old_file):
    with pytest.raises(UserError) as caught:
        save_text(old_file / "inner.txt", "text")
    assert str(old_file / "inner.txt") in str(caught.value)
    assert old_file.read_text() == "old"


def test_full_disk_leaves_the_old_file(old_file, tmp_path):
    """A process whose files may not grow past 4 KiB stands in for a full disk."""
    code = """
import resource, sys
from pathlib import Path
from cube3d.errors import UserError
from cube3d.files import save_text
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    save_text(Path(sys.argv[1]), "x" * 100_000)
except UserError as error:
    print(error)
"""
    result = run_python(code, old_file)
    assert result.returncode == 0, result.stderr
    assert str(old_file) in result.stdout
    assert "File too large" in result.stdout
    assert tree(tmp_path) == {"saved.txt": "old"}


@pytest.mark.parametrize("what", ["file", "folder"])
def test_killed_process_leaves_what_was_there(request, tmp_path, what):
    """Killed while it writes; what it had written so far lies beside, not in place."""
    path = request.getfixturevalue(f"old_{what}")
    before = tree(tmp_path)
    code = """
import os, signal, sys
from pathlib import Path
from cube3d.files import replacing
with replacing(Path(sys.argv[1])) as temporary:
    if sys.argv[2] == "folder":
        temporary.mkdir()
        temporary = temporary / "old"
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert run_python(code, path, what).returncode == -9
    after = tree(tmp_path)
    assert {name: after.get(name) for name in before} == before


def test_json_comes_back_as_it_was_saved(tmp_path):
    value = {"é": [1, 2.5, None, True], "nested": {"a": "b"}}
    save_json(tmp_path / "a.json", value)
    assert load_json(tmp_path / "a.json") == value
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == value


@pytest.mark.parametrize("content", [None, b"{", b"\xff\xfe"], ids=["missing", "half", "not UTF-8"])
def test_json_that_cannot_be_read_names_the_file(tmp_path, content):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        load_json(path)
    assert str(path) in str(caught.value)

"""Reading what somebody wrote: a key that is there twice is an error with both places, in every kind of file."""

import json

import pytest

from cube3d import run as runs
from cube3d.cli import main
from cube3d.config import load_settings
from cube3d.errors import UserError
from cube3d.files import load_json
from cube3d.pairs import read_pairs
from cube3d.strict import parse_json, parse_yaml, parse_yaml_nodes
from cube3d.texts import read_texts


def message(function, *arguments):
    with pytest.raises(UserError) as caught:
        function(*arguments)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "key", "lines"),
    [
        ('{"a": 1,\n "b": 2,\n "a": 3}', "a", (1, 3)),
        ('{"b": {"a": 1,\n\n"c": [{}, {"a": 5}],\n"a": 2}}', "a", (1, 4)),
        ('{"}{": "\\"a\\": {",\n"a:": [1],\n"a:": 2}', "a:", (2, 3)),
        ('[{"\\u0061": 1},\n{"\\u0061": 1,\n"a": 1}]', "a", (2, 3)),
    ],
    ids=["top", "nested", "marks in strings", "escaped"],
)
def test_json_keys_that_are_there_twice_name_both_lines(text, key, lines):
    told = message(parse_json, text, "f.json")
    assert told == f"f.json:{lines[1]}: the key {key!r} is there twice in one object, first in line {lines[0]}"


def test_a_line_of_json_names_itself_and_both_characters():
    told = message(parse_json, '{"a": 1, "b": {}, "a": 1}', "f.jsonl", 7)
    assert told == "f.jsonl:7: the key 'a' is there twice in one object, at characters 2 and 19"


def test_json_that_has_each_key_once_in_an_object_is_what_json_reads():
    text = '{"a": {"a": [{"a": 1}, {"a": "\\"a\\": 1"}]}, "b": null, "": 1.5}'
    assert parse_json(text, "f") == json.loads(text)


@pytest.mark.parametrize(
    ("text", "key", "lines"),
    [
        ("a: 1\nb: 2\na: 3\n", "a", (1, 3)),
        ("b:\n  a: 1\n  'a': 2\n", "a", (2, 3)),
        ("- {a: 1, a: 2}\n", "a", (1, 1)),
        ("a: 1\nb: {c: [{d: 1,\n d: 2}]}\na: 3\n", "d", (2, 3)),
        ("b: &b {a: 1}\nc:\n  <<: *b\n  <<: *b\n", "<<", (3, 4)),
    ],
)
@pytest.mark.parametrize("parse", [parse_yaml, parse_yaml_nodes])
def test_yaml_keys_that_are_there_twice_name_both_lines(parse, text, key, lines):
    told = message(parse, text, "f.yaml")
    assert told == f"f.yaml:{lines[1]}: the key {key!r} is there twice in one mapping, first in line {lines[0]}"


def test_yaml_keys_are_one_where_their_values_are():
    assert "f:2: the key 'true' is there twice" in message(parse_yaml, "yes: 1\ntrue: 2\n", "f")
    assert parse_yaml("1: a\n'1': b\n", "f") == {1: "a", "1": "b"}


def test_a_key_may_replace_one_that_is_merged_in():
    assert parse_yaml("b: &b {a: 1, c: 2}\nd:\n  <<: *b\n  a: 3\n", "f")["d"] == {"a": 3, "c": 2}


# Every reader


PAIR = '{"question": "q", "answer": "a", "answer": "b"}'


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.jsonl", '{"question": "q", "answer": "a"}\n' + PAIR, "a.jsonl:2: the key 'answer' is there twice"),
        ("a.json", f"[\n{PAIR}]", "a.json:2: the key 'answer' is there twice in one object, first in line 2"),
        (
            "a.json",
            '{"data": [],\n"data": []}',
            "a.json:2: the key 'data' is there twice in one object, first in line 1",
        ),
        (
            "a.csv",
            "question,answer, question\nq,a,r\n",
            "a.csv:1: the column 'question' is there twice, as number 1 and 3",
        ),
        (
            "a.yml",
            "conversations:\n- [q, a]\nconversations:\n- [r, b]\n",
            "a.yml:3: the key 'conversations' is there twice in one mapping, first in line 1",
        ),
    ],
)
def test_pairs_are_not_lost_to_a_key_that_is_there_twice(tmp_path, name, content, told):
    (tmp_path / name).write_text(content)
    assert told in message(read_pairs, [str(tmp_path / name)])


def test_columns_without_a_name_are_no_duplicates(tmp_path):
    (tmp_path / "a.csv").write_text("question,answer,,\nq,a,,\n")
    assert len(read_pairs([str(tmp_path / "a.csv")])) == 1


def test_settings_that_are_there_twice_are_refused(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("seed: 1\ndata:\n  test: 0.2\nseed: 2\n")
    assert f"{path}:4: the key 'seed' is there twice in one mapping, first in line 1" in message(load_settings, path)
    assert "'test' is there twice" in message(load_settings, None, ["data={test: 0.2, test: 0.3}"])


def test_texts_and_results_that_are_there_twice_are_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "One."}\n{"text": "Two.", "text": "Three."}\n')
    told = message(lambda: list(read_texts([str(tmp_path / "a.jsonl")], [])))
    assert "a.jsonl:2: the key 'text' is there twice" in told
    (tmp_path / "a.json").write_text('{"mrr": 0.5,\n"mrr": 0.6}')
    assert "a.json:2: the key 'mrr' is there twice" in message(load_json, tmp_path / "a.json")


def test_a_runs_pairs_that_are_there_twice_are_refused(make_run, pairs_file, tmp_path):
    folder = make_run(tmp_path / "run", pairs_file).folder
    file = folder / "pairs.jsonl"
    file.write_text(file.read_text().replace('"question":', '"question": "lost", "question":', 1))
    assert "pairs.jsonl:1: the key 'question' is there twice" in message(runs.load, folder)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["train", "--out", "r", "--config", "a.yaml", "--config", "b.yaml"],
            "--config: given twice, as a.yaml and b.yaml",
        ),
        (["data", "build", "--out", "a.jsonl", "--out", "b.jsonl"], "--out: given twice, as a.jsonl and b.jsonl"),
        (["ask", "r", "q", "--count", "3", "--count", "4"], "--count: given twice, as 3 and 4"),
    ],
)
def test_an_option_that_is_given_twice_names_both_values(arguments, told, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert told in capsys.readouterr().err

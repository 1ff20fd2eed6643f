"""Readers of pairs: what each format gives, and that each problem names the file and the line."""

import csv
import json

import pytest

from cube3d.dataset.write import record
from cube3d.errors import UserError
from cube3d.pairs import BUNDLED, Pair, read_pairs

BOM = b"\xef\xbb\xbf"
VALID = (".jsonl", ".json,", ".csv", ".txt", ".yml", ".yaml", "'bundled'", "'docs:<module>'")


@pytest.fixture
def read(tmp_path):
    """Writes a file and reads it."""

    def read_file(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_pairs([str(path)])

    return read_file


@pytest.fixture
def problem(read):
    """Writes a file and returns the message with which reading it fails."""

    def message(name, content):
        with pytest.raises(UserError) as caught:
            read(name, content)
        return str(caught.value)

    return message


def texts(pairs):
    return [(pair.question, pair.answer) for pair in pairs]


def jsonl(*records):
    return "".join(json.dumps(record) + "\n" for record in records)


# What is read


def test_jsonl_keeps_labels_and_line_and_ignores_blank_lines_and_other_keys(read):
    content = (
        '{"question": " Why? ", "answer": "So.", "domain": "d", "difficulty": "easy", "group": "g", "i": 7}\n'
        "\n"
        '{"question": "How\\n?", "answer": "Thus.", "domain": null}\n'
    )
    assert read("some.jsonl", content) == [
        Pair("Why?", "So.", "some.jsonl:1", "d", "easy", "g"),
        Pair("How\n?", "Thus.", "some.jsonl:3"),
    ]


def test_jsonl_does_not_need_a_newline_at_the_end(read):
    assert texts(read("a.jsonl", '{"question": "q", "answer": "a"}')) == [("q", "a")]


def test_csv_keeps_quoted_commas_quotes_and_newlines(read):
    content = 'question,answer,group\n"One, two?","He said ""no"",\nthen yes.",g\nplain?,yes,\n'
    pairs = read("a.csv", content)
    assert texts(pairs) == [("One, two?", 'He said "no",\nthen yes.'), ("plain?", "yes")]
    assert [pair.group for pair in pairs] == ["g", ""]


def test_csv_columns_go_by_the_header_in_any_order(read):
    pairs = read("a.csv", "note,answer,domain,question,difficulty\nx,a,d,q,hard\n")
    assert pairs == [Pair("q", "a", "a.csv:2", domain="d", difficulty="hard")]


def test_txt_joins_lines_to_what_stands_above_them(read):
    content = "\nQ: What is\n  a cube?\n\nA: A body\n\nwith six\nfaces.\nq: Next?\na:\nYes.\n"
    pairs = read("a.txt", content)
    assert texts(pairs) == [("What is a cube?", "A body with six faces."), ("Next?", "Yes.")]
    assert [pair.source for pair in pairs] == ["a.txt:2", "a.txt:9"]


def test_bundled_names_the_shipped_pairs_with_their_file_and_line():
    pairs = read_pairs([BUNDLED])
    assert BUNDLED == "bundled"
    assert len({pair.source.partition(":")[0] for pair in pairs}) == 5
    assert len({pair.source for pair in pairs}) == len(pairs)


def test_sources_follow_one_another_in_the_order_given(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(f"Q: {name}?\nA: {name}.\n")
    pairs = read_pairs([str(tmp_path / "b.txt"), BUNDLED, str(tmp_path / "a.txt")])
    assert pairs[0].question == "b?"
    assert pairs[-1].question == "a?"
    assert len(pairs) == 2 + len(read_pairs([BUNDLED]))


FORMATS = {
    "a.json": '[{"question": "é?", "answer": "ü"},\n{"question": "q?", "answer": "a"}]\n',
    "a.yml": "conversations:\n- - é?\n  - ü\n- - q?\n  - a\n",
    "a.jsonl": '{"question": "é?", "answer": "ü"}\n{"question": "q?", "answer": "a"}\n',
    "a.csv": "question,answer\né?,ü\nq?,a\n",
    "a.txt": "Q: é?\nA: ü\nQ: q?\nA: a\n",
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("bom", [b"", BOM], ids=["no BOM", "BOM"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["LF", "CRLF"])
def test_byte_order_mark_and_line_ends_change_nothing(read, name, bom, newline):
    content = bom + FORMATS[name].replace("\n", newline).encode()
    assert texts(read(name, content)) == [("é?", "ü"), ("q?", "a")]


@pytest.mark.parametrize(
    "content",
    [
        '[{"question": "q", "answer": "a"}, {"question": "r", "answer": "b"}]',
        '{"about": "mine", "data": [{"question": "q", "answer": "a"}, {"question": "r", "answer": "b"}]}',
    ],
    ids=["array", "object with an array"],
)
def test_json_holds_an_array(read, content):
    pairs = read("a.json", content)
    assert texts(pairs) == [("q", "a"), ("r", "b")]
    assert [pair.source for pair in pairs] == ["a.json[0]", "a.json[1]"]


def test_where_a_pair_came_from_and_its_score_are_kept(read):
    pair = read("a.jsonl", jsonl({"question": "q", "answer": "a", "source": "old.csv:3", "score": 1}))[0]
    assert (pair.source, pair.origin, pair.score) == ("a.jsonl:1", "old.csv:3", 1)


RIGHT_TO_LEFT = "ما هي الشبكة العصبية؟ \u202eabc\u202c"


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.txt", "a.yml"])
@pytest.mark.parametrize("text", [RIGHT_TO_LEFT, "word " * 100_000], ids=["right to left", "huge"])
def test_any_text_is_read_as_it_is(read, problem, name, text):
    content = {
        "a.jsonl": jsonl({"question": text, "answer": "a"}),
        "a.json": json.dumps([{"question": text, "answer": "a"}]),
        "a.csv": f"question,answer\n{text},a\n",
        "a.txt": f"Q: {text}\nA: a\n",
        "a.yml": f"conversations: [['{text}', a]]\n",
    }[name]
    if name == "a.csv" and len(text) > 131_072:  # the csv module's limit
        assert "a.csv:2: not CSV (field larger than" in problem(name, content)
    else:
        assert texts(read(name, content)) == [(text.strip(), "a")]


# What is refused

GOOD = {"question": "q", "answer": "a"}


@pytest.mark.parametrize("key", ["question", "answer"])
def test_jsonl_missing_key_names_line_and_key(problem, key):
    message = problem("a.jsonl", jsonl(GOOD, {k: v for k, v in GOOD.items() if k != key}))
    assert "a.jsonl:2:" in message
    assert f"no {key!r}" in message


@pytest.mark.parametrize("key", ["question", "answer", "domain", "difficulty", "group"])
@pytest.mark.parametrize("value", [7, ["x"], {"x": "y"}, True], ids=str)
def test_jsonl_value_that_is_no_text_names_line_key_and_value(problem, key, value):
    message = problem("a.jsonl", jsonl(GOOD, {**GOOD, key: value}))
    assert "a.jsonl:2:" in message
    assert repr(key) in message
    assert repr(value) in message


@pytest.mark.parametrize("key", ["question", "answer"])
@pytest.mark.parametrize("blank", ["", "  ", "\u00a0\t"], ids=["empty", "spaces", "no-break space and tab"])
def test_blank_text_names_line_and_key(problem, key, blank):
    record = {**GOOD, key: blank}
    for message, where in (
        (problem("a.jsonl", jsonl(GOOD, record)), "a.jsonl:2:"),
        (
            problem("a.csv", f'question,answer\nq,a\n"{record["question"]}","{record["answer"]}"\n'),
            "a.csv:3:",
        ),
        (problem("a.txt", f"Q: q\nA: a\n\nQ: {record['question']}\nA: {record['answer']}\n"), "a.txt:4:"),
    ):
        assert where in message
        assert f"the {key} is empty" in message


@pytest.mark.parametrize("line", ["{", "question: q", '{"question": "q", }', '{"question": "q"} x', "nul"])
def test_jsonl_line_that_is_not_json_is_named(problem, line):
    message = problem("a.jsonl", jsonl(GOOD) + "\n" + line + "\n")
    assert "a.jsonl:3:" in message
    assert "not JSON" in message


@pytest.mark.parametrize("line", ["[" * 100_000, '{"question": ' + "9" * 5000 + "}"], ids=["deep", "long number"])
def test_jsonl_line_that_the_json_reader_gives_up_on_is_named(problem, line):
    assert "a.jsonl:2:" in problem("a.jsonl", jsonl(GOOD) + line + "\n")


def test_jsonl_half_a_surrogate_pair_is_named(problem):
    """A cut emoji is no text: it can be neither written nor embedded."""
    assert "a.jsonl:2:" in problem("a.jsonl", jsonl(GOOD) + '{"question": "why \\ud83d?", "answer": "a"}\n')


@pytest.mark.parametrize("line", ['["q", "a"]', '"q"', "3", "null"])
def test_jsonl_line_that_is_no_object_is_named(problem, line):
    message = problem("a.jsonl", jsonl(GOOD) + line + "\n")
    assert "a.jsonl:2:" in message
    assert "object" in message


@pytest.mark.parametrize(
    ("header", "lacking", "present"),
    [("question,reply", "'answer'", "lacks 'question'"), ("Q,answer", "'question'", "lacks 'answer'")],
)
def test_csv_header_that_lacks_a_column_names_it(problem, header, lacking, present):
    message = problem("a.csv", f"{header}\nq,a\n")
    assert "a.csv:1:" in message
    assert f"lacks {lacking}" in message
    assert present not in message


def test_csv_row_with_too_many_fields_is_named(problem):
    message = problem("a.csv", 'question,answer\n"q\n?",a\nq,a,more\nq,a\n')
    assert "a.csv:4:" in message
    assert "2" in message.partition("a.csv:4:")[2]


def test_csv_cell_in_a_column_without_a_name_is_named(problem):
    assert "a.csv:3: 'more' stands in a column without a name" in problem(
        "a.csv", "question,answer,,\nq,a,,\nr,b,more,\n"
    )


def test_csv_row_with_too_few_fields_is_named(problem):
    message = problem("a.csv", "question,answer\nq,a\nq\n")
    assert "a.csv:3:" in message
    assert "no 'answer'" in message


@pytest.mark.parametrize("row", ['q,"a"b', "q," + "a" * 200_000], ids=["text after a quote", "field too long"])
def test_csv_row_that_is_not_csv_is_named(problem, row):
    message = problem("a.csv", f"question,answer\nq,a\n{row}\nq,a\n")
    assert "a.csv:3:" in message
    assert "not CSV" in message


def test_csv_quote_that_never_ends_is_named(problem):
    message = problem("a.csv", 'question,answer\nq,"a\nq,a\n')
    assert "a.csv" in message
    assert "not CSV" in message


@pytest.mark.parametrize("header", ['"question"x,answer', '"question,answer'], ids=["text after a quote", "open"])
def test_csv_header_that_is_not_csv_is_named(problem, header):
    assert "a.csv:1:" in problem("a.csv", f"{header}\nq,a\n")


@pytest.mark.parametrize("content", ["A: a\n", "Q: q\nA: a\nA: b\n"], ids=["at the start", "a second one"])
def test_txt_answer_without_a_question_is_named(problem, content):
    message = problem("a.txt", content)
    assert f"a.txt:{content.count(chr(10))}:" in message
    assert "without a question" in message


def test_txt_stray_line_is_named(problem):
    message = problem("a.txt", "\n# my pairs\nQ: q\nA: a\n")
    assert "a.txt:2:" in message
    assert "'# my pairs'" in message


@pytest.mark.parametrize("rest", ["", "\nQ: r\nA: b\n"], ids=["at the end", "in between"])
def test_txt_question_without_an_answer_is_named(problem, rest):
    message = problem("a.txt", "Q: q\nA: a\nQ: alone?\n" + rest)
    assert "a.txt:3:" in message
    assert "no 'answer'" in message


@pytest.mark.parametrize("mark", ["\u2028", "\x0b", "\x0c", "\x85"], ids=["U+2028", "VT", "FF", "NEL"])
def test_txt_lines_are_counted_as_editors_count_them(problem, mark):
    """Separators that word processors leave within a line begin no new one."""
    assert "a.txt:3:" in problem("a.txt", f"Q: one{mark}two?\nA: a\nQ:\nA: b\n")


@pytest.mark.parametrize("bom", [b"", BOM], ids=["no BOM", "BOM"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.txt"])
def test_bytes_that_are_not_utf8_name_line_and_byte(problem, name, bom):
    message = problem(name, bom + "é\n\n".encode() + "Q: Café?".encode("latin-1") + b"\nA: a\n")
    assert f"{name}:3:" in message
    assert "UTF-8" in message
    assert "0xe9" in message


@pytest.mark.parametrize("source", ["gone.jsonl", "gone.csv", "gone.txt"])
def test_missing_file_is_named(tmp_path, source):
    with pytest.raises(UserError) as caught:
        read_pairs([str(tmp_path / source)])
    assert str(tmp_path / source) in str(caught.value)
    assert "No such file" in str(caught.value)


@pytest.mark.parametrize("name", ["a.xml", "a.tsv", "a", "bundle"])
def test_unknown_suffix_names_the_valid_ones(problem, name):
    message = problem(name, "Q: q\nA: a\n")
    assert name in message
    assert all(valid in message for valid in VALID)


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.txt", "a.yml"])
def test_a_binary_file_names_the_line(problem, name):
    assert f"{name}:2: a zero byte" in problem(name, b"Q: q\nA: \x7fELF\x00\x01\n")


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
@pytest.mark.parametrize("number", [7, "seven"], ids=str)
def test_an_id_that_is_there_twice_names_both_places(problem, name, number):
    records = [{**GOOD, "id": number}, {**GOOD, "id": 8}, {**GOOD, "id": number}]
    message = problem(name, jsonl(*records) if name == "a.jsonl" else json.dumps(records))
    assert ("a.jsonl:3:" if name == "a.jsonl" else "a.json[2]:") in message
    assert ("a.jsonl:1 " if name == "a.jsonl" else "a.json[0] ") in message
    assert repr(number) in message


def test_csv_id_that_is_there_twice_names_both_lines(problem):
    message = problem("a.csv", "id,question,answer\n7,q,a\n8,q,a\n7,q,a\n")
    assert "a.csv:4: the id '7' is that of a.csv:2 already" in message


def test_an_id_may_be_there_again_in_another_file(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_text(jsonl({**GOOD, "id": 1}))
    assert len(read_pairs([str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")])) == 2


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ({"id": [1]}, "'id' is [1]"),
        ({"score": "high"}, "'score' is 'high'"),
        ({"score": True}, "'score' is True"),
        ({"source": 3}, "'source' is 3"),
        ({"context": "before"}, "'context' is 'before'"),
        ({"context": [4]}, "'context' is 4"),
    ],
)
def test_a_label_of_another_type_names_line_and_value(problem, record, told):
    message = problem("a.jsonl", jsonl(GOOD, {**GOOD, **record}))
    assert "a.jsonl:2:" in message
    assert told in message


def test_damaged_json_names_the_line(problem):
    assert "a.json:3: not JSON" in problem("a.json", '[\n{"question": "q", "answer": "a"},\n{"question" "q"}]')


@pytest.mark.parametrize("content", ["[" * 100_000, '[{"question": ' + "9" * 5000 + "}]"], ids=["deep", "long number"])
def test_json_that_the_json_reader_gives_up_on_is_named(problem, content):
    assert "a.json: not JSON" in problem("a.json", content)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('{"a": [], "b": []}', "the lists 'a', 'b'"),
        ('{"a": 1}', "no list"),
        ('"text"', "expected an array"),
        ("[[1]]", "a.json[0]: expected an object"),
        ('{"data": [{"question": "q"}]}', "a.json[0]: no 'answer'"),
    ],
)
def test_json_of_another_shape_is_named(problem, content, told):
    assert told in problem("a.json", content)


@pytest.mark.parametrize("content", ["", "\n\n", BOM], ids=["no bytes", "blank lines", "BOM alone"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.txt"])
def test_empty_file_is_named(problem, name, content):
    assert name in problem(name, content)


def test_csv_with_a_header_alone_holds_no_pairs(problem):
    message = problem("a.csv", "question,answer\n")
    assert "a.csv" in message
    assert "no pairs" in message


def test_no_sources_name_what_can_be_given():
    with pytest.raises(UserError) as caught:
        read_pairs([])
    assert all(valid in str(caught.value) for valid in VALID)


# What is absent, and what would be lost


def test_pairs_that_a_build_wrote_go_through_csv(tmp_path):
    """By Python's own writer, every value as text, lists as JSON."""
    pairs = [
        Pair("q", "a", "old.csv:3", "d", "easy", "g", ("one, two", "three"), "chat 1", "the web", 1.0),
        Pair("r\n?", 'He said "b".', "old.csv:4", score=0.25),
    ]
    records = [record(pair) for pair in pairs]
    with (tmp_path / "a.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(records[0]))
        writer.writeheader()
        for values in records:
            cells = {k: json.dumps(v) if isinstance(v, list) else str(v) for k, v in values.items()}
            writer.writerow(cells)
    (tmp_path / "a.jsonl").write_text(jsonl(*records))
    sides = [read_pairs([str(tmp_path / name)]) for name in ("a.csv", "a.jsonl")]
    assert [record(pair) | {"source": ""} for pair in sides[0]] == [record(pair) | {"source": ""} for pair in sides[1]]
    assert [pair.score for pair in sides[0]] == [1.0, 0.25]
    assert sides[0][0].context == ("one, two", "three")


@pytest.mark.parametrize(
    ("column", "cell", "told"),
    [
        ("score", "high", "'score' is 'high'; expected a number"),
        ("score", "nan", "'score' is nan; expected a number"),
        ("context", "before", "'context' is 'before'; expected a list of texts"),
        ("context", "[4]", "'context' is 4; expected text"),
    ],
)
def test_a_csv_cell_of_another_type_names_line_and_value(problem, column, cell, told):
    assert f"a.csv:3: {told}" in problem("a.csv", f"question,answer,{column}\nq,a,\nr,b,{cell}\n")


@pytest.mark.parametrize("blank", ["", "  "])
def test_a_blank_id_is_none(read, blank):
    assert len(read("a.csv", f"id,question,answer\n{blank},q,a\n{blank},r,b\n7,s,c\n")) == 3
    assert len(read("a.jsonl", jsonl({**GOOD, "id": blank}, {**GOOD, "id": blank}))) == 2
    chats = read("b.jsonl", jsonl({"id": blank, "turns": ["q", "a"]}, {"id": None, "turns": ["r", "b"]}))
    assert [pair.dialogue for pair in chats] == ["b.jsonl:1", "b.jsonl:2"]


def test_ids_are_compared_without_the_space_around_them(problem):
    assert "the id '7' is that of a.csv:2 already" in problem("a.csv", "id,question,answer\n7,q,a\n 7,r,b\n")


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_null_is_absent(read, name):
    absent = dict.fromkeys(
        ["messages", "turns", "context", "domain", "difficulty", "group", "dialogue", "source", "score", "id"]
    )
    place = ":1" if name == "a.jsonl" else "[0]"
    content = jsonl({**GOOD, **absent}) if name == "a.jsonl" else json.dumps([{**GOOD, **absent}])
    assert read(name, content) == [Pair("q", "a", name + place)]
    chat = {**absent, **dict.fromkeys(GOOD), "turns": ["q", "a"]}
    content = jsonl(chat) if name == "a.jsonl" else json.dumps(chat)
    assert read(name, content) == [Pair("q", "a", f"{name}{place} turn 2", dialogue=f"{name}{place}")]


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ({"turns": ["q", "a"], "question": "r"}, "has 'turns' and 'question'"),
        ({"messages": ["q", "a"], "answer": "b"}, "has 'messages' and 'answer'"),
        ({"turns": ["q", "a"], "messages": ["r", "b"]}, "has 'turns' and 'messages'"),
        ({"turns": ["q", "a"], "context": ["before"]}, "has 'turns' and 'context'"),
        ({"turns": ["q", "a"], **GOOD}, "has 'turns' and 'question' and 'answer'"),
    ],
)
def test_a_conversation_and_a_pair_in_one_record_name_both(problem, record, told):
    assert f"a.jsonl:2: {told}" in problem("a.jsonl", jsonl(GOOD, record))


def test_json_with_a_conversation_beside_other_records_names_both(problem):
    content = json.dumps({"turns": ["q", "a"], "data": [GOOD], "tags": ["x"]})
    assert "the lists 'turns', 'data'" in problem("a.json", content)

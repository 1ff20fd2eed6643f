"""The configuration: what it reads, that it reads back what it wrote, and what it says of a mistake."""

import dataclasses
import os

import pytest

from cube3d.config import (
    LOSS_NAMES,
    AliveSettings,
    LatticeSettings,
    Settings,
    TeacherSettings,
    dump_settings,
    load_settings,
    parse_settings,
)
from cube3d.errors import UserError
from cube_kernels import Alive, Lattice, Rule


@pytest.fixture
def yaml_file(tmp_path):
    """Writes a YAML file."""

    def write(text):
        path = tmp_path / "run.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def problem(yaml_file):
    """The message with which overrides, or a file's text, are refused."""

    def message(*overrides, text=None):
        with pytest.raises(UserError) as caught:
            load_settings(None if text is None else yaml_file(text), overrides)
        return str(caught.value)

    return message


def valid_keys(section=None):
    return list((type(getattr(Settings(), section)) if section else Settings).model_fields)


# What is read


def test_defaults_come_back_from_what_was_dumped(yaml_file):
    assert load_settings(yaml_file(dump_settings(load_settings(None)))) == Settings()


@pytest.mark.parametrize(
    "text",
    ["é ü 漢字", "yes", "null", "007", "2024-01-01", "a: b # c", " x ", "1e5", "3e8-base", "", "1_000"],
)
def test_any_text_comes_back_from_what_was_dumped(yaml_file, text):
    settings = parse_settings({"teachers": [{"model": text}], "data": {"pairs": ["bundled", text]}}, "test")
    assert load_settings(yaml_file(dump_settings(settings))) == settings


@pytest.mark.parametrize("number", [3e-3, 1e-5, 1e22, 0.1, 1 / 3, 5])
def test_any_number_comes_back_from_what_was_dumped(yaml_file, number):
    values = {"model": "mapping", "training": {"learning_rate": number}, "cube": {"checkpoint_every": 3}}
    settings = parse_settings(values, "test")
    assert load_settings(yaml_file(dump_settings(settings))) == settings


def test_yaml_file_sets_what_it_names_and_leaves_the_rest(yaml_file):
    path = yaml_file(
        "model: mapping\nseed: 11\ncube:\n  shape: [1, 2, 4]\n  boundary: periodic\nteachers:\n- pooling: last\n"
    )
    settings, defaults = load_settings(path), Settings(model="mapping")
    assert (settings.seed, settings.cube.shape, settings.cube.boundary) == (11, [1, 2, 4], "periodic")
    assert settings.teachers[0].pooling == "last"
    assert settings.training == defaults.training
    assert settings.cube.channels == defaults.cube.channels


def test_empty_yaml_file_gives_the_defaults(yaml_file):
    assert load_settings(yaml_file("# nothing\n")) == Settings()


@pytest.mark.parametrize(
    ("override", "section", "value"),
    [
        ("cube.steps=9", "cube", 9),
        ("cube.shape=[1,2,3]", "cube", [1, 2, 3]),
        ("cube.checkpoint_every=null", "cube", None),
        ("cube.update=replace", "cube", "replace"),
        ("data.validation=0.125", "data", 0.125),
        ("data.pairs=[a.csv, b=c.txt]", "data", ["a.csv", "b=c.txt"]),
        ("training.learning_rate=4e-5", "training", 4e-5),
        ("training.learning_rate=4E+0", "training", 4.0),
        ("training.learning_rate=2.5e-4", "training", 2.5e-4),
        ("loss.cosine=2", "loss", 2.0),
        ("ensemble.weights=[1.5]", "ensemble", [1.5]),
    ],
)
def test_override_is_read_as_yaml(override, section, value):
    key = override.partition("=")[0].partition(".")[2]
    model = "mapping" if section == "cube" else "reader"
    assert getattr(getattr(load_settings(None, [f"model={model}", override]), section), key) == value


def test_override_reaches_a_teacher_of_the_list_by_its_place(yaml_file):
    assert load_settings(None, ["teachers.0.model=3e8-base"]).teachers == [TeacherSettings(model="3e8-base")]
    path = yaml_file("teachers:\n- model: minilm\n- model: smollm2\n")
    settings = load_settings(path, ["teachers.1.pooling=last", "ensemble.weights=[3, 1]"])
    assert settings.teachers == [TeacherSettings(), TeacherSettings(model="smollm2", pooling="last")]
    assert load_settings(None, ["teachers=[{model: minilm}, {model: smollm2}]"]).teachers[1].model == "smollm2"


@pytest.mark.parametrize("place", ["1", "-1", "x", "model"])
def test_override_of_a_teacher_that_is_not_there_says_how_many_are(problem, place):
    message = problem(f"teachers.{place}.pooling=cls")
    assert "the list holds 1" in message
    assert repr(place) in message


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["teachers=[]"], "teachers: "),
        (["teachers.0.poling=cls"], "unknown key 'poling' in teachers.0 (did you mean 'pooling'?)"),
        (["teacher.model=minilm"], "unknown key 'teacher' in the top level (did you mean 'teachers'?)"),
        (["ensemble.weights=[1, 1]"], "ensemble.weights has 2 weights for 1 teachers"),
        (["ensemble.weights=[-1]"], "none may be negative"),
        (["ensemble.weights=[0]"], "one must be positive"),
        (["ensemble.weights=votes"], "'likelihood'"),
        (["ensemble.space=pca"], "dim belongs to the space 'pca', which needs it"),
        (["ensemble.dim=64"], "dim belongs to the space 'pca', which needs it"),
        (["teachers=[{}, {model: smollm2}, {model: x}]", "ensemble.floor=0.5"], "3 teachers leave at most 0.333"),
    ],
)
def test_an_ensemble_that_cannot_be_is_refused(problem, overrides, message):
    assert message in problem(*overrides)


def test_override_of_the_top_level():
    assert load_settings(None, ["seed=17"]).seed == 17


def test_override_wins_over_the_file_and_a_later_one_over_an_earlier(yaml_file):
    path = yaml_file("model: mapping\ncube:\n  steps: 5\n  hidden: 7\n")
    settings = load_settings(path, ["cube.steps=6", "cube.steps=8"])
    assert (settings.cube.steps, settings.cube.hidden) == (8, 7)


def test_each_model_has_its_own_defaults_where_they_differ():
    reader, mapping = Settings(), Settings(model="mapping")
    assert reader.model == "reader"
    assert reader.training.learning_rate < mapping.training.learning_rate
    assert load_settings(None, ["training.epochs=3"]).training.learning_rate == reader.training.learning_rate


# What is refused


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["cube.steps=2"], "cube is set, but belongs to model 'mapping' and model is 'reader'"),
        (["mixture=none"], "mixture is set, but belongs to model 'mapping'"),
        (["model=mapping", "reader.steps=3"], "reader is set, but belongs to model 'reader' and model is 'mapping'"),
        (["model=mapping", "texts.count=10"], "texts is set"),
        (["model=mapping", "tuning.hold=1"], "tuning is set"),
    ],
)
def test_a_section_of_the_other_model_is_refused(overrides, message):
    with pytest.raises(UserError, match=message):
        load_settings(None, overrides)


def test_unknown_key_at_the_top_names_the_valid_ones_and_the_close_one(problem):
    for message in (problem("trainign.epochs=3"), problem(text="trainign:\n  epochs: 3\n")):
        assert "unknown key 'trainign'" in message
        assert "did you mean 'training'?" in message
        assert all(key in message.partition("valid:")[2] for key in valid_keys())


@pytest.mark.parametrize(
    ("section", "wrong", "close"),
    [
        ("data", "validaton", "validation"),
        ("ensemble", "flor", "floor"),
        ("cube", "neighbourhood", "neighborhood"),
        ("loss", "temprature", "temperature"),
        ("training", "learning-rate", "learning_rate"),
    ],
)
def test_unknown_key_in_a_section_names_the_valid_ones_and_the_close_one(problem, section, wrong, close):
    for message in (problem(f"{section}.{wrong}=1"), problem(text=f"{section}:\n  {wrong}: 1\n")):
        assert f"unknown key {wrong!r} in {section}" in message
        assert f"did you mean {close!r}?" in message
        assert all(key in message.partition("valid:")[2] for key in valid_keys(section))


def test_unknown_key_far_from_any_gets_no_guess(problem):
    message = problem("cube.zzz=1")
    assert "unknown key 'zzz' in cube" in message
    assert "did you mean" not in message


@pytest.mark.parametrize(
    ("override", "got"),
    [
        ("cube.steps=four", "'four'"),
        ("cube.steps=4.5", "4.5"),
        ("cube.steps='4'", "'4'"),
        ("cube.hidden=true", "True"),
        ("seed=1e2", "100.0"),
        ("data.pairs=bundled", "'bundled'"),
        ("data.pairs=[3]", "3"),
        ("training.learning_rate=fast", "'fast'"),
        ("training.learning_rate=true", "True"),
        ("teachers.0.model=7", "7"),
        ("teachers.0.model=", "None"),
        ("cube=5", "5"),
    ],
)
def test_wrong_type_names_key_and_value(problem, override, got):
    message = problem(override)
    assert override.partition("=")[0] in message
    assert f"got {got}" in message


@pytest.mark.parametrize(
    "override",
    [
        "seed=-1",
        "data.validation=0",
        "data.test=1",
        "data.test=.nan",
        "teachers.0.pooling=middle",
        "teachers.0.max_length=1",
        "teachers.0.batch_size=0",
        "cube.shape=[2,2]",
        "cube.shape=[2,2,2,2]",
        "cube.steps=-1",
        "cube.lift=each",
        "loss.cosine=-1",
        "loss.temperature=0",
        "training.epochs=0",
        "training.batch_size=1",
        "training.learning_rate=0",
        "training.learning_rate=.inf",
        "training.learning_rate=.nan",
        "training.warmup=1",
        "training.patience=0",
    ],
)
def test_bad_value_names_its_key(problem, override):
    assert override.partition("=")[0] in problem(override)


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("cube.boundary=torus", ["torus", "walls", "periodic", "replicate"]),
        ("cube.neighborhood=hex", ["hex", "von_neumann", "moore"]),
        ("cube.update=add", ["add", "residual", "replace", "gated"]),
        ("cube.perception=eye", ["eye", "depthwise", "gather"]),
        ("cube.activation=elu", ["elu", "relu", "gelu", "silu", "tanh"]),
        ("teachers.0.pooling=max", ["max", "mean", "cls", "last"]),
        ("cube.lift=all", ["all", "per_cell", "shared", "dense"]),
    ],
)
def test_unknown_choice_names_its_setting_and_the_valid_ones(problem, override, named):
    message = problem(override)
    assert all(f"'{name}'" in message for name in named)
    assert override.partition("=")[0].partition(".")[2] in message


@pytest.mark.parametrize(
    ("override", "what"),
    [("cube.shape=[0,2,2]", "shape"), ("cube.channels=0", "channels"), ("cube.radius=0", "radius")],
)
def test_impossible_cube_names_what_is_wrong(problem, override, what):
    message = problem(override)
    assert "cube" in message
    assert f"{what} is 0" in message


def test_a_placement_where_every_cell_sees_every_dimension_is_refused(problem):
    message = problem("cube.lift=dense", "cube.placement=correlation")
    assert "placement 'correlation' lays dimensions on cells; with lift 'dense' each cell sees them all" in message


def test_every_mistake_is_told_at_once_with_the_file(problem):
    message = problem(text="seed: x\ncube:\n  stepz: 1\n")
    assert "seed" in message
    assert "stepz" in message
    assert all("run.yaml: " in line for line in message.splitlines())


def test_override_without_equals_sign_shows_what_one_looks_like(problem):
    message = problem("cube.steps")
    assert "'cube.steps'" in message
    assert "section.key=value" in message


def test_override_into_a_value_names_it(problem):
    message = problem("cube.steps.more=1", text="cube:\n  steps: 4\n")
    assert "'cube.steps.more=1'" in message
    assert "'steps' is a value" in message


@pytest.mark.parametrize("value", ["[1", "2024-13-45", "{"])
def test_override_that_is_not_yaml_is_named(problem, value):
    assert f"cube.steps={value}" in problem(f"cube.steps={value}")


def test_missing_file_is_named(tmp_path):
    with pytest.raises(UserError) as caught:
        load_settings(tmp_path / "gone.yaml")
    assert str(tmp_path / "gone.yaml") in str(caught.value)
    assert os.strerror(2) in str(caught.value)


def test_folder_instead_of_a_file_is_named(tmp_path):
    with pytest.raises(UserError) as caught:
        load_settings(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("text", ["cube: [", "a: b: c", "seed: 2024-13-45", "\x00"])
def test_file_that_is_not_yaml_is_named(problem, text):
    assert "run.yaml" in problem(text=text)


def test_file_that_is_not_utf8_is_named(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_bytes("teachers: [{model: Café}]".encode("latin-1"))
    with pytest.raises(UserError) as caught:
        load_settings(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", ["- seed\n", "seed\n", "3\n", "[]\n", "0\n", "false\n"])
def test_file_without_sections_names_them(problem, text):
    message = problem(text=text)
    assert "run.yaml" in message
    assert all(key in message for key in valid_keys())


def test_all_losses_zero_is_refused_and_says_which_to_raise(problem):
    message = problem("loss.cosine=0", "loss.info_nce=0")
    assert "loss" in message
    assert all(name in message for name in LOSS_NAMES)


@pytest.mark.parametrize("weights", [(0, 1), (1, 0)])
def test_one_loss_alone_is_enough(weights):
    settings = load_settings(None, [f"loss.cosine={weights[0]}", f"loss.info_nce={weights[1]}"])
    assert (settings.loss.cosine, settings.loss.info_nce) == weights


def test_settings_cannot_be_changed_once_read():
    with pytest.raises(ValueError, match="frozen"):
        Settings().cube.steps = 3


def test_every_option_of_a_lattice_and_its_rule_is_a_setting():
    """But a lattice's size and place, which the models know, and what takes a drive or a seed at each call."""
    options = {field.name for kind in (Lattice, Rule) for field in dataclasses.fields(kind) if field.init}
    assert options - set(LatticeSettings.model_fields) == {"shape", "window", "drive", "fire_rate", "fire_rescale"}
    assert {field.name for field in dataclasses.fields(Alive) if field.init} == set(AliveSettings.model_fields)


def test_a_setting_of_the_cube_reaches_its_lattice_and_rule():
    settings = load_settings(
        None,
        [
            *("model=mapping", "cube.boundary=absorbing", "cube.sponge_width=1", "cube.sponge_strength=0.25"),
            *("cube.fixed_filters=[laplacian]", "cube.own_state=false", "cube.update=leaky", "cube.squash=identity"),
            *("cube.step_size=0.5", "cube.clamp=[-2.0, 2.0]", "cube.immutable_channels=[3]"),
            "cube.alive={channel: 2, threshold: 0.3, when: after, dead_value: 0.5}",
        ],
    ).cube
    assert settings.whole_lattice() == Lattice(
        (2, 2, 2), 16, "von_neumann", boundary="absorbing", sponge_width=1, sponge_strength=0.25
    )
    assert settings.rule() == Rule(
        fixed_filters=("laplacian",),
        own_state=False,
        update="leaky",
        squash="identity",
        step_size=0.5,
        clamp=(-2, 2),
        immutable_channels=(3,),
        alive=Alive(2, 0.3, "after", 0.5),
    )


def test_an_option_that_the_rule_refuses_is_told_by_its_words(problem):
    assert "immutable_channels holds 99" in problem("model=mapping", "cube.immutable_channels=[99]")
    assert "has no step size" in problem("model=mapping", "cube.step_size=0.5")

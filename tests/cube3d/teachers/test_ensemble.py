"""Several teachers as one: alignment, weights, fusion, what is saved, and a run with two."""

import json
import math
import shutil

import pytest
import torch
import torch.nn.functional as F

from cube3d import run as runs
from cube3d.answering.answer import Reader
from cube3d.cli import main
from cube3d.config import EnsembleSettings, TeacherSettings, parse_settings
from cube3d.errors import UserError
from cube3d.teachers import Teacher, embed, fit_ensemble, load_ensemble
from cube3d.teachers import open as opening
from cube3d.teachers.alignment import principal_components, rotation, unchanged, whitening
from cube3d.teachers.fusion import fit_fusion
from cube3d.teachers.weights import likelihood_weights, margins, with_floor


def unit(*shape, seed):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def narrow(n, dim, seed):
    """A cone: most of each vector is common to all, and the dimensions are of very different size."""
    generator = torch.Generator().manual_seed(seed)
    scales = torch.logspace(0, -2, dim)
    return F.normalize(3 + torch.randn(n, dim, generator=generator) * scales, dim=-1)


def mrr(questions, answers):
    similarity = questions @ answers.T
    rank = (similarity >= similarity.diagonal()[:, None]).sum(1)
    return (1 / rank).mean().item()


# Alignment


def test_whitening_makes_a_cone_round():
    vectors = narrow(400, 12, seed=0)
    before, after = vectors, whitening(vectors)(vectors)
    assert (before @ before.T).mean() > 0.9
    assert abs((after @ after.T).mean()) < 0.02
    spreads = [torch.linalg.eigvalsh(torch.cov(x.T)) for x in (before, after)]
    ratios = [(spread[-1] / spread[0]).item() for spread in spreads]
    assert ratios[1] < ratios[0] / 20


def test_whitening_is_the_inverse_root_of_the_shrunk_covariance():
    """Against scikit-learn's shrinkage and a root by hand."""
    covariance = pytest.importorskip("sklearn.covariance", reason="computes the shrunk covariance")
    vectors = narrow(50, 6, seed=1).double()
    shrunk = torch.from_numpy(covariance.ShrunkCovariance(shrinkage=0.3).fit(vectors.numpy()).covariance_)
    fitted = whitening(vectors)
    product = fitted.map.double() @ shrunk @ fitted.map.double()
    assert torch.allclose(product, torch.eye(6, dtype=torch.float64), atol=1e-3)
    assert torch.allclose(fitted.map, fitted.map.T, atol=1e-3), "zero phase"


def test_whitening_bears_fewer_texts_than_dimensions():
    vectors = narrow(5, 40, seed=2)
    fitted = whitening(vectors)
    assert fitted(narrow(9, 40, seed=3)).isfinite().all()
    assert fitted.map.norm() < 1e4


def test_principal_components_keep_the_variance_in_falling_order():
    scales = torch.tensor([1.0, 5.0, 0.1, 3.0])
    vectors = torch.randn(500, 4, generator=torch.Generator().manual_seed(4)) * scales
    fitted = principal_components(vectors, 2)
    assert fitted.map.abs().argmax(0).tolist() == [1, 3]
    assert torch.allclose(fitted.map.T @ fitted.map, torch.eye(2), atol=1e-5)


@pytest.mark.parametrize(("dim", "anchor_dim"), [(6, 6), (4, 6), (9, 6)])
def test_rotation_finds_the_turn_between_two_spaces(dim, anchor_dim):
    """The anchor is the other space turned into more dimensions or, where it has fewer, what it has of them."""
    turn = torch.linalg.qr(torch.randn(9, 9, generator=torch.Generator().manual_seed(5))).Q[:dim, :anchor_dim]
    left, _, right = torch.linalg.svd(turn, full_matrices=False)
    turn = left @ right
    vectors = torch.linalg.qr(torch.randn(300, dim, generator=torch.Generator().manual_seed(6))).Q
    assert torch.allclose(rotation(vectors, vectors @ turn).float(), turn, atol=1e-4)


# Weights


def test_floor_keeps_the_sum_and_the_order():
    weights = with_floor(torch.tensor([[0.0, 0.2, 0.8], [1.0, 0.0, 0.0]]), 0.1)
    assert torch.allclose(weights.sum(-1), torch.ones(2))
    assert weights.min() >= 0.1
    assert weights[0, 0] < weights[0, 1] < weights[0, 2]


def noisy(answers, noise, seed):
    return F.normalize(answers + noise * unit(*answers.shape, seed=seed), dim=-1)


def test_likelihood_prefers_the_teacher_that_finds_the_answers():
    group = torch.arange(200)
    answers = [unit(200, 16, seed=7), unit(200, 24, seed=8)]
    questions = [noisy(answers[0], 1.0, 9), noisy(answers[1], 6.0, 10)]
    noted = likelihood_weights(questions, answers, group, window=5, floor=0.05, seed=0)
    good, poor = noted[-1].weights
    assert good > 0.75
    assert poor >= 0.05
    assert good + poor == pytest.approx(1)
    assert noted[-1].batch == 5
    assert likelihood_weights(questions[::-1], answers[::-1], group, 5, 0.05, 0)[-1].weights[0] < 0.25


def test_likelihood_is_not_misled_by_a_narrow_cone():
    """The same teacher twice, once with all cosines drawn together: the copy says as much, but its cosines vary ten
    times less, so one unit of it is worth less and a mean of cosines would hardly hear it."""
    answers = unit(150, 16, seed=11)
    questions = noisy(answers, 2.0, 12)
    shared = torch.ones(150, 1) * 3
    cone_q, cone_a = (F.normalize(torch.cat([shared, x], 1), dim=-1) for x in (questions, answers))
    poor = noisy(answers, 6.0, 13)
    noted = likelihood_weights([cone_q, poor], [cone_a, answers], torch.arange(150), 10, 0.0, 0)
    assert noted[-1].weights[0] > 0.8


def test_only_the_window_counts():
    """Pairs come in a random order, so a window of one batch differs from a longer one, and both are noted as batches
    go by."""
    answers = [unit(600, 8, seed=14), unit(600, 8, seed=15)]
    questions = [noisy(answers[0], 2.0, 16), noisy(answers[1], 2.5, 17)]
    short, long = (likelihood_weights(questions, answers, torch.arange(600), w, 0.0, 0) for w in (1, 100))
    assert [len(noted) for noted in (short, long)] == [5, 10]
    assert [noted[-1].batch for noted in (short, long)] == [5, 100]

    def swing(noted):
        return max(n.weights[0] for n in noted[-3:]) - min(n.weights[0] for n in noted[-3:])

    assert swing(long) < swing(short)


def test_margin_is_the_lead_of_the_nearest_answer_that_is_not_ones_own():
    references = torch.eye(3)
    question = F.normalize(torch.tensor([[3.0, 2.0, 1.0]]), dim=-1)
    none, first = torch.zeros(1, 3, dtype=torch.bool), torch.tensor([[True, False, False]])
    step = 1 / math.sqrt(14)
    assert margins(question, references, none).item() == pytest.approx(step, abs=1e-6)
    assert margins(question, references, first).item() == pytest.approx(step, abs=1e-6)
    assert margins(question[:, [1, 0, 2]], references, first).item() == pytest.approx(2 * step, abs=1e-6)


# Fusion


@pytest.fixture
def two():
    """Two teachers of one truth in different dimensions, the second in a narrow cone: questions, answers, group."""
    truth = unit(160, 10, seed=20)
    spread = torch.randn(10, 14, generator=torch.Generator().manual_seed(21)) * 0.3
    answers = [truth, F.normalize(2 + truth @ spread, dim=-1)]
    asked = noisy(truth, 1.2, 22)
    questions = [noisy(truth, 1.5, 23), F.normalize(2 + asked @ spread, dim=-1)]
    return questions, answers, torch.arange(160)


def fitted(two, whiten=(False, True), rows=slice(0, 100), **settings):
    questions, answers, group = two
    train = [q[rows] for q in questions], [a[rows] for a in answers], group[rows]
    return fit_fusion(EnsembleSettings(**{"window": 5, **settings}), whiten, *train, seed=0)[0]


def test_concatenation_makes_the_cosine_the_weighted_mean_of_cosines(two):
    questions, answers, _ = two
    fusion = fitted(two, weights=[3.0, 1.0])
    aligned = [(align(q), align(a)) for align, q, a in zip(fusion.alignments, questions, answers, strict=True)]
    expected = 0.75 * aligned[0][0] @ aligned[0][1].T + 0.25 * aligned[1][0] @ aligned[1][1].T
    assert torch.allclose(fusion.questions(questions) @ fusion.answers(answers).T, expected, atol=1e-5)
    assert fusion.questions(questions).shape == (160, 24)


SPACES = [{"space": "concatenation"}, {"space": "pca", "dim": 10}, {"space": "procrustes"}]


@pytest.mark.parametrize("settings", SPACES, ids=lambda s: s["space"])
def test_the_ensemble_is_better_than_its_teachers_on_pairs_it_was_not_fitted_to(two, settings):
    questions, answers, _ = two
    fusion = fitted(two, **settings)
    held = slice(100, 160)
    alone = [
        mrr(one.questions([questions[k][held]]), one.answers([answers[k][held]]))
        for k, one in enumerate(map(fusion.alone, (0, 1)))
    ]
    fused = [fusion.questions([q[held] for q in questions]), fusion.answers([a[held] for a in answers])]
    assert torch.allclose(fused[0].norm(dim=-1), torch.ones(60), atol=1e-5)
    assert mrr(*fused) > max(alone)


def test_every_space_of_the_settings_is_measured_and_no_other_is_taken_for_one(two):
    names = [settings["space"] for settings in SPACES]
    assert list(EnsembleSettings.model_fields["space"].annotation.__args__) == names
    questions, answers, group = two
    novel = EnsembleSettings().model_copy(update={"space": "novel"})
    with pytest.raises(KeyError, match="novel"):
        fit_fusion(novel, (False, False), questions, answers, group, 0)


def test_whitening_is_what_makes_a_cone_useful(two):
    plain, whitened = (fitted(two, whiten=(False, w)).alone(1) for w in (False, True))
    q, a = two[0][1][100:], two[1][1][100:]
    assert mrr(whitened.questions([q]), whitened.answers([a])) > mrr(plain.questions([q]), plain.answers([a])) + 0.05


def test_one_teacher_that_is_not_whitened_is_left_as_it_is(two):
    questions, answers, group = two
    fusion, noted = fit_fusion(EnsembleSettings(), [False], questions[:1], answers[:1], group, 0)
    assert torch.allclose(fusion.questions(questions[:1]), questions[0], atol=1e-6)
    assert noted[-1].weights == [1.0]


def test_procrustes_turns_onto_the_first_teacher(two):
    """Answers of the second, alone and turned, lie nearest to the first's answers of the same text."""
    fusion = fitted(two, space="procrustes")
    first, second = fusion.alignments[0](two[1][0]), fusion.alignments[1](two[1][1])
    assert first.shape == second.shape == (160, 10)
    assert mrr(second[100:], first[100:]) > 0.9


def test_nothing_is_fitted_to_what_is_not_training(two):
    """Other held-out pairs, the same statistics."""
    questions, answers, group = two
    other = [q.clone() for q in questions], [a.clone() for a in answers], group
    for side in other[:2]:
        for x in side:
            x[100:] = x[100:].flip(0)
    for settings in SPACES:
        before, after = fitted(two, **settings, confidence=True), fitted(other, **settings, confidence=True)
        assert torch.equal(before.weights, after.weights)
        assert all(torch.equal(a.map, b.map) for a, b in zip(before.alignments, after.alignments, strict=True))
        assert torch.equal(before.answers(answers), after.answers(answers))


def test_confidence_weighs_each_question_by_the_teacher_that_is_sure_of_it(two):
    questions, _, group = two
    fusion = fitted(two, confidence=True, weights=[1.0, 1.0], floor=0.1)
    aligned = [align(q) for align, q in zip(fusion.alignments, questions, strict=True)]
    weights = fusion.confidence.weights(fusion.weights, aligned, group)
    assert weights.shape == (160, 2)
    assert torch.allclose(weights.sum(1), torch.ones(160), atol=1e-5)
    assert weights.min() >= 0.1
    assert weights[:, 0].std() > 0.05
    own, references = group[:, None] == group[None, :100], fusion.confidence.references
    surer = [margins(q, a, own) for q, a in zip(aligned, references, strict=True)]
    lead = surer[0] / surer[0][:100].mean() - surer[1] / surer[1][:100].mean()
    assert ((weights[:, 0] > 0.5) == (lead > 0)).float().mean() > 0.98
    norms = fusion.questions(questions, group).norm(dim=-1)
    assert torch.allclose(norms, torch.ones(160), atol=1e-5)


def test_confidence_does_not_look_at_the_questions_own_answer(two):
    questions, _, group = two
    fusion = fitted(two, confidence=True)
    blind, seeing = fusion.questions(questions, group), fusion.questions(questions)
    assert not torch.allclose(blind[:100], seeing[:100], atol=1e-3)
    assert torch.equal(blind[100:], seeing[100:]), "whose answers are not among the training answers"


def test_more_dimensions_than_there_are_is_refused(two):
    with pytest.raises(UserError, match="ensemble.dim is 25; the teachers have 24 dimensions together"):
        fitted(two, space="pca", dim=25)


# With teachers, and on disk


class Counting(Teacher):
    """A random direction for each word; a text is the sum of its words'."""

    def __init__(self, dim, anisotropic=False):
        self.dim = dim
        self._anisotropic = anisotropic

    @property
    def key(self):
        return f"counting-{self.dim}"

    @property
    def anisotropic(self):
        return self._anisotropic

    def embed(self, texts):
        words = [[unit(self.dim, seed=sum(map(ord, word)) + self.dim) for word in text.split()] for text in texts]
        return torch.stack([sum(vectors) for vectors in words])


TEXTS = ([f"what is w{i} of v{i % 7}" for i in range(30)], [f"w{i} belongs to v{i % 7}" for i in range(30)])
TWO = [TeacherSettings(model="eight"), TeacherSettings(model="twelve")]


@pytest.fixture
def counting(monkeypatch, tmp_path):
    """Two teachers of other dimensions under names of their own, the second one anisotropic."""
    made = {"eight": Counting(8), "twelve": Counting(12, anisotropic=True)}
    monkeypatch.setattr("cube3d.teachers.ensemble.open_teacher", lambda settings, learned=None: made[settings.model])
    monkeypatch.setenv("CUBE3D_CACHE", str(tmp_path / "cache"))
    return made


def ensemble_of(teachers=TWO, **settings):
    return fit_ensemble(teachers, EnsembleSettings(window=3, **settings), *TEXTS, torch.arange(30), 0)


def test_anisotropic_teachers_are_whitened_unless_the_settings_say_otherwise(counting):
    assert [m.whitened for m in ensemble_of().members] == [False, True]
    said = [TeacherSettings(model="eight", whiten=True), TeacherSettings(model="twelve", whiten=False)]
    assert [m.whitened for m in ensemble_of(said).members] == [True, False]


@pytest.mark.parametrize("confidence", [False, True])
@pytest.mark.parametrize("settings", SPACES, ids=lambda s: s["space"])
def test_what_was_fitted_comes_back_from_disk(counting, tmp_path, settings, confidence):
    ensemble = ensemble_of(**settings, confidence=confidence)
    ensemble.save(tmp_path / "ensemble.safetensors")
    again = load_ensemble(tmp_path / "ensemble.safetensors", TWO)
    new = ["what is w3 of anything", "something else"]
    assert torch.equal(again.questions(new), ensemble.questions(new))
    assert torch.equal(again.answers(new), ensemble.answers(new))
    assert again.noted == ensemble.noted
    assert [m.whitened for m in again.members] == [m.whitened for m in ensemble.members]


def test_another_teacher_than_the_fitted_one_is_refused(counting, tmp_path, monkeypatch):
    path = tmp_path / "ensemble.safetensors"
    ensemble_of().save(path)
    with pytest.raises(UserError, match="fitted to 2 teachers; the settings name 1"):
        load_ensemble(path, TWO[:1])
    counting["eight"].dim = 9
    with pytest.raises(UserError, match="teacher 'eight': is not the one"):
        load_ensemble(path, TWO)


def test_a_teacher_whose_dimension_changed_is_refused(counting):
    ensemble = ensemble_of()
    counting["twelve"].dim = 13
    with pytest.raises(UserError, match="teacher 'twelve': gives 13 dimensions; it was fitted with 12"):
        ensemble.answers(TEXTS[1])


@pytest.mark.parametrize("damage", ["missing", "cut", "other"])
def test_a_damaged_ensemble_is_the_users_error(counting, tmp_path, damage):
    path = tmp_path / "ensemble.safetensors"
    ensemble_of().save(path)
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-10])
    else:
        from safetensors.torch import save_file

        save_file({"weights": torch.ones(2)}, path)
    with pytest.raises(UserError, match="ensemble.safetensors: damaged, or no fitted ensemble"):
        load_ensemble(path, TWO)


# A run

SUBJECTS = ["tree", "river", "stone", "cloud", "paper", "glass", "wheel", "bread", "chair", "music", "light", "water"]


@pytest.fixture(scope="module")
def run_of_two(tmp_path_factory, tiny_teacher):
    folder = tmp_path_factory.mktemp("two")
    pairs = folder / "pairs.jsonl"
    records = [
        {"question": f"{ask} {topic}?", "answer": f"The {topic} is known by its {topic} name."}
        for topic in SUBJECTS
        for ask in ("what is a", "tell me about the")
    ]
    pairs.write_text("".join(json.dumps(record) + "\n" for record in records))
    teachers = [{"model": str(tiny_teacher), "max_length": 16, "pooling": p} for p in ("mean", "cls")]
    values = {
        "data": {"pairs": [str(pairs)], "validation": 0.2, "test": 0.3},
        "teachers": [teachers[0], {**teachers[1], "whiten": True}],
        "model": "mapping",
        "cube": {"shape": [2, 2, 2], "channels": 4, "hidden": 8, "steps": 2},
        "ensemble": {"window": 3},
        "training": {"epochs": 2, "batch_size": 8, "patience": 4, "learning_rate": 0.01},
    }
    (folder / "config.yaml").write_text(json.dumps(values))  # JSON is YAML
    out = folder / "run"
    assert main(["train", "--config", str(folder / "config.yaml"), "--out", str(out)]) == 0
    return out


def test_a_run_of_two_teachers_answers_by_what_was_fitted_in_training(run_of_two):
    run = runs.load(run_of_two)
    assert run.parts.test.question.shape[1] == 32
    assert (run_of_two / "ensemble.safetensors").exists()
    question = "what is a river?"
    prediction = run.ask([question])
    found = Reader(run).answer([question], 1)[0][0]
    cosines = F.cosine_similarity(prediction, run.ensemble.answers([pair.answer for pair in run.pairs]), dim=-1)
    assert found.score == pytest.approx(cosines.max().item(), abs=1e-5)


def test_evaluation_tells_of_each_teacher_alone_and_how_they_agree(run_of_two):
    assert main(["evaluate", str(run_of_two)]) == 0
    told = json.loads((run_of_two / "teachers.json").read_text())
    assert [member["whitened"] for member in told["members"]] == [False, True]
    assert sum(member["weight"] for member in told["members"]) == pytest.approx(1)
    assert told["weights"][-1]["weights"] == pytest.approx([member["weight"] for member in told["members"]])
    assert [entry["between"] for entry in told["agreement"]] == [[0, 1]]
    run = runs.load(run_of_two)
    teacher = run.ensemble.members[0].teacher
    test = run.parts.test
    question = embed(teacher, [pair.prompt for pair in test.pairs])
    answer = embed(teacher, [pair.answer for pair in test.pairs])
    cosine = F.cosine_similarity(question, answer, dim=-1).mean().item()
    assert told["members"][0]["cosine"]["mean"] == pytest.approx(cosine, abs=1e-5)


def test_a_finished_run_without_its_fitted_ensemble_is_damaged(run_of_two, tmp_path):
    folder = shutil.copytree(run_of_two, tmp_path / "run")
    (folder / "ensemble.safetensors").unlink()
    with pytest.raises(UserError, match="ensemble.safetensors: damaged"):
        _ = runs.load(folder).ensemble


def test_teachers_that_cannot_be_had_end_the_run_before_it_begins(tmp_path):
    settings = parse_settings({"teachers": [{"model": "none:Such"}]}, "test")
    with pytest.raises(UserError, match="no such adapter"):
        runs.fit_teachers(runs.start(tmp_path / "run", settings))
    assert not (tmp_path / "run").exists()
    assert opening.ADAPTER.fullmatch("minilm") is None


def test_unchanged_vectors_are_unchanged():
    vectors = unit(5, 7, seed=30)
    assert torch.allclose(unchanged(7)(vectors), vectors, atol=1e-7)

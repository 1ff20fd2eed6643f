"""The report: what stands on the page, what its pictures are drawn from, and how a browser shows it."""

import html
import json
import re

import pytest
import torch

from cube3d import run as runs
from cube3d.cli import main
from cube3d.metrics import METRICS, ranks
from cube3d.model import CubeConfig, CubeModel
from cube3d.report import pictures
from cube3d.report.history import panels
from cube3d.report.lattice import signal
from cube3d.report.page import _teachers
from cube3d.report.samples import samples
from cube3d.report.tables import teacher_table
from cube3d.report.write import FORMATS
from tests.browser import browse, needs_chromium
from tests.cube3d.conftest import CUBE, DIM

PICTURES = 5


@pytest.fixture(scope="module")
def page(two_runs, tmp_path_factory):
    """The report of two seeds."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    assert main(["report", *map(str, two_runs), "--out", str(path)]) == 0
    return path


def test_the_report_is_one_page_that_needs_nothing_else(page):
    text = page.read_text()
    assert text.count('src="data:image/png;base64,') == PICTURES
    assert not re.search(r'(src|href)="(?!data:)', text)
    assert "default-src 'none'" in text, "a browser would refuse what is not on the page"
    assert "{{" not in text
    for part in ("2 seeds (0, 1)", "shuffled pairs", "each parameter moved", "channels: 4", "“What is X?” questions"):
        assert part in text


def test_the_gain_over_identity_comes_first(page):
    titles = re.findall(r"<h2>(.*?)</h2>", page.read_text())
    assert titles[0] == "Gain over identity"


def test_the_control_is_printed_in_the_identity_row(page):
    rows = re.findall(r"<tr>\s*<td>identity.*?</tr>", page.read_text(), flags=re.DOTALL)
    assert any("38.4 %" in html.unescape(row) for row in rows)


def test_the_report_of_one_run_lies_in_its_folder(evaluated_run, monkeypatch, capsys):
    assert "default-src 'none'" in (evaluated_run / "report.html").read_text(), "evaluation wrote it"
    monkeypatch.setitem(FORMATS, ".html", lambda runs: f"made anew of {len(runs)}")
    assert main(["report", str(evaluated_run)]) == 0
    assert (evaluated_run / "report.html").read_text() == "made anew of 1"


def test_what_cannot_be_a_report_is_refused(two_runs, tmp_path, capsys):
    first, second = map(str, two_runs)
    assert main(["report", first, "--out", str(tmp_path / "report.pdf")]) == 2
    assert "unknown format '.pdf'; valid: .html, .md" in capsys.readouterr().err
    assert main(["report", first, second]) == 2
    assert "--out FILE" in capsys.readouterr().err


# What the pictures are drawn from


def trained_cube():
    torch.manual_seed(0)
    model = CubeModel(CubeConfig(dim=DIM, cube={**CUBE, "steps": 3}))
    torch.nn.init.normal_(model.mapping.readout)
    return model


def test_the_states_are_those_of_the_rollout():
    model, x = trained_cube(), torch.randn(5, DIM)
    states, _ = signal(model, x, torch.randn(5, DIM))
    assert states.shape == (4, 5, 2, 2, 2, 4)
    assert torch.equal(states[0], model.mapping.place(x))
    assert torch.allclose(states[-1], model.mapping.layer(states[0]), atol=1e-6)


def test_the_gradients_are_those_of_a_finite_difference():
    """Of the distance to the answer, when one number of a state moves and the rest of the rollout follows."""
    model = trained_cube().double()
    x, answers = torch.randn(2, DIM, dtype=torch.float64), torch.randn(2, DIM, dtype=torch.float64)
    states, gradients = signal(model, x, answers)
    step = 1e-6
    for t in range(4):

        def distance(change, t=t):
            state = states[t].clone()
            state[0, 1, 0, 1, 2] += change
            correction = model.mapping.read(model.mapping.layer(state, steps=3 - t))
            scale = x.square().mean(1, keepdim=True).sqrt()
            return (1 - torch.cosine_similarity(x + scale * correction, answers)).sum()

        slope = (distance(step) - distance(-step)) / (2 * step)
        assert gradients[t, 0, 1, 0, 1, 2].item() == pytest.approx(slope.item(), rel=1e-5)


def test_measuring_the_signal_leaves_the_model_as_it_was():
    model, x = trained_cube(), torch.randn(3, DIM)
    before = model.map(x)
    signal(model, x, x)
    assert torch.equal(model.map(x), before)
    assert all(p.grad is None for p in model.parameters())
    assert not model.mapping.layer._forward_hooks


def test_the_gradient_comes_back_one_cell_a_step():
    """From the face where the answer is read to the opposite one, where the question enters."""
    cube = {**CUBE, "shape": [4, 2, 2], "input": "front", "output": "back", "steps": 3}
    torch.manual_seed(0)
    model = CubeModel(CubeConfig(dim=DIM, cube=cube))
    torch.nn.init.normal_(model.mapping.readout)
    _, gradients = signal(model, torch.randn(3, DIM), torch.randn(3, DIM))
    reached = gradients.abs().sum(dim=(1, 3, 4, 5)) > 0  # [steps + 1, D]
    assert reached.tolist() == [[d >= t for d in range(4)] for t in range(4)]


def test_a_cube_without_steps_has_one_state():
    model = CubeModel(CubeConfig(dim=DIM, cube={**CUBE, "steps": 0}))
    states, gradients = signal(model, torch.randn(3, DIM), torch.randn(3, DIM))
    assert len(states) == len(gradients) == 1


def test_samples_are_the_largest_gains_and_losses(evaluated_run):
    run = runs.load(evaluated_run)
    test = run.parts.test
    before = (1 / ranks(test.question, test)).tolist()
    after = (1 / ranks(run.model.predict(test), test)).tolist()
    change = {p.question: a - b for p, a, b in zip(test.pairs, after, before, strict=True)}
    found = samples(run, count=2)
    gained, lost, drawn = found.values()
    best = sorted(change.values(), reverse=True)
    expected = [c for c in best[:2] if c > 0]
    assert [change[s.question] for s in gained] == pytest.approx(expected)
    assert [change[s.question] for s in lost] == pytest.approx([c for c in best[::-1][:2] if c < 0])
    assert len(drawn) == 2
    for sample in [*gained, *lost, *drawn]:
        assert 1 / sample.rank - 1 / sample.control_rank == pytest.approx(change[sample.question])
        scores = [answer.score for answer in sample.nearest]
        assert scores == sorted(scores, reverse=True)
        assert all(answer.true == (answer.text == sample.answer) for answer in sample.nearest)
        if sample.rank == 1:
            assert sample.nearest[0].true


def test_whatever_was_logged_has_a_curve():
    """The Trainer's own bookkeeping apart."""
    history = [
        {"epoch": 1.0, "step": 4, "loss": 2.0, "loss_cosine": 0.5, "loss_info_nce": 1.5, "learning_rate": 0.1},
        {"epoch": 1.0, "step": 4, "eval_loss": 2.5, "eval_mrr": 0.5, "eval_runtime": 0.1, "eval_samples_per_second": 9},
        {"epoch": 2.0, "step": 8, "loss": 1.0, "loss_cosine": 0.25, "weight_minilm": 0.7, "competence": 0.5},
        {"epoch": 2.0, "step": 8, "eval_loss_cosine": 0.75, "train_runtime": 1.0, "train_loss": 1.5, "total_flos": 0.0},
    ]
    found = panels([history, history[:2]])
    assert found["loss"] == {"training": [([1, 2], [2, 1]), ([1], [2])], "validation": [([1], [2.5]), ([1], [2.5])]}
    assert found["loss: cosine"] == {"training": [([1, 2], [0.5, 0.25]), ([1], [0.5])], "validation": [([2], [0.75])]}
    assert found["loss: info_nce"] == {"training": [([1], [1.5]), ([1], [1.5])]}
    assert found["weight"] == {"minilm": [([2], [0.7])]}
    assert found["curriculum: share of the pairs"] == {"all": [([2], [0.5])]}
    losses, rest = ["loss", "loss: cosine", "loss: info_nce"], ["learning rate", "weight"]
    assert list(found) == [*losses, "validation MRR", *rest, "curriculum: share of the pairs"]


def test_several_teachers_have_their_weights_and_agreement_drawn(monkeypatch):
    """From what evaluation saves of an ensemble, teacher by teacher and pair by pair."""
    drawn = {}
    monkeypatch.setattr(pictures, "matrix", lambda names, values: drawn.setdefault(names[0] + str(len(drawn)), values))
    monkeypatch.setattr(pictures, "curves", lambda panels, line, x: drawn.setdefault("weights", panels))
    estimates = {metric: {"mean": 0.5, "low": 0.25, "high": 0.75} for metric in METRICS}
    about = {"dim": 8, "whitened": True, **estimates}
    saved = {
        "members": [
            about | {"name": name, "weight": weight} for name, weight in (("a", 0.5), ("/x/b", 0.3), ("a", 0.2))
        ],
        "weights": [{"batch": 1, "weights": [0.4, 0.4, 0.2]}, {"batch": 9, "weights": [0.5, 0.3, 0.2]}],
        "agreement": [
            {"between": [0, 1], "similarity": 0.9, "top_1": 0.6},
            {"between": [0, 2], "similarity": 0.8, "top_1": 0.5},
            {"between": [1, 2], "similarity": 0.7, "top_1": 0.4},
        ],
    }
    _teachers(saved)
    assert drawn["0. a0"] == [[1, 0.9, 0.8], [0.9, 1, 0.7], [0.8, 0.7, 1]]
    assert drawn["0. a1"] == [[1, 0.6, 0.5], [0.6, 1, 0.4], [0.5, 0.4, 1]]
    assert list(drawn["weights"]["weight"]) == ["0. a", "1. b", "2. a"]
    assert drawn["weights"]["weight"]["1. b"] == [([1, 9], [0.4, 0.3])]
    assert teacher_table(saved).rows[2][:5] == ["2. a", "8", "yes", "0.200", "0.500 [0.250, 0.750]"]


# In a browser


PROBE = """
<script>
addEventListener("load", () => {
  const seen = [...document.images].map(image => {
    const canvas = document.createElement("canvas");
    canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
    const context = canvas.getContext("2d");
    const colors = new Set();
    if (image.naturalWidth) {
      context.drawImage(image, 0, 0);
      const data = new Uint32Array(context.getImageData(0, 0, canvas.width, canvas.height).data.buffer);
      for (const pixel of data) colors.add(pixel);
    }
    return {name: image.alt, shown: image.getBoundingClientRect().width, colors: colors.size};
  });
  document.body.dataset.seen = JSON.stringify(seen);
});
</script>
"""


def browse_pictures(text, folder):
    """Each picture of a page as the browser drew it."""
    path = folder / "probed.html"
    without_policy = re.sub(r'<meta http-equiv="Content-Security-Policy".*?>', "", text)
    path.write_text(without_policy.replace("</body>", PROBE + "</body>"))
    document, console = browse(path)
    seen = re.search(r'data-seen="(.*?)"', document)
    assert seen, console
    return json.loads(html.unescape(seen[1]))


@needs_chromium
def test_a_browser_draws_every_picture(page, tmp_path):
    seen = browse_pictures(page.read_text(), tmp_path)
    assert len(seen) == PICTURES
    for picture in seen:
        assert picture["name"]
        assert picture["shown"] > 100, picture
        assert picture["colors"] > 10, f"blank: {picture}"


@needs_chromium
def test_a_browser_has_nothing_to_complain_of(page):
    document, console = browse(page)
    assert "Gain over identity" in document
    assert console == []


@needs_chromium
def test_the_browser_would_have_complained(page, tmp_path):
    """Of a picture cut short, of one from elsewhere, and of a script."""
    text = page.read_text()
    cut = re.sub(r'(src="data:image/png;base64,).{80}', r"\1", text, count=1)
    assert [picture["colors"] for picture in browse_pictures(cut, tmp_path)].count(0) == 1
    spoiled = tmp_path / "spoiled.html"
    spoiled.write_text(text.replace("</body>", '<img src="https://example.org/a.png"><script>1</script></body>'))
    _, console = browse(spoiled)
    assert len(console) == 2
    assert all("Content Security Policy" in line for line in console)

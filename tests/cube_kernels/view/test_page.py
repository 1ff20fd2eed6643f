"""The page: what Chromium draws of it, when it is turned, cut and moved through its steps."""

import html
import re

import numpy as np
import pytest
import torch

from cube_kernels import view
from tests.browser import Browser, browse, needs_chromium

RED, GREEN, BLUE = (230, 20, 40), (20, 160, 60), (30, 60, 220)
READY = "document.body?.dataset.ready === ''"


def cube(*steps):
    """Steps of 9×9×9 cells, each a solid ball of two colors, ``(outside, inside)``."""
    axis = torch.linspace(-1, 1, 9)
    distance = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).square().sum(0).sqrt()[..., None]
    states = []
    for outside, inside in steps:
        color = torch.where(distance < 0.5, torch.tensor(inside) / 255, torch.tensor(outside) / 255)
        states.append(torch.cat([color, torch.ones_like(distance)], -1) * (distance < 0.95))
    return torch.stack(states)


@pytest.fixture
def opened(tmp_path):
    """Opens a page of these states in a browser."""
    browsers = []

    def open_page(states):
        path = tmp_path / "page.html"
        view.Page(states).save(path)
        browsers.append(Browser(path))
        browsers[-1].wait(READY)
        return browsers[-1]

    yield open_page
    for browser in browsers:
        browser.__exit__()


def move(browser, slider, value):
    """A slider, as a hand would."""
    browser.evaluate(
        f"(slider => {{ slider.value = {value}; slider.dispatchEvent(new Event('input', {{bubbles: true}})) }})"
        f"(document.getElementById('{slider}'))"
    )


def share(picture, color):
    """Of the pixels, those of a color as any light shows it."""
    pixels, color = picture.astype(float), np.array(color, dtype=float)
    length = np.linalg.norm(pixels, axis=-1)
    along = pixels @ color / np.linalg.norm(color) / np.maximum(length, 1)
    return ((along > 0.995) & (pixels.min(-1) < 200)).mean()


@needs_chromium
def test_a_browser_turns_it_and_finds_other_pixels(opened):
    states = cube((RED, RED))
    states[..., :4, :3] = torch.tensor(BLUE) / 255 * states[..., :4, 3:]  # its left half
    browser = opened(states)
    before = browser.picture()
    assert share(before, RED) > 0.02
    assert share(before, BLUE) > 0.02
    browser.drag((320, 150), (480, 150))
    after = browser.picture()
    assert (before != after).any(-1).mean() > 0.02
    assert share(after, BLUE) > 1.2 * share(before, BLUE), "the left half did not come to the front"
    assert np.array_equal(browser.picture(), after), "nobody moved it"
    assert browser.console == []


@needs_chromium
def test_its_sliders_show_a_step_a_slice_and_an_opacity(opened):
    browser = opened(cube((RED, GREEN), (BLUE, GREEN)))
    picture = browser.picture()
    assert share(picture, RED) > 0.05
    assert share(picture, GREEN) == share(picture, BLUE) == 0
    move(browser, "step", 1)
    picture = browser.picture()
    assert share(picture, BLUE) > 0.05
    assert share(picture, RED) == 0
    move(browser, "D", 4)
    assert share(browser.picture(), GREEN) > 0.01, "the cut shows what is inside"
    move(browser, "D", 8)
    assert share(browser.picture(), BLUE) == 0, "the ball does not reach the last slice"
    assert browser.evaluate("[...document.querySelectorAll('output')].map(o => o.value)") == ["1", "8", "0", "0", "0.1"]


@needs_chromium
def test_it_plays(opened):
    browser = opened(cube((RED, GREEN), (BLUE, GREEN)))
    browser.evaluate("document.getElementById('play').click()")
    browser.wait("document.getElementById('step').value === '1'")
    browser.wait("document.getElementById('step').value === '0'")
    browser.evaluate("document.getElementById('play').click()")
    assert browser.evaluate("document.getElementById('play').textContent") == "Play"


@needs_chromium
def test_what_is_half_transparent_hides_as_its_slider_says(opened):
    browser = opened(cube((RED, GREEN)) * 0.5)
    assert share(browser.picture(), RED) > 0.05
    move(browser, "opacity", 0.6)
    assert share(browser.picture(), RED) == 0


@needs_chromium
def test_the_plane_lies_as_a_picture_does(opened):
    """Rows down, columns right, in its own colors."""
    states = torch.ones(1, 1, 2, 2, 4)
    states[0, 0, 0, 0, :3], states[0, 0, 0, 1, :3], states[0, 0, 1, 0, :3] = torch.tensor([RED, GREEN, BLUE]) / 255
    browser = opened(states)
    picture = browser.picture()
    middles = [np.argwhere((picture == color).all(-1)).mean(0) for color in (RED, GREEN, BLUE)]
    red, green, blue = middles
    assert abs(red[0] - green[0]) < 2 < green[1] - red[1]
    assert abs(red[1] - blue[1]) < 2 < blue[0] - red[0]
    hidden = browser.evaluate("['D', 'H', 'W'].map(name => document.getElementById(name).parentElement.hidden)")
    assert hidden == [True, False, False]


@needs_chromium
def test_a_notebook_shows_it_within_a_frame(tmp_path):
    path = tmp_path / "notebook.html"
    path.write_text(f"<!DOCTYPE html><body>{view.Page(cube((RED, GREEN)))._repr_html_()}</body>")
    with Browser(path) as browser:
        browser.wait("document.querySelector('iframe')?.contentDocument?.body?.dataset.ready === ''")
        assert share(browser.picture(), RED) > 0.02
        assert browser.console == []


@needs_chromium
def test_a_browser_has_nothing_to_complain_of(tmp_path):
    path = tmp_path / "page.html"
    page = view.Page(cube((RED, GREEN)))
    page.save(path)
    text = page.html
    assert path.read_text(encoding="utf-8") == text
    assert not re.search(r'(src|href)="', text), "a page needs nothing from elsewhere"
    spoiled = text.replace("</body>", '<img src="https://example.org/a.png"></body>')
    path.write_text(spoiled, encoding="utf-8")
    _, console = browse(path)
    assert any("Content Security Policy" in line for line in console), "and takes nothing"


def test_a_frame_holds_the_whole_page():
    page = view.Page(cube((RED, GREEN)))
    inside = re.fullmatch(r'<iframe srcdoc="([^"]*)" style="[^"]*"></iframe>', page._repr_html_())
    assert html.unescape(inside[1]) == page.html


def test_states_of_a_batch_are_refused_by_name():
    with pytest.raises(ValueError, match=r"Page: states has shape \(3, 2, 1, 4, 4, 4\); .* trajectory\[:, 0\]"):
        view.Page(torch.zeros(3, 2, 1, 4, 4, 4))

"""For everybody: keyboard, screen reader, contrast, phone width, less motion."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import WAIT_MS, Visit
from tests.browser.test_speak import LONG, TEXT
from tests.serving.live import Live

VIEWS = ("/#speak", "/#race")
SCHEMES = ("light", "dark")

# relative luminance by WCAG 2, of "rgb(...)" or "rgba(...)"; backgrounds are looked for upwards
CONTRAST = """() => {
  const parts = text => text.match(/[\\d.]+/g).map(Number);
  const linear = v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = rgb => [.2126, .7152, .0722].reduce((sum, share, i) => sum + share * linear(rgb[i] / 255), 0);
  const ground = element => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parts(getComputedStyle(at).backgroundColor);
      if (colour.length < 4 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const ratio = (text, element) => {
    const [low, high] = [light(parts(text)), light(ground(element))].sort((one, other) => one - other);
    return (high + .05) / (low + .05);
  };
  const seen = selector => [...document.querySelectorAll(selector)].filter(e => e.checkVisibility() && !e.disabled);
  const texts = seen("body *").filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()));
  const form = e => getComputedStyle(e, "::after");
  return {
    texts: texts.map(e => [e.outerHTML.slice(0, 80), ratio(getComputedStyle(e).color, e)]),
    edges: seen("textarea, select, input[inputmode], button:not(.primary)").map(
      e => [e.id, ratio(getComputedStyle(e).borderTopColor, e.parentElement)]),
    tokens: seen(".legend .token").map(
      e => [e.className, ratio(e.matches(".sampled") ? form(e).borderTopColor : form(e).backgroundColor, e)]),
  };
}"""
ERROR = """text => {
  const error = document.getElementById("error");
  error.hidden = !text;
  error.textContent = text;
}"""
LISTEN = """() => {
  for (const live of document.querySelectorAll("[role=status], [role=alert], [aria-live], output"))
    new MutationObserver(() => tell(live.textContent)).observe(
      live, {childList: true, characterData: true, subtree: true});
}"""
PLACES = """all => all.filter(e => e.checkVisibility()).map(e => ({
  what: e.id || e.className || e.value, kind: e.type || e.tagName, ...e.getBoundingClientRect().toJSON()}))"""
FOCUS = """() => {
  const {id, className, value} = document.activeElement;
  return id || className || value;
}"""


def fill(here: Visit, path: str) -> None:
    """Something to look at in either view."""
    if path == "/#speak":
        here.speak(TEXT)
    else:
        here.page.get_by_role("button", name="Race").click()
        expect(here.page.locator("#race-status")).to_contain_text("Done", timeout=2 * WAIT_MS)


@pytest.mark.parametrize("path", VIEWS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_axe_finds_nothing(path: str, scheme: str, visit: Callable[..., Visit], server: Live) -> None:
    here = visit(server, path, color_scheme=scheme)
    fill(here, path)
    here.page.keyboard.press("Escape")  # nothing moves
    here.page.wait_for_timeout(300)
    here.page.evaluate(Path(os.environ["AXE"]).read_text(encoding="utf-8"))
    found = here.page.evaluate("() => axe.run(document, {resultTypes: ['violations', 'incomplete']})")
    assert len(found["passes"]) > 20
    assert [(rule["id"], [node["html"][:120] for node in rule["nodes"]]) for rule in found["violations"]] == []
    here.shot(f"{path[2:]}-{scheme}")


@pytest.mark.parametrize("path", VIEWS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_contrast(path: str, scheme: str, visit: Callable[..., Visit], server: Live) -> None:
    here = visit(server, path, color_scheme=scheme)
    fill(here, path)
    here.page.evaluate(ERROR, "wrong")
    found: dict[str, list[tuple[str, float]]] = here.page.evaluate(CONTRAST)
    assert len(found["texts"]) > 20
    assert [text for text in found["texts"] if text[1] < 4.5] == []
    assert found["edges"]
    assert [edge for edge in found["edges"] if edge[1] < 3] == []
    assert [token for token in found["tokens"] if token[1] < 3] == []
    assert len(found["tokens"]) == (4 if path == "/#speak" else 0)


def test_names_and_roles(visit: Callable[..., Visit], server: Live) -> None:
    here = visit(server)
    page = here.page
    assert page.locator("html").get_attribute("lang") == "en"
    expect(page).to_have_title("spear_spec: speak")
    for landmark in ("main", "navigation", "banner", "contentinfo"):
        expect(page.get_by_role(landmark)).to_have_count(1)  # type: ignore[arg-type]
    expect(page.get_by_role("heading", level=1)).to_have_text("Speech that runs ahead of itself")
    expect(page.get_by_role("slider", name="Speed", exact=True)).to_be_visible()
    ids = page.locator("[id]").evaluate_all("all => all.map(element => element.id)")
    assert len(ids) == len(set(ids))
    here.speak("Hello there.")
    figure = page.get_by_role("img", name="Spectrogram and tokens of sentence 1")
    name = figure.get_attribute("aria-label") or ""
    counts = {kind: page.locator(f".score .token.{kind}").count() for kind in ("accepted", "recovered", "bonus")}
    for kind, count in counts.items():
        assert (f"{count} {kind}" in name) == (count > 0)
    page.get_by_role("link", name="Race").click()
    expect(page).to_have_title("spear_spec: race")
    expect(page.get_by_role("heading", level=1)).to_have_text("Race the drafters")
    expect(page.get_by_role("link", name="Race")).to_have_attribute("aria-current", "page")
    expect(page.get_by_role("group", name="Drafters")).to_be_visible()


def test_what_changes_is_told_and_not_too_often(visit: Callable[..., Visit], server: Live) -> None:
    here = visit(server)
    told: list[str] = []
    here.page.expose_function("tell", lambda text: told.append(text))
    here.page.evaluate(LISTEN)
    here.speak(TEXT)
    here.page.wait_for_timeout(200)
    assert next(text for text in told if text) == "Speaking …"
    assert len(told) <= 3  # not a word for every token
    assert told[-1].startswith("Done: ")


def focus(here: Visit) -> str:
    name: str = here.page.evaluate(FOCUS)
    return name


def test_the_keyboard_alone(visit: Callable[..., Visit], server: Live) -> None:
    here = visit(server)
    page = here.page
    order = []
    for _ in range(8):
        page.keyboard.press("Tab")
        order.append(focus(here))
        ring = page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle")
        assert ring == "solid"  # it is seen where one is
    assert order == ["skip", "to-speak", "to-race", "text", "voice", "speed", "seed", "go"]
    page.get_by_role("textbox", name="Text").focus()
    page.keyboard.press("Control+A")
    page.keyboard.type("Only keys.")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#status")).to_contain_text("Done", timeout=WAIT_MS)
    expect(page.locator(".words")).to_have_text("Only keys.")
    expect(page.get_by_role("textbox", name="Text")).to_be_focused()
    page.keyboard.press("Control+A")
    page.keyboard.insert_text(LONG)
    page.keyboard.press("Control+Enter")
    expect(page.locator(".score .token").first).to_be_attached(timeout=WAIT_MS)
    page.keyboard.press("Escape")
    expect(page.locator("#status")).to_have_text("Stopped.")
    page.get_by_role("link", name="Race").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()
    page.keyboard.press("Tab")
    assert focus(here) == "race-text"
    page.keyboard.press("Tab")
    checked = page.evaluate("() => document.activeElement.checked")
    page.keyboard.press("Space")
    assert page.evaluate("() => document.activeElement.checked") is not checked


def test_the_skip_link(visit: Callable[..., Visit], server: Live) -> None:
    here = visit(server)
    link = here.page.get_by_role("link", name="Skip to the content")
    here.page.get_by_role("link", name="Race").click()
    expect(link).not_to_be_in_viewport()
    link.focus()
    expect(link).to_be_in_viewport()
    here.page.keyboard.press("Enter")
    expect(here.page.get_by_role("main")).to_be_focused()
    expect(here.page.locator("#race")).to_be_visible()  # the view stays


@pytest.mark.parametrize("path", VIEWS)
def test_a_phone(path: str, visit: Callable[..., Visit], server: Live) -> None:
    here = visit(server, path, viewport={"width": 360, "height": 780}, device_scale_factor=2, has_touch=True)
    fill(here, path)
    here.page.evaluate(ERROR, "x" * 200)
    assert here.page.evaluate("() => document.documentElement.scrollWidth") == 360
    places: list[dict[str, Any]] = here.page.locator("a[href], button, input, select, textarea, canvas").evaluate_all(
        PLACES
    )
    assert len(places) > 8
    for place in places:
        if place["what"] != "skip":
            assert place["left"] >= 0 and place["right"] <= 360, place
        if place["kind"] in ("button", "submit", "select-one", "textarea", "text", "range"):
            assert place["height"] >= 44, place
    here.page.evaluate(ERROR, "")
    here.shot(f"{path[2:]}-phone")


def test_less_motion(visit: Callable[..., Visit], server: Live) -> None:
    here = visit(server, reduced_motion="reduce")
    here.page.get_by_role("button", name="Speak", exact=True).click()
    expect(here.page.locator(".playhead")).to_be_attached(timeout=WAIT_MS)
    expect(here.page.locator(".playhead")).to_be_hidden()
    assert here.page.evaluate("() => document.getAnimations().length") == 0


def test_text_at_twice_the_size(visit: Callable[..., Visit], server: Live) -> None:
    """320 CSS pixels: what a window of 1280 is at 400 %."""
    here = visit(server, viewport={"width": 320, "height": 600})
    here.speak("Hello there.")
    assert here.page.evaluate("() => document.documentElement.scrollWidth") == 320

"""The shipped voice behind the real server, and Chromium in front of it. `make test-browser` runs these."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

import spear_spec
from spear_spec.serving.scheduler import Scheduler, for_serving
from tests.serving.live import Live, live

ARTEFACTS = Path(__file__).parent / "artefacts"
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
AXE = os.environ.get("AXE")
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WAIT_MS = 60_000  # for what needs the voice: a busy machine is no fault

# what the page asks of Web Audio, written down as it happens
EARS = """
window.heard = [];
const start = AudioBufferSourceNode.prototype.start;
AudioBufferSourceNode.prototype.start = function (when) {
  const {currentTime, sampleRate} = this.context;
  heard.push({when, now: currentTime, rate: sampleRate, samples: Array.from(this.buffer.getChannelData(0))});
  return start.call(this, when);
};
window.contexts = [];
const Real = AudioContext;
window.AudioContext = class extends Real {
  constructor(options) { super(options); contexts.push(this); }
};
"""


@pytest.fixture(scope="session")
def tts() -> spear_spec.TTS:
    tts = for_serving(spear_spec.TTS.load(threads=1))
    tts.texts(["What reads texts is warm."])
    return tts


@pytest.fixture(scope="session")
def server(tts: spear_spec.TTS) -> Iterator[Live]:
    scheduler = Scheduler(tts)
    try:
        with live(scheduler) as server:
            yield server
    finally:
        scheduler.close()


@pytest.fixture(scope="session")
def closed_server(tts: spear_spec.TTS) -> Iterator[Live]:
    """One that asks for a key."""
    scheduler = Scheduler(tts)
    try:
        with live(scheduler, keys=("open sesame",)) as server:
            yield server
    finally:
        scheduler.close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None or AXE is None:
        pytest.exit("run `make test-browser`: it says where Chromium and axe-core are (apt-get install chromium)", 2)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield browser
        browser.close()


@dataclass
class Visit:
    """A page that is open, and what happened on it."""

    page: Page
    url: str
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def shot(self, name: str) -> None:
        """Keep a picture."""
        ARTEFACTS.mkdir(exist_ok=True)
        self.page.screenshot(path=ARTEFACTS / f"{name}.png", full_page=True)

    def speak(self, text: str | None = None, seed: int | None = 3) -> None:
        """Have something said, to the end."""
        if text is not None:
            self.page.get_by_role("textbox", name="Text").fill(text)
        self.page.get_by_role("textbox", name="Seed").fill("" if seed is None else str(seed))
        self.page.get_by_role("button", name="Speak", exact=True).click()
        expect(self.page.locator("#status")).to_contain_text("Done", timeout=WAIT_MS)


@pytest.fixture
def visit(browser: Browser) -> Iterator[Any]:
    """visit(server, path="/", **context): opens the page; whatever a browser complains of fails the test."""
    opened: list[tuple[BrowserContext, Visit]] = []

    def go(server: Live, path: str = "/", *, ready: bool = True, **options: Any) -> Visit:
        context = browser.new_context(**{"viewport": {"width": 1180, "height": 900}, **options})
        context.add_init_script(EARS)
        page = context.new_page()
        visit = Visit(page, server.url)
        opened.append((context, visit))
        page.on("request", lambda request: visit.requests.append(request.url))
        page.on("pageerror", lambda error: visit.complaints.append(str(error)))
        page.on("console", lambda line: line.type in ("error", "warning") and visit.complaints.append(line.text))
        page.goto(server.url + path)
        if ready:
            expect(page.locator("#voice option").first).to_be_attached(timeout=WAIT_MS)
        return visit

    yield go
    for context, visit in opened:
        context.close()
        assert visit.complaints == []
        assert [url for url in visit.requests if not url.startswith((visit.url + "/", "blob:"))] == []

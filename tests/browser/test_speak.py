"""What is seen and heard of a speech is what the server said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
from playwright.sync_api import Route, expect

import spear_spec
from spear_spec.audio import to_int16
from tests.browser.conftest import WAIT_MS, Visit
from tests.serving.live import Live, until
from tests.serving.test_playground import parsed

TEXT = "The quick brown fox jumps over the lazy dog. Nobody asked it to, but there it goes again."
LONG = " ".join(f"This is sentence number {number} of a long text that somebody stops." for number in range(20))


def told(server: Live, **body: Any) -> list[tuple[str, Any]]:
    answer = httpx.post(f"{server.url}/playground/speak", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return parsed(answer.text)


SHOWN = """sentences => sentences.map(sentence => [...sentence.querySelectorAll(".token")].map(token => {
  const kinds = ["accepted", "recovered", "bonus", "sampled"].filter(kind => token.classList.contains(kind));
  return [Number(token.dataset.id), kinds.join(" "), token.classList.contains("opens")];
}))"""
AGAIN = """() => {
  document.getElementById("again").click();
  return document.getElementById("stop").disabled;
}"""
PAINTED = """all => all.map(canvas => {
  const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return new Set(data).size;
})"""


def shown(visit: Visit) -> list[list[tuple[int, str, bool]]]:
    """Each sentence's tokens as they stand there: id, kind, whether a call begins."""
    return [[tuple(token) for token in one] for one in visit.page.locator(".sentence").evaluate_all(SHOWN)]


def expected(events: list[tuple[str, Any]]) -> list[list[tuple[int, str, bool]]]:
    """The same of the server's events."""
    sentences: dict[int, list[tuple[int, str, bool]]] = {}
    for name, data in events:
        if name == "tokens":
            tokens = zip(data["ids"], data["kinds"])
            sentences.setdefault(data["sentence"], []).extend((*token, at == 0) for at, token in enumerate(tokens))
    return [sentences[index] for index in sorted(sentences)]


def test_tokens_and_figures_are_the_server_s(visit: Callable[..., Visit], server: Live) -> None:
    here = visit(server)
    here.speak(TEXT, seed=3)
    events = told(server, input=TEXT, seed=3)
    assert shown(here) == expected(events)
    kinds = {kind for sentence in shown(here) for _, kind, _ in sentence}
    assert {"accepted", "recovered", "bonus"} <= kinds
    usage = events[-1][1]["usage"]
    assert here.page.locator("#f-tokens").inner_text() == str(usage["tokens"])
    assert here.page.locator("#f-calls").inner_text() == str(usage["target_calls"])
    assert here.page.locator("#f-per-call").inner_text() == f"{usage['tokens'] / usage['target_calls']:.1f}"
    assert here.page.locator("#f-sound").inner_text() == f"{usage['audio_s']:.1f} s"
    assert "seed 3" in here.page.locator("#status").inner_text()
    assert here.page.locator(".words").all_inner_texts() == [
        "The quick brown fox jumps over the lazy dog.",
        "Nobody asked it to, but there it goes again.",
    ]
    colours = here.page.evaluate(
        """() => ["accepted", "recovered", "bonus"].map(kind => {
             const form = getComputedStyle(document.querySelector(`.score .token.${kind}`), "::after");
             return [form.backgroundColor, form.clipPath, form.borderRadius];
           })"""
    )
    for at in range(3):  # green, red, blue; and the forms differ as well
        red, green, blue = (int(part) for part in colours[at][0].removeprefix("rgb(").removesuffix(")").split(","))
        assert max((green, 0), (red, 1), (blue, 2))[1] == at
    assert len({tuple(form) for _, *form in colours}) == 3
    here.shot("speak")


def test_what_plays_is_the_sound_of_the_api(visit: Callable[..., Visit], server: Live) -> None:
    here = visit(server)
    here.speak(TEXT, seed=2**63)
    body = {"input": TEXT, "response_format": "pcm", "seed": 2**63}
    pcm = np.frombuffer(httpx.post(f"{server.url}/v1/audio/speech", json=body, timeout=60).content, "<i2")
    heard = here.page.evaluate("() => heard")
    samples = np.concatenate([np.array(piece["samples"], np.float32) for piece in heard])
    np.testing.assert_array_equal(np.rint(samples * 32768).astype(np.int16), pcm)
    assert {piece["rate"] for piece in heard} == {24_000}  # nothing is resampled
    ends = 0
    for at, piece in enumerate(heard):
        begins = round(piece["when"] * 24_000)
        assert begins >= piece["now"] * 24_000
        # on the very sample where the one before ends, unless that is over already
        assert begins == ends or at == 0 or ends < piece["now"] * 24_000
        ends = begins + len(piece["samples"])
    expect(here.page.get_by_role("button", name="Stop")).to_be_disabled(timeout=WAIT_MS)  # it has been played
    [context] = here.page.evaluate("() => contexts.map(({currentTime, state}) => ({currentTime, state}))")
    assert context["state"] == "running"
    assert context["currentTime"] * 24_000 >= ends


def test_the_line_follows_what_is_heard(visit: Callable[..., Visit], server: Live) -> None:
    here = visit(server)
    here.speak(TEXT)
    line = here.page.locator(".playhead")
    places = []
    while line.count():  # until all is heard
        place = here.page.evaluate(
            """() => { const line = document.querySelector(".playhead");
                       if (!line) return null;
                       const staves = [...document.querySelectorAll(".stave")];
                       return [staves.indexOf(line.parentElement), new DOMMatrix(line.style.transform).m41]; }"""
        )
        if place:
            places.append(tuple(place))
        here.page.wait_for_timeout(50)
    assert places == sorted(places)
    assert {stave for stave, _ in places} == {0, 1}


def test_again_and_download(visit: Callable[..., Visit], server: Live, tmp_path: Path) -> None:
    here = visit(server)
    here.speak("Hello there.", seed=9)
    with here.page.expect_download() as waiting:
        here.page.get_by_role("button", name="Download wav").click()
    assert waiting.value.suggested_filename == "speech-9.wav"
    waiting.value.save_as(tmp_path / "speech.wav")
    samples, rate = soundfile.read(tmp_path / "speech.wav", dtype="int16")
    body = {"input": "Hello there.", "response_format": "pcm", "seed": 9}
    pcm = np.frombuffer(httpx.post(f"{server.url}/v1/audio/speech", json=body, timeout=60).content, "<i2")
    assert rate == 24_000
    np.testing.assert_array_equal(samples, pcm)
    before = here.page.evaluate("() => heard.map(({samples}) => samples)")
    stop = here.page.evaluate(
        "() => (document.getElementById('again').click(), document.getElementById('stop').disabled)"
    )
    assert stop is False
    assert here.page.evaluate("() => heard.map(({samples}) => samples)") == before + before


def test_a_faster_reading_stays_above_its_tokens(visit: Callable[..., Visit], server: Live) -> None:
    here = visit(server)
    here.page.get_by_role("slider", name="Speed").fill("1.5")
    here.speak("She sells sea shells.", seed=9)
    body = {"input": "She sells sea shells.", "response_format": "pcm", "seed": 9, "speed": 1.5}
    pcm = httpx.post(f"{server.url}/v1/audio/speech", json=body, timeout=60).content
    samples = [piece["samples"] for piece in here.page.evaluate("() => heard")]
    assert np.rint(np.concatenate(samples) * 32768).astype("<i2").tobytes() == pcm
    tokens = here.page.locator(".score .token").count()
    assert abs(len(pcm) / 2 - tokens * 960 / 1.5) < 2 * 960
    width = here.page.locator(".stave").evaluate("stave => stave.getBoundingClientRect().width")
    assert tokens - 1 <= width / 10 <= tokens + 2  # each token has its width of spectrogram, whatever the speed
    expect(here.page.locator("#speed-out")).to_have_text("1.50")


def test_what_is_chosen_is_asked_for(visit: Callable[..., Visit], server: Live) -> None:
    here = visit(server)
    sent = []

    def answer(route: Route) -> None:
        sent.append(json.loads(route.request.post_data or ""))
        route.fulfill(status=400, json={"error": {"message": "not today"}})

    here.page.route("**/playground/speak", answer)
    here.page.get_by_role("textbox", name="Text").fill("Grüße, <b>world</b>")
    here.page.get_by_role("combobox", name="Voice").select_option("am_michael")
    here.page.get_by_role("slider", name="Speed").fill("1.25")
    here.page.get_by_role("textbox", name="Seed").fill("18446744073709551615")  # more than a number of JavaScript holds
    here.page.get_by_role("button", name="Speak", exact=True).click()
    expect(here.page.get_by_role("alert")).to_have_text("not today")
    assert sent == [
        {"input": "Grüße, <b>world</b>", "voice": "am_michael", "speed": 1.25, "seed": "18446744073709551615"}
    ]
    here.complaints.clear()  # of a browser that was refused


def test_stop_frees_the_server_at_once(visit: Callable[..., Visit], server: Live) -> None:
    here = visit(server)
    here.page.get_by_role("textbox", name="Text").fill(LONG)
    here.page.get_by_role("button", name="Speak", exact=True).click()
    expect(here.page.locator(".token.accepted").nth(8)).to_be_attached(timeout=WAIT_MS)
    totals = server.scheduler.state().totals
    here.page.get_by_role("button", name="Stop").click()
    expect(here.page.locator("#status")).to_have_text("Stopped.")
    until(lambda: not server.scheduler.state().rows and not server.scheduler.state().streams)
    assert server.scheduler.state().totals.cancelled == totals.cancelled + 1
    assert here.page.evaluate("() => contexts.map(({state}) => state)") == ["closed"]  # it is silent
    assert here.page.locator(".sentence").count() < 20
    expect(here.page.get_by_role("button", name="Speak", exact=True)).to_be_focused()
    here.speak("And on it goes.")
    assert here.page.locator(".words").all_inner_texts() == ["And on it goes."]


def test_a_tab_that_is_closed_frees_the_server(visit: Callable[..., Visit], server: Live) -> None:
    here = visit(server)
    here.page.get_by_role("textbox", name="Text").fill(LONG)
    here.page.get_by_role("button", name="Speak", exact=True).click()
    expect(here.page.locator(".score .token").first).to_be_attached(timeout=WAIT_MS)
    here.page.close()
    until(lambda: not server.scheduler.state().streams)


def test_a_text_is_never_markup(visit: Callable[..., Visit], server: Live) -> None:
    here = visit(server)
    text = "I say <img src=x onerror=alert(1)> and <b>leave</b> & go."
    sound = {"sentence": 0, "text": text, "ended": text, "pcm": ""}
    body = "".join(
        f"event: {name}\ndata: {json.dumps(data)}\n\n"
        for name, data in (("start", {"seed": text}), ("sound", sound), ("done", {"usage": {}}))
    )
    here.page.route("**/playground/speak", lambda route: route.fulfill(status=200, body=body))
    here.speak()
    assert here.page.locator(".words").inner_text() == text
    assert text in here.page.locator("#status").inner_text()
    assert here.page.locator("main img, main b").count() == 0


FULL = {"status": 429, "headers": {"Retry-After": "4"}, "json": {"error": {"message": "full"}}}
CUT = {"status": 200, "body": 'event: start\ndata: {"seed":"1"}\n\n'}
BROKE = {"status": 200, "body": 'event: error\ndata: {"error":{"message":"<b>broke</b>"}}\n\n'}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (FULL, "full Try again in 4 s."),
        ({"status": 500, "body": "no json"}, "The server answered 500."),
        (CUT, "The connection ended before the answer did."),
        (BROKE, "<b>broke</b>"),
        (None, "The server cannot be reached."),
    ],
)
def test_errors_are_told(answer: dict[str, Any] | None, said: str, visit: Callable[..., Visit], server: Live) -> None:
    here = visit(server)
    here.page.route("**/playground/speak", lambda route: route.abort() if answer is None else route.fulfill(**answer))
    here.page.get_by_role("button", name="Speak", exact=True).click()
    expect(here.page.get_by_role("alert")).to_have_text(said)
    expect(here.page.get_by_role("button", name="Stop")).to_be_disabled()
    here.complaints.clear()
    here.page.unroute("**/playground/speak")
    here.speak("Better.")
    expect(here.page.locator("#error")).to_be_hidden()


def test_a_text_of_nothing_is_refused_by_the_server(visit: Callable[..., Visit], server: Live) -> None:
    here = visit(server)
    here.page.get_by_role("textbox", name="Text").fill("   ")
    here.page.get_by_role("button", name="Speak", exact=True).click()
    expect(here.page.get_by_role("alert")).to_be_visible()
    answer = httpx.post(f"{server.url}/playground/speak", json={"input": "   "})
    assert here.page.get_by_role("alert").inner_text() in answer.text
    here.complaints.clear()


def test_a_key_is_asked_for_and_kept_in_the_tab(visit: Callable[..., Visit], closed_server: Live) -> None:
    here = visit(closed_server, ready=False)
    dialog = here.page.get_by_role("dialog", name="This server asks for a key")
    for key in ("wrong", "open sesame"):
        expect(dialog).to_be_visible()
        expect(dialog.get_by_label("Key")).to_be_focused()
        dialog.get_by_label("Key").fill(key)
        dialog.get_by_label("Key").press("Enter")
    expect(here.page.locator("#voice option").first).to_be_attached(timeout=WAIT_MS)
    expect(dialog).to_be_hidden()
    here.speak("It is open.")
    assert here.page.evaluate("() => [localStorage.length, document.cookie]") == [0, ""]
    assert here.page.evaluate("() => Object.values({...sessionStorage})") == ["open sesame"]
    here.page.reload()
    expect(here.page.locator("#voice option").first).to_be_attached(timeout=WAIT_MS)
    here.page.get_by_role("button", name="Forget the key").click()
    expect(dialog).to_be_visible()
    assert here.page.evaluate("() => sessionStorage.length") == 0
    dialog.get_by_role("button", name="Not now").click()
    expect(here.page.get_by_role("alert")).to_contain_text("key")
    here.complaints.clear()


def test_the_spectrogram_is_one(visit: Callable[..., Visit], server: Live, tts: spear_spec.TTS) -> None:
    """Columns of the page's own transform against numpy's, however the sound is cut into pieces."""
    here = visit(server)
    sound = to_int16(tts.synthesize("She sells sea shells.", seed=1).samples).astype(np.float32)[:24_000] / 32768
    columns = here.page.evaluate(
        """async sound => {
             const {Spectrum} = await import("/playground/spectrum.js");
             const samples = Float32Array.from(sound), of = cuts => {
               const spectrum = new Spectrum(24000, 96);
               let from = 0;
               for (const cut of cuts) { spectrum.push(samples.subarray(from, cut)); from = cut; }
               spectrum.push(samples.subarray(from), true);
               return spectrum.columns.map(column => [...column]);
             };
             return [of([]), of([1, 500, 501, 9000, 30000])];
           }""",
        sound.tolist(),
    )
    assert columns[0] == columns[1]
    found = np.array(columns[0])
    centres = np.floor((np.arange(len(found)) + 0.5) * 96 + 0.5).astype(int)
    assert len(found) == len(sound) // 96
    padded = np.concatenate([np.zeros(360), sound, np.zeros(720)])
    window = np.sin(np.pi * (np.arange(720) + 0.5) / 720) ** 2
    power = np.abs(np.fft.rfft(np.stack([padded[at : at + 720] * window for at in centres]), 1024)) ** 2
    edges = (
        700
        * (10 ** (np.linspace(*(2595 * np.log10(1 + np.array([50, 10_000]) / 700)), 114) / 2595) - 1)
        * 1024
        / 24_000
    )
    for band, (low, at, high) in enumerate(zip(edges, edges[1:], edges[2:])):
        between = range(int(np.ceil((low + at) / 2)), int((at + high) / 2) + 1)
        if high - low < 2 or not between:  # narrower than the bins are apart
            below = int(at)
            strongest = power[:, below] + (power[:, below + 1] - power[:, below]) * (at - below)
        else:
            strongest = power[:, between].max(1)
        level = np.clip(255 * (10 * np.log10(strongest / 180**2 + 1e-12) + 78) / 60, 0, 255)
        assert np.abs(found[:, band] - level).max() < 1


def test_another_width_lays_it_out_anew(visit: Callable[..., Visit], server: Live) -> None:
    here = visit(server)
    here.speak(TEXT)
    before, lines = shown(here), here.page.locator(".stave").count()
    here.page.set_viewport_size({"width": 500, "height": 800})
    expect(here.page.locator(".stave")).not_to_have_count(lines)
    assert shown(here) == before
    painted = here.page.locator(".stave canvas").evaluate_all(PAINTED)
    assert min(painted) > 20

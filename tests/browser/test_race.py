"""The second view: every drafter of the voice runs, and what is shown is what the server measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from playwright.sync_api import Route, expect

import spear_spec
from spear_spec.serving.race import contestants
from tests.browser.conftest import WAIT_MS, Visit
from tests.serving.live import Live, until

TEXT = "She sells sea shells."
LONG = " ".join([TEXT] * 16)  # 400 characters are the most


KEEP = """() => {
  const real = fetch;
  window.fetch = async (...what) => {
    const answer = await real(...what);
    answer.clone().text().then(text => { window.answer = text; });
    return answer;
  };
}"""


def race(here: Visit, *drafters: str, text: str = TEXT) -> None:
    """Choose these and start."""
    for box in here.page.get_by_role("checkbox").all():
        box.set_checked(not drafters or box.get_attribute("value") in drafters)
    here.page.get_by_role("textbox", name="Text").fill(text)
    here.page.get_by_role("button", name="Race").click()


def lanes(here: Visit) -> list[dict[str, Any]]:
    """What stands in each lane."""
    found: list[dict[str, Any]] = here.page.locator(".lane").evaluate_all(
        """lanes => lanes.map(lane => ({
             name: lane.querySelector("h2").textContent,
             ended: "ended" in lane.dataset,
             waiting: lane.classList.contains("waiting"),
             numbers: [...lane.querySelectorAll(".number")].map(number => Number(number.textContent)),
             bars: [...lane.querySelectorAll(".bar span")].map(bar => new DOMMatrix(bar.style.transform).m11),
             told: lane.querySelector("canvas").getAttribute("aria-label"),
           }))"""
    )
    return found


def measured(lap: dict[str, Any]) -> tuple[float, float]:
    """Tokens a second and tokens a call."""
    return lap["tokens_timed"] / lap["seconds"], lap["tokens"] / lap["target_calls"]


def test_all_drafters_race(visit: Callable[..., Visit], server: Live, tts: spear_spec.TTS) -> None:
    here = visit(server, "/#race")
    laps: dict[str, dict[str, Any]] = {}
    here.page.evaluate(KEEP)
    race(here)
    expect(here.page.locator("#race-status")).to_contain_text("Done", timeout=4 * WAIT_MS)
    for block in here.page.evaluate("() => answer").split("\n\n"):
        if block.startswith("event: lap"):
            lap = json.loads(block.split("data: ")[1])
            laps[lap["drafter"]] = lap  # the last one stays
    names = [racer["name"] for racer in contestants(tts)]
    found = lanes(here)
    assert [lane["name"] for lane in found] == names == list(laps)
    assert len(names) > 8
    for lane in found:
        lap = laps[lane["name"]]
        assert lane["ended"] and not lane["waiting"]
        speed, per_call = measured(lap)
        assert lane["numbers"] == [round(speed), round(per_call, 2)]
        assert f"{lap['tokens']} tokens in {lap['target_calls']} calls" in lane["told"]
    assert found[0]["numbers"][1] == 1.0  # nobody drafts
    for at in (0, 1):
        most = max(measured(lap)[at] for lap in laps.values())
        for lane in found:
            assert abs(lane["bars"][at] - measured(laps[lane["name"]])[at] / most) < 1e-4
    here.shot("race")


def test_a_race_is_stopped(visit: Callable[..., Visit], server: Live) -> None:
    here = visit(server, "/#race")
    server.scheduler.state()
    race(here, "none", "eagle", text=LONG)
    expect(here.page.locator("#race-status")).to_contain_text("runs", timeout=WAIT_MS)
    here.page.get_by_role("button", name="Stop").click()
    expect(here.page.locator("#race-status")).to_have_text("Stopped.")
    expect(here.page.get_by_role("button", name="Race")).to_be_focused()

    def free() -> bool:  # another one can begin
        race(here, "none")
        expect(here.page.locator("#race-status, #error").filter(has_text="one race").or_(
            here.page.locator("#race-status").filter(has_text="Done"))).to_be_visible(timeout=WAIT_MS)  # fmt: skip
        return "Done" in here.page.locator("#race-status").inner_text()

    until(free, 60)
    here.complaints.clear()  # it may have been refused at first
    assert [lane["name"] for lane in lanes(here)] == ["none"]


def test_a_race_waits_for_those_who_listen(visit: Callable[..., Visit], server: Live) -> None:
    here = visit(server, "/#race")
    body = (
        'event: start\ndata: {}\n\nevent: waiting\ndata: {}\n\nevent: error\ndata: {"error":{"message":"too busy"}}\n\n'
    )
    here.page.route("**/playground/race", lambda route: route.fulfill(status=200, body=body))
    told: list[str] = []
    here.page.expose_function("tell", lambda text: told.append(text))
    here.page.evaluate(
        """() => new MutationObserver(() => tell(document.getElementById("race-status").textContent))
                   .observe(document.getElementById("race-status"), {childList: true})"""
    )
    race(here, "none")
    expect(here.page.get_by_role("alert")).to_have_text("too busy")
    until(lambda: here.page.wait_for_timeout(10) or "Somebody listens: the race waits …" in told)


def test_what_is_chosen_races(visit: Callable[..., Visit], server: Live) -> None:
    here = visit(server, "/#race")
    sent = []

    def answer(route: Route) -> None:
        sent.append(json.loads(route.request.post_data or ""))
        route.fulfill(status=200, body="event: done\ndata: {}\n\n")

    here.page.route("**/playground/race", answer)
    for box in here.page.get_by_role("checkbox").all():
        box.set_checked(False)
    here.page.get_by_role("button", name="Race").click()
    expect(here.page.get_by_role("alert")).to_have_text("Choose at least one drafter.")
    assert not sent
    race(here, "eagle", "none")
    expect(here.page.locator("#race-status")).to_contain_text("Done")
    assert sent == [{"input": TEXT, "drafters": ["none", "eagle"]}]
    expect(here.page.locator("#error")).to_be_hidden()

// The second view: the same text by several drafters, one after the other.

import { colour, find, make, tell, write } from "./dom.js";
import { run } from "./run.js";

export class Race {
  constructor(refused) {
    this.refused = refused;
    this.lanes = new Map();
    find("race-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.go();
    });
    find("race-stop").addEventListener("click", () => this.stop());
    find("race-text").addEventListener("input", () => this.count());
    new ResizeObserver(() => this.draw()).observe(find("lanes"));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    this.count();
  }

  /** The voice is known. */
  ready(voice) {
    this.voice = voice;
    const wanted = new Set(voice.race.usual);
    find("drafters").replaceChildren(
      ...voice.race.drafters.map(({ name, about }) => {
        const box = make("input", { type: "checkbox", name: "drafter", value: name });
        box.checked = wanted.has(name);
        return make("label", { title: about }, box, name);
      }),
    );
    this.count();
  }

  count() {
    const most = this.voice?.race.characters;
    const length = [...find("race-text").value].length;
    write(find("race-count"), most ? `${length} of at most ${most} characters` : `${length} characters`);
  }

  async go() {
    if (!this.voice || this.running) return;
    const drafters = [...document.querySelectorAll("#drafters input:checked")].map((box) => box.value);
    tell(drafters.length ? "" : "Choose at least one drafter.");
    if (!drafters.length) return;
    this.running = new AbortController();
    this.lanes.clear();
    find("lanes").replaceChildren();
    find("columns").hidden = false;
    for (const name of drafters) this.lane(name);
    this.buttons();
    write(find("race-status"), "Racing …");
    const body = { input: find("race-text").value, drafters };
    await run(this, "playground/race", body, "race-status", { done: () => write(find("race-status"), this.summary()) });
  }

  lane(name) {
    const about = this.voice.race.drafters.find((drafter) => drafter.name === name)?.about ?? "";
    const canvas = make("canvas", { role: "img", "aria-label": `${name}: has not run yet` });
    const hint = make("p", { class: "hint" }, about);
    const gauge = (kind, label) => {
      const fill = make("span");
      const number = make("span", { class: "number" }, "–");
      const row = make("div", { class: `gauge ${kind}` }, make("span", {}, label), make("div", { class: "bar", "aria-hidden": "true" }, fill), number);
      return { row, fill, number, value: 0 };
    };
    const speed = gauge("speed", "tokens a second");
    const perCall = gauge("per-call", "tokens a call");
    const element = make("li", { class: "lane waiting", "data-drafter": name }, make("h2", {}, name), hint, speed.row, perCall.row, canvas);
    find("lanes").append(element);
    this.lanes.set(name, { name, element, canvas, hint, about, speed, perCall, calls: [], tokens: 0 });
  }

  take(name, data) {
    if (name === "waiting") write(find("race-status"), "Somebody listens: the race waits …");
    if (name !== "lap") return;
    const lane = this.lanes.get(data.drafter);
    if (!lane) return;
    write(find("race-status"), `${data.drafter} runs …`);
    lane.element.classList.remove("waiting");
    lane.tokens = data.tokens;
    lane.calls.push(...data.calls);
    lane.speed.value = data.seconds > 0 ? data.tokens_timed / data.seconds : 0;
    lane.perCall.value = data.target_calls ? data.tokens / data.target_calls : 0;
    if (data.rule) write(lane.hint, data.gamma ? `${lane.about}; at most ${data.gamma} ahead, rule ${data.rule}${data.lossless ? "" : " (lossy)"}` : lane.about);
    write(lane.speed.number, lane.speed.value ? lane.speed.value.toFixed(0) : "–");
    write(lane.perCall.number, lane.perCall.value.toFixed(2));
    if (data.ended) {
      lane.element.dataset.ended = "";
      const told = `${data.tokens} tokens in ${data.target_calls} calls`;
      lane.canvas.setAttribute("aria-label", `${lane.name}: ${told}; a column is a call, as high as the tokens that it kept`);
      write(lane.hint, `${lane.hint.textContent}. ${told}.`);
    }
    this.draw();
  }

  summary() {
    const order = [...this.lanes.values()].sort((a, b) => b.speed.value - a.speed.value);
    const told = order.map(({ name, speed, perCall }) => `${name} ${speed.value.toFixed(0)} tokens a second, ${perCall.value.toFixed(1)} a call`);
    return `Done. ${told.join("; ")}.`;
  }

  /** Bars and columns, all to the same scales. */
  draw() {
    const lanes = [...this.lanes.values()];
    for (const gauge of ["speed", "perCall"]) {
      const most = Math.max(...lanes.map((lane) => lane[gauge].value), 1e-9);
      for (const lane of lanes) lane[gauge].fill.style.transform = `scaleX(${lane[gauge].value / most})`;
    }
    const calls = Math.max(...lanes.map((lane) => lane.calls.length), 40);
    const high = Math.max(...lanes.flatMap((lane) => lane.calls.map(([accepted, last]) => accepted + (last ? 1 : 0))), 4);
    const inks = Object.fromEntries(["accepted", "recovered", "bonus", "sampled"].map((kind) => [kind, `rgb(${colour(`--${kind}`)})`]));
    for (const { canvas, calls: columns } of lanes) {
      const scale = devicePixelRatio || 1;
      const [width, height] = [canvas.clientWidth * scale, canvas.clientHeight * scale].map(Math.round);
      if (!width) continue;
      [canvas.width, canvas.height] = [width, height];
      const paper = canvas.getContext("2d");
      const step = Math.min(width / calls, 8 * scale);
      const unit = height / high;
      const bar = Math.max(step * 0.75, 1);
      columns.forEach(([accepted, last], at) => {
        const x = at * step;
        paper.fillStyle = inks.accepted;
        paper.fillRect(x, height - accepted * unit, bar, accepted * unit);
        if (!last) return;
        paper.fillStyle = inks[last] ?? inks.sampled;
        const top = height - (accepted + 1) * unit;
        if (last === "recovered") { // a point; a bonus is round, as their tokens are
          paper.beginPath();
          paper.moveTo(x, top + unit);
          paper.lineTo(x + bar / 2, top);
          paper.lineTo(x + bar, top + unit);
          paper.fill();
        } else if (last === "bonus") {
          paper.beginPath();
          paper.ellipse(x + bar / 2, top + unit / 2, bar / 2, unit / 2, 0, 0, 2 * Math.PI);
          paper.fill();
        } else {
          paper.fillRect(x, top, bar, unit);
        }
      });
    }
  }

  stop() {
    if (!this.running) return;
    this.running.abort();
    this.running = null;
    write(find("race-status"), "Stopped.");
    this.buttons();
  }

  buttons() {
    const active = document.activeElement;
    find("race-go").disabled = Boolean(this.running);
    find("race-stop").disabled = !this.running;
    if (active?.disabled) find(this.running ? "race-stop" : "race-go").focus();
  }
}

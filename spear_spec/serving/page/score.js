// The score: each sentence with its spectrogram and, under it on the same axis, its tokens. Wrapped like text.

import { make, write } from "./dom.js";
import { BANDS, palette, Spectrum } from "./spectrum.js";

const KINDS = ["accepted", "recovered", "bonus", "sampled"];
const COLUMNS = 10; // of the spectrogram for each token
const dark = matchMedia("(prefers-color-scheme: dark)");

export class Score {
  constructor(place) {
    this.place = place;
    this.line = null; // where the sound is
    this.clear();
    new ResizeObserver(() => this.fit()).observe(place);
    dark.addEventListener("change", () => this.redraw());
  }

  /** Empty it. tokenS: seconds of sound that a token stands for. */
  clear(rate = 24000, tokenS = 0.04) {
    this.rate = rate;
    this.hop = (rate * tokenS) / COLUMNS;
    this.sentences = [];
    this.leave();
    this.place.replaceChildren();
    this.measure();
  }

  /** Tokens of one call of the transformer: ids and kinds. */
  tokens(sentence, ids, kinds) {
    this.sentence(sentence).write(ids, kinds);
  }

  /** Samples (Float32Array) of a sentence. */
  sound(sentence, text, samples, ended) {
    this.sentence(sentence).hear(text, samples, ended);
  }

  /** Show what is heard: a sentence and a number of samples into its sound. In the pause before one nothing moves. */
  follow(sentence, samples) {
    const at = this.sentences[sentence]?.spot(samples);
    if (!at) return;
    this.line ??= make("div", { class: "playhead", "aria-hidden": "true" });
    if (this.line.parentElement !== at.stave) at.stave.append(this.line);
    this.line.style.transform = `translateX(${at.x}px)`;
  }

  /** Nothing is heard. */
  leave() {
    this.line?.remove();
    this.line = null;
  }

  sentence(index) {
    while (this.sentences.length <= index) {
      const sentence = new Sentence(this, this.sentences.length);
      this.sentences.push(sentence);
      this.place.append(sentence.element);
    }
    return this.sentences[index];
  }

  /** Tokens that fit into a line, and their width in pixels. */
  measure() {
    this.cell = parseFloat(getComputedStyle(document.documentElement).getPropertyValue("--cell")) || 10;
    this.fits = Math.max(8, Math.floor(this.place.clientWidth / this.cell));
  }

  fit() {
    const before = [this.cell, this.fits];
    this.measure();
    if (this.place.clientWidth && (before[0] !== this.cell || before[1] !== this.fits)) {
      this.leave();
      for (const sentence of this.sentences) sentence.lay();
    }
  }

  redraw() {
    for (const sentence of this.sentences) sentence.paint(0);
  }
}

class Sentence {
  constructor(score, index) {
    this.score = score;
    this.number = index + 1;
    this.cells = []; // an element a token
    this.counts = Object.fromEntries(KINDS.map((kind) => [kind, 0]));
    this.calls = 0;
    this.silence = 0; // samples of the pause before it
    this.heard = 0;
    this.painted = 0; // columns
    this.ended = false;
    this.spectrum = new Spectrum(score.rate, score.hop);
    this.staves = [];
    this.words = make("p", { class: "words" });
    this.lines = make("div", { class: "lines", role: "img", "aria-label": `Sentence ${this.number}` });
    this.count = make("p", { class: "count" });
    this.element = make("article", { class: "sentence", "aria-label": `Sentence ${this.number}` }, this.words, this.lines, this.count);
  }

  write(ids, kinds) {
    this.calls += 1;
    ids.forEach((id, at) => {
      const kind = KINDS.includes(kinds[at]) ? kinds[at] : "sampled";
      const cell = make("span", { class: `token ${kind}${at ? "" : " opens"}`, title: `${id} ${kind}`, "data-id": id });
      this.counts[kind] += 1;
      this.stave(Math.floor(this.cells.length / this.score.fits)).tokens.append(cell);
      this.cells.push(cell);
    });
    const total = this.cells.length;
    write(this.count, `${total} tokens in ${this.calls} calls, ${(total / this.calls).toFixed(1)} a call`);
  }

  hear(text, samples, ended) {
    if (text) write(this.words, text);
    let from = 0;
    if (!this.heard) while (from < samples.length && samples[from] === 0) from += 1;
    this.silence += from;
    this.heard += samples.length - from;
    this.spectrum.push(samples.subarray(from), Boolean(ended));
    this.paint(this.painted);
    if (ended) this.end(ended);
  }

  end(ended) {
    const told = KINDS.filter((kind) => this.counts[kind]).map((kind) => `${this.counts[kind]} ${kind}`);
    const cut = ended === "eos" ? "" : ` Cut off (${ended}).`;
    const words = `${this.count.textContent}: ${told.join(", ")}.${cut}`;
    this.lines.setAttribute("aria-label", `Spectrogram and tokens of sentence ${this.number}. ${words}`);
    write(this.count, words);
    this.ended = true;
    this.trim();
  }

  /** The last line ends with what is on it. */
  trim() {
    const { cell, fits } = this.score;
    const last = this.staves.length - 1;
    if (last < 0) return;
    const columns = Math.ceil(this.spectrum.columns.length / COLUMNS);
    const left = Math.max(this.cells.length, columns) - last * fits;
    if (left > 0 && left < fits) this.staves[last].canvas.parentElement.style.width = `${left * cell}px`;
  }

  /** The line with this number, made when it is first asked for. */
  stave(number) {
    const { cell, fits } = this.score;
    while (this.staves.length <= number) {
      const canvas = make("canvas", { width: fits * COLUMNS, height: BANDS });
      canvas.style.width = `${fits * cell}px`;
      const tokens = make("div", { class: "tokens" });
      const element = make("div", { class: "stave" }, canvas, tokens);
      this.staves.push({ element, canvas, tokens });
      this.lines.append(element);
    }
    return this.staves[number];
  }

  /** Paint the columns from this one on. */
  paint(from) {
    const { columns } = this.spectrum;
    const width = this.score.fits * COLUMNS;
    const colours = palette(dark.matches);
    for (let start = from; start < columns.length; ) {
      const line = Math.floor(start / width);
      const end = Math.min(columns.length, (line + 1) * width);
      const image = new ImageData(end - start, BANDS);
      for (let x = 0; x < end - start; x += 1) {
        for (let y = 0; y < BANDS; y += 1) {
          const [r, g, b] = colours[columns[start + x][BANDS - 1 - y]];
          image.data.set([r, g, b, 255], 4 * (y * image.width + x));
        }
      }
      this.stave(line).canvas.getContext("2d").putImageData(image, start - line * width, 0);
      start = end;
    }
    this.painted = columns.length;
  }

  /** Lay everything out anew: the width has changed. */
  lay() {
    this.staves = [];
    this.lines.replaceChildren();
    this.cells.forEach((cell, at) => this.stave(Math.floor(at / this.score.fits)).tokens.append(cell));
    this.paint(0);
    if (this.ended) this.trim();
  }

  /** Where a sample of its sound stands: {stave, x}, or null in the pause before it. */
  spot(samples) {
    const column = (samples - this.silence) / this.score.hop;
    if (column < 0) return null;
    const width = this.score.fits * COLUMNS;
    const line = Math.min(Math.floor(column / width), this.staves.length - 1);
    if (line < 0) return null;
    return { stave: this.staves[line].element, x: ((column - line * width) / COLUMNS) * this.score.cell };
  }
}

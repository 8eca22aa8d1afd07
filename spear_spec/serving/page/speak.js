// The first view: speak a text, hear it while it comes, see what it is made of.

import { find, tell, write } from "./dom.js";
import { decoded, floats, wav } from "./pcm.js";
import { Player } from "./player.js";
import { run } from "./run.js";
import { Score } from "./score.js";

const AUDIBLE = 0.005; // of full scale, as everywhere in this project

export class Speak {
  /** voice: what /playground/voice told. refused(error): may ask for a key; whether to try again. */
  constructor(refused) {
    this.refused = refused;
    this.score = new Score(find("score"));
    this.reset();
    find("speak-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.go();
    });
    find("stop").addEventListener("click", () => this.stop());
    find("again").addEventListener("click", () => this.again());
    find("save").addEventListener("click", () => this.save());
    find("text").addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) find("speak-form").requestSubmit();
    });
    find("text").addEventListener("input", () => this.count());
    find("speed").addEventListener("input", () => this.count());
    this.count();
  }

  /** The voice is known. */
  ready(voice) {
    this.voice = voice;
    find("voice").replaceChildren(...voice.speakers.map((name) => new Option(name, name)));
    this.count();
    const { drafter, verifier, lossless, gamma } = voice.settings;
    const rule = verifier ? `, judged by the rule ${verifier} (${lossless ? "lossless: the law of the speech is the transformer's own" : "lossy"})` : "";
    write(find("drafter"), drafter === "none" ? "Nothing is drafted: one token a call." : `Drafted by ${drafter}, at most ${gamma} tokens ahead${rule}.`);
  }

  count() {
    const most = this.voice?.characters;
    const length = [...find("text").value].length;
    write(find("text-count"), most ? `${length} of at most ${most} characters` : `${length} characters`);
    write(find("speed-out"), `${Number(find("speed").value).toFixed(2)}`);
  }

  reset() {
    this.player?.stop();
    this.player = null;
    this.pieces = []; // Int16Array, as they came
    this.usage = { tokens: 0, calls: 0, samples: 0, first: null, seconds: 0, seed: null };
  }

  async go() {
    if (!this.voice) return;
    this.stop();
    this.reset();
    const seed = find("seed").value.trim();
    const body = { input: find("text").value, voice: find("voice").value, speed: Number(find("speed").value) };
    // a seed may be larger than the whole numbers of JavaScript: it travels as text
    if (seed) body.seed = seed;
    tell("");
    this.running = new AbortController();
    this.player = new Player(this.voice.sample_rate); // in the click itself: a browser plays nothing before one
    this.buttons();
    write(find("status"), "Speaking …");
    this.score.clear(this.voice.sample_rate, 1 / (this.voice.token_rate * body.speed));
    this.figures();
    this.began = performance.now();
    this.watch();
    await run(this, "playground/speak", body, "status", { failed: () => this.player.stop() });
  }

  take(name, data) {
    const { usage } = this;
    usage.seconds = (performance.now() - this.began) / 1000;
    if (name === "start") {
      usage.seed = data.seed;
    } else if (name === "tokens") {
      usage.tokens += data.ids.length;
      usage.calls += 1;
      this.score.tokens(data.sentence, data.ids, data.kinds);
    } else if (name === "sound") {
      const pcm = decoded(data.pcm);
      const samples = floats(pcm);
      this.player.push(samples, { sentence: data.sentence, offset: this.offset(data.sentence, pcm.length) });
      this.pieces.push(pcm);
      usage.samples += pcm.length;
      if (usage.first === null && samples.some((value) => Math.abs(value) > AUDIBLE)) usage.first = usage.seconds;
      this.score.sound(data.sentence, data.text, samples, data.ended);
    } else if (name === "done") {
      write(find("status"), this.summary());
      this.buttons();
    }
    this.figures();
  }

  /** Samples of its sentence before this piece. */
  offset(sentence, length) {
    if (this.sentence !== sentence || !this.pieces.length) [this.sentence, this.before] = [sentence, 0];
    this.before += length;
    return this.before - length;
  }

  summary() {
    const { tokens, calls, seed, samples } = this.usage;
    const sound = (samples / this.voice.sample_rate).toFixed(1);
    return `Done: ${tokens} tokens in ${calls} calls, ${(tokens / Math.max(calls, 1)).toFixed(1)} a call; ${sound} s of sound; seed ${seed}.`;
  }

  figures() {
    const { tokens, calls, samples, first, seconds } = this.usage;
    const sound = this.voice ? samples / this.voice.sample_rate : 0;
    write(find("f-per-call"), calls ? (tokens / calls).toFixed(1) : "–");
    write(find("f-first"), first === null ? "–" : `${Math.round(first * 1000)} ms`);
    write(find("f-rtf"), sound ? (seconds / sound).toFixed(2) : "–");
    write(find("f-tokens"), calls ? String(tokens) : "–");
    write(find("f-calls"), calls ? String(calls) : "–");
    write(find("f-sound"), sound ? `${sound.toFixed(1)} s` : "–");
  }

  /** Move the line under what is heard, until nothing is. */
  watch() {
    const { player } = this;
    const look = () => {
      if (this.player !== player) return;
      const at = player.position();
      if (at) this.score.follow(at.tag.sentence, at.tag.offset + at.offset);
      if (this.running || player.playing) {
        requestAnimationFrame(look);
      } else {
        this.score.leave();
        this.buttons();
      }
    };
    requestAnimationFrame(look);
  }

  stop() {
    const was = this.running !== null && this.running !== undefined;
    this.running?.abort();
    this.running = null;
    this.player?.stop();
    this.score.leave();
    if (was) write(find("status"), "Stopped.");
    this.buttons();
  }

  again() {
    const tags = this.player?.pieces.map((piece) => piece.tag) ?? [];
    this.player?.stop();
    this.player = new Player(this.voice.sample_rate);
    this.pieces.forEach((piece, at) => this.player.push(floats(piece), tags[at]));
    this.watch();
    this.buttons();
  }

  save() {
    const address = URL.createObjectURL(wav(this.pieces, this.voice.sample_rate));
    const link = document.createElement("a");
    link.href = address;
    link.download = `speech-${this.usage.seed ?? "stopped"}.wav`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
  }

  buttons() {
    const active = document.activeElement;
    const running = Boolean(this.running);
    const heard = this.pieces.length > 0;
    find("stop").disabled = !(running || this.player?.playing);
    find("again").disabled = running || !heard;
    find("save").disabled = running || !heard;
    if (active?.disabled) find("go").focus(); // the keyboard is not lost with the button that it was on
  }
}

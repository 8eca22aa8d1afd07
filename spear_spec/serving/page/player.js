// Sound that plays while it comes: every piece is scheduled to begin on the very sample where the one before it ends.

const LEAD_S = 0.04; // from now to the first piece, and behind a gap

export class Player {
  /** `rate`: Hz of the pieces; the context runs at the same, so that nothing is resampled. */
  constructor(rate) {
    this.rate = rate;
    this.context = new AudioContext({ sampleRate: rate, latencyHint: "interactive" });
    this.pieces = []; // {at: seconds of the context, samples, tag}, in order
    this.sources = new Set();
    this.gaps = 0; // pieces that came too late
    this.ending = 0; // where the next piece begins, in samples of the context
    this.resumed = this.context.resume();
  }

  /** Schedule a piece (Float32Array). tag: whatever belongs to it; `position` gives it back. */
  push(samples, tag) {
    if (!samples.length || this.context.state === "closed") return;
    const now = Math.ceil(this.context.currentTime * this.rate);
    if (this.ending < now) {
      if (this.pieces.length) this.gaps += 1;
      this.ending = now + Math.round(LEAD_S * this.rate);
    }
    const buffer = this.context.createBuffer(1, samples.length, this.rate);
    buffer.copyToChannel(samples, 0);
    const source = this.context.createBufferSource();
    source.buffer = buffer;
    source.connect(this.context.destination);
    source.onended = () => this.sources.delete(source);
    source.start(this.ending / this.rate);
    this.sources.add(source);
    this.pieces.push({ begins: this.ending, samples, tag });
    this.ending += samples.length;
  }

  /** What is heard now: {tag, offset in samples}, or null. */
  position() {
    const now = this.context.currentTime * this.rate;
    for (let i = this.pieces.length - 1; i >= 0; i -= 1) {
      const { begins, samples, tag } = this.pieces[i];
      if (now >= begins) return now < begins + samples.length ? { tag, offset: now - begins } : null;
    }
    return null;
  }

  /** Whether anything is still to be heard. */
  get playing() {
    return this.context.state !== "closed" && this.context.currentTime * this.rate < this.ending;
  }

  /** Be silent at once. */
  stop() {
    for (const source of this.sources) source.stop();
    this.sources.clear();
    if (this.context.state !== "closed") this.context.close();
  }
}

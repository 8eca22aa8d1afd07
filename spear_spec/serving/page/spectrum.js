// A spectrogram, column by column, while its samples come. A plain radix-2 transform; nothing else is needed.

const SIZE = 1024;
const WINDOW = 720; // samples at 24 kHz: 30 ms
export const BANDS = 112; // rows of a column, the lowest first, evenly spaced in mel
const FLOOR_DB = -78;
const CEILING_DB = -18;

const hann = Float64Array.from({ length: WINDOW }, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * (i + 0.5)) / WINDOW));
const cosine = Float64Array.from({ length: SIZE / 2 }, (_, i) => Math.cos((2 * Math.PI * i) / SIZE));
const sine = Float64Array.from({ length: SIZE / 2 }, (_, i) => -Math.sin((2 * Math.PI * i) / SIZE));
const reversed = Uint16Array.from({ length: SIZE }, (_, i) => {
  let out = 0;
  for (let bit = 1, value = i; bit < SIZE; bit *= 2, value >>= 1) out = 2 * out + (value & 1);
  return out;
});

/** The transform of `re` + i `im`, in place; both of length 1024, in bit-reversed order. */
function transform(re, im) {
  for (let half = 1; half < SIZE; half *= 2) {
    const stride = SIZE / (2 * half);
    for (let start = 0; start < SIZE; start += 2 * half) {
      for (let k = 0; k < half; k += 1) {
        const [a, b] = [start + k, start + k + half];
        const [c, s] = [cosine[k * stride], sine[k * stride]];
        const x = re[b] * c - im[b] * s;
        const y = re[b] * s + im[b] * c;
        re[b] = re[a] - x;
        im[b] = im[a] - y;
        re[a] += x;
        im[a] += y;
      }
    }
  }
}

const mel = (hz) => 2595 * Math.log10(1 + hz / 700);
const hertz = (value) => 700 * (10 ** (value / 2595) - 1);

/** Columns of one sentence. `hop`: samples from one column to the next; need not be a whole number. */
export class Spectrum {
  constructor(rate, hop) {
    this.hop = hop;
    this.columns = []; // Uint8Array of BANDS, 0 to 255
    this.samples = new Float32Array(0); // those that a window may still need
    this.first = 0; // number of the first of them
    this.re = new Float64Array(SIZE);
    this.im = new Float64Array(SIZE);
    const [low, high] = [mel(50), mel(Math.min(10000, rate / 2))];
    this.bins = Float64Array.from({ length: BANDS + 2 }, (_, i) => (hertz(low + ((high - low) * i) / (BANDS + 1)) * SIZE) / rate);
  }

  /** Take samples in; `last`: no more come. */
  push(samples, last = false) {
    const joined = new Float32Array(this.samples.length + samples.length + (last ? WINDOW : 0));
    joined.set(this.samples);
    joined.set(samples, this.samples.length);
    const end = this.first + this.samples.length + samples.length;
    for (;;) {
      const centre = Math.round((this.columns.length + 0.5) * this.hop);
      if (last ? centre >= end : centre + WINDOW / 2 > end) break;
      this.columns.push(this.column(joined, centre - WINDOW / 2 - this.first));
    }
    const keep = Math.max(this.first, Math.round((this.columns.length + 0.5) * this.hop) - WINDOW / 2);
    this.samples = joined.slice(keep - this.first, end - this.first);
    this.first = keep;
  }

  column(samples, from) {
    const { re, im, bins } = this;
    re.fill(0);
    im.fill(0);
    for (let i = 0; i < WINDOW; i += 1) re[reversed[i]] = (samples[from + i] ?? 0) * hann[i];
    transform(re, im);
    const power = (bin) => re[bin] * re[bin] + im[bin] * im[bin];
    const column = new Uint8Array(BANDS);
    for (let band = 0; band < BANDS; band += 1) {
      // the strongest bin of a wide band; between two bins where the band is narrower than they are apart
      const [low, at, high] = [bins[band], bins[band + 1], bins[band + 2]];
      let most = 0;
      for (let bin = Math.ceil((low + at) / 2); bin <= (at + high) / 2; bin += 1) most = Math.max(most, power(bin));
      if (!most || high - low < 2) {
        const below = Math.floor(at);
        most = power(below) + (power(below + 1) - power(below)) * (at - below);
      }
      const decibel = 10 * Math.log10(most / (WINDOW / 4) ** 2 + 1e-12);
      column[band] = Math.max(0, Math.min(255, Math.round((255 * (decibel - FLOOR_DB)) / (CEILING_DB - FLOOR_DB))));
    }
    return column;
  }
}

/** 256 colours [r, g, b], from the ground to the loudest, for the scheme in use. */
export function palette(dark) {
  const stops = dark
    ? [[27, 26, 34], [66, 48, 120], [150, 84, 190], [240, 150, 150], [255, 232, 190]]
    : [[255, 255, 255], [214, 205, 240], [138, 116, 200], [78, 52, 140], [30, 18, 58]];
  const curve = dark ? 1 : 1.3; // paper shows faint noise more than a dark ground does
  return Array.from({ length: 256 }, (_, level) => {
    const at = (level / 255) ** curve * (stops.length - 1);
    const below = Math.min(Math.floor(at), stops.length - 2);
    return stops[below].map((value, i) => Math.round(value + (stops[below + 1][i] - value) * (at - below)));
  });
}

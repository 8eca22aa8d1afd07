// Samples as they travel: base64 of 16-bit little-endian PCM. And a file of them.

/** Int16Array of a base64 text. */
export function decoded(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Int16Array.from({ length: bytes.length / 2 }, (_, at) => view.getInt16(2 * at, true));
}

/** Float32Array in -1 to 1 of an Int16Array. */
export function floats(samples) {
  return Float32Array.from(samples, (value) => value / 32768);
}

/** A wav file (mono, 16 bit) of pieces, as a Blob. */
export function wav(pieces, rate) {
  const bytes = 2 * pieces.reduce((sum, piece) => sum + piece.length, 0);
  const file = new DataView(new ArrayBuffer(44 + bytes));
  const text = (at, word) => [...word].forEach((letter, i) => file.setUint8(at + i, letter.charCodeAt(0)));
  text(0, "RIFF");
  file.setUint32(4, 36 + bytes, true);
  text(8, "WAVEfmt ");
  file.setUint32(16, 16, true);
  file.setUint16(20, 1, true);
  file.setUint16(22, 1, true);
  file.setUint32(24, rate, true);
  file.setUint32(28, 2 * rate, true);
  file.setUint16(32, 2, true);
  file.setUint16(34, 16, true);
  text(36, "data");
  file.setUint32(40, bytes, true);
  let at = 44;
  for (const piece of pieces) for (const value of piece) (file.setInt16(at, value, true), (at += 2));
  return new Blob([file], { type: "audio/wav" });
}

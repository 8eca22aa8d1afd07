// Requests to this server, and the stream of events that it answers with (server-sent events in the body of a POST).

import { key } from "./key.js";

/** What the server refused, or what broke on the way. `status`: of HTTP, 0 where there was none. */
export class Refused extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

/** A JSON object from the server. */
export async function get(path, signal) {
  const answer = await ask(path, { headers: withKey(), signal });
  return answer.json();
}

/**
 * Post a JSON object and give the events of the answer: [name, data].
 * Throws Refused; an event "error" is thrown too. Aborting `signal` tells the server to stop.
 */
export async function* events(path, body, signal) {
  const headers = withKey({ "Content-Type": "application/json", Accept: "text/event-stream" });
  const answer = await ask(path, { method: "POST", headers, body: JSON.stringify(body), signal });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  let ended = false;
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      text += value;
      for (let cut = text.indexOf("\n\n"); cut >= 0; cut = text.indexOf("\n\n")) {
        const event = parsed(text.slice(0, cut));
        text = text.slice(cut + 2);
        if (event === null) continue;
        if (event[0] === "error") throw new Refused(message(event[1]) ?? "The server stopped.");
        ended ||= event[0] === "done";
        yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
  if (!ended) throw new Refused("The connection ended before the answer did.");
}

async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(path, { ...options, cache: "no-store", credentials: "omit", redirect: "error" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The server cannot be reached.");
  }
  if (answer.ok) return answer;
  const told = message(await answer.json().catch(() => null));
  const wait = answer.headers.get("Retry-After");
  const later = answer.status === 429 && wait ? ` Try again in ${wait} s.` : "";
  throw new Refused((told ?? `The server answered ${answer.status}.`) + later, answer.status);
}

function withKey(headers = {}) {
  return key.value ? { ...headers, Authorization: `Bearer ${key.value}` } : headers;
}

function message(data) {
  const text = data?.error?.message ?? data?.detail;
  return typeof text === "string" && text ? text : null;
}

function parsed(block) {
  let name = "message";
  let data = "";
  for (const line of block.split("\n")) {
    if (line.startsWith("event: ")) name = line.slice(7);
    else if (line.startsWith("data: ")) data += line.slice(6);
  }
  return data ? [name, JSON.parse(data)] : null; // a comment keeps the connection awake
}

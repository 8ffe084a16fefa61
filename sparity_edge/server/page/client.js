// Requests to the server: the key, errors as sentences, answers as server-sent events.
// Knows nothing of the page.

import { keep, kept } from "./storage.js";

let key = kept("key", "", "sessionStorage"); // of this tab only

/** What the server refused, or that there is none (status 0). */
export class ServerError extends Error {
  constructor(status, sentence) {
    super(sentence);
    this.status = status;
  }
}

/** Send `key` with every request from now on. */
export function useKey(given) {
  key = given;
  keep("key", key, "sessionStorage");
}

/** The decoded answer of a GET. */
export async function getJson(path) {
  return (await request(path, {})).json();
}

/** A chat: the position of the dial that the server followed, and the decoded events as they come. */
export async function chat(body, signal) {
  const response = await request("v1/chat/completions", {
    method: "POST",
    body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  return { setting: response.headers.get("X-Sparity-Plan"), events: events(response.body) };
}

/** Decoded events of a stream of bytes, which has to say [DONE] before it ends. */
export async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let whole = false;
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done && whole) return;
      if (done) throw new ServerError(0, "The answer broke off; the server may have ended.");
      const parts = (rest + value).split("\n\n");
      rest = parts.pop();
      for (const part of parts) {
        const line = part.split("\n").find((each) => each.startsWith("data: "));
        whole ||= line === "data: [DONE]";
        if (!line || whole) continue;
        const event = JSON.parse(line.slice(6));
        if (event.error) throw new ServerError(500, event.error.message);
        yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

async function request(path, options) {
  const headers = { "Content-Type": "application/json" };
  if (key) headers.Authorization = `Bearer ${key}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError(0, "The server does not answer; is it still running?");
  }
  if (response.ok) return response;
  throw new ServerError(response.status, await sentence(response));
}

async function sentence(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return `The server answered ${response.status} ${response.statusText}.`;
  }
}

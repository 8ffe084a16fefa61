// One answer, from the request to its last token: text, and what it cost. Knows nothing of the page.

import { ServerError, chat } from "./client.js";

/**
 * Fill `message` with the answer to `body`, and call `grown` whenever it has grown.
 *
 * Whatever ends it is written into the message: `facts`, and `fault` where something failed. Returns
 * the error that ended it, or null.
 */
export async function answerInto(message, body, signal, grown) {
  const clock = { begin: performance.now(), first: 0, last: 0, chunks: 0 };
  let usage = null;
  let reason = null;
  let failed = null;
  try {
    for await (const event of chat(body, signal)) {
      usage = event.usage ?? usage;
      const choice = event.choices[0];
      if (!choice) continue;
      reason = choice.finish_reason ?? reason;
      message.content += choice.delta.content ?? "";
      if (choice.delta.reasoning_content) {
        message.reasoning = (message.reasoning ?? "") + choice.delta.reasoning_content;
      }
      clock.last = performance.now();
      clock.first ||= clock.last;
      clock.chunks += 1;
      grown();
    }
  } catch (error) {
    if (!signal.aborted) failed = error;
  }
  message.facts = facts(clock, usage, reason, signal.aborted);
  if (failed) {
    message.fault = failed instanceof ServerError ? failed.message : `The page failed: ${failed}`;
  }
  return failed;
}

/** What an answer cost; where its usage never came, tokens are the chunks that did. */
function facts(clock, usage, reason, stopped) {
  if (!clock.first) return null;
  const tokens = usage?.completion_tokens ?? clock.chunks;
  const seconds = (clock.last - clock.first) / 1000;
  return {
    tokens,
    first: (clock.first - clock.begin) / 1000,
    rate: tokens > 1 && seconds > 0 ? (tokens - 1) / seconds : null,
    active: usage?.active_weight_fraction ?? 1,
    prompt: usage?.prompt_tokens ?? 0,
    cached: usage?.prompt_tokens_details?.cached_tokens ?? 0,
    stopped,
    cut: reason === "length",
  };
}

// One answer, from the request to its last token: text, and what it cost. Knows nothing of the page.

import { ServerError, chat } from "./client.js";

/**
 * Fill `message` with the answer to `body`, and call `grown` with the speed so far whenever it
 * has grown.
 *
 * Whatever ends it is written into the message: `facts`, and `fault` where something failed. Returns
 * the error that ended it, or null.
 */
export async function answerInto(message, body, signal, grown) {
  const clock = { begin: performance.now(), first: 0, last: 0, chunks: 0, setting: null };
  let usage = null;
  let reason = null;
  let failed = null;
  try {
    const { setting, events } = await chat(body, signal);
    clock.setting = setting;
    for await (const event of events) {
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
      grown(rate(clock, clock.chunks));
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
  return {
    tokens,
    setting: clock.setting,
    first: (clock.first - clock.begin) / 1000,
    rate: rate(clock, tokens),
    active: usage?.active_weight_fraction ?? null, // an answer that was stopped has no usage
    prompt: usage?.prompt_tokens ?? 0,
    cached: usage?.prompt_tokens_details?.cached_tokens ?? 0,
    stopped,
    cut: reason === "length",
  };
}

/** Tokens a second behind the first; null: there are too few. */
function rate(clock, tokens) {
  const seconds = (clock.last - clock.first) / 1000;
  return tokens > 1 && seconds > 0 ? (tokens - 1) / seconds : null;
}

// The conversation: its messages, where they are kept, and how they are written to a file.
// Knows nothing of the page and nothing of the server.

import { keep, kept } from "./storage.js";

/**
 * Messages {role, content} as the server takes them; answers also have what they cost (`facts`),
 * `reasoning`, and `fault`, the sentence that ended them.
 */
export class Conversation {
  constructor() {
    this.messages = restored();
  }

  /** Put a message behind the others. */
  add(message) {
    this.messages.push(message);
    this.save();
    return message;
  }

  /** Keep the first `count` messages, and return all that there were. */
  cut(count) {
    const before = this.messages;
    this.messages = before.slice(0, count);
    this.save();
    return before;
  }

  /** Have `messages` in place of those that are here. */
  replace(messages) {
    this.messages = messages;
    this.save();
  }

  /** Write to the browser's storage; false: it is full or forbidden. */
  save() {
    return keep("conversation", this.messages);
  }
}

function restored() {
  const before = kept("conversation", []);
  const whole = (each) => typeof each?.role === "string" && typeof each.content === "string";
  return Array.isArray(before) ? before.filter(whole) : [];
}

/**
 * The messages that are sent. Empty answers, which failed or were stopped, are left out; questions
 * that stand side by side then are one, for there are chat templates that want turns to alternate.
 */
export function asked(messages, system) {
  const turns = system ? [{ role: "system", content: system }] : [];
  for (const { role, content } of messages.filter((each) => each.content)) {
    const last = turns.at(-1);
    if (last?.role === role) last.content += `\n\n${content}`;
    else turns.push({ role, content });
  }
  return turns;
}

/** The conversation as a Markdown file. */
export function asMarkdown(messages, system, model) {
  const parts = [`# Conversation with ${model}`];
  if (system) parts.push(`## System\n\n${system}`);
  for (const each of messages) {
    parts.push(`## ${each.role === "user" ? "You" : "Answer"}\n\n${each.content.trim()}`);
  }
  return `${parts.join("\n\n")}\n`;
}

/** The conversation as a JSON file: what was asked, by which settings, and what it cost. */
export function asJson(messages, system, model, settings) {
  const turns = system ? [{ role: "system", content: system }, ...messages] : messages;
  return `${JSON.stringify({ model, settings, messages: turns }, null, 2)}\n`;
}

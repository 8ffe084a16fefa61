// Messages as elements of the page. Knows nothing of the server; what a user does to a message is
// told to `page.js` by data-act of the button.

import { Markdown } from "./markdown.js";

/** The elements of all messages, and of an answer that grows. */
export class MessageList {
  constructor(root) {
    this._root = root;
    this._growing = null;
  }

  /** Show `messages` in place of what was shown. */
  show(messages) {
    this._root.replaceChildren(...messages.map((each, index) => article(each, index).element));
    this._growing = null;
  }

  /** Show one more message; it may grow. */
  add(message, index) {
    this._growing = article(message, index);
    this._growing.element.setAttribute("aria-busy", "true");
    this._root.append(this._growing.element);
  }

  /** Show what the last message has grown to. */
  grow(message) {
    this._growing?.fill(message);
  }

  /** Dim what stands from `index` on; null: nothing. */
  dim(index) {
    [...this._root.children].forEach((each, place) => {
      each.classList.toggle("dim", index !== null && place >= index);
    });
  }
}

function article(message, index) {
  const element = document.createElement("article");
  element.className = message.role;
  element.dataset.index = index;
  element.setAttribute("aria-label", message.role === "user" ? "You" : "Answer");
  return message.role === "user" ? question(element, message) : answer(element, message);
}

function question(element, message) {
  const text = part("p", "text");
  text.textContent = message.content;
  element.append(text, acts(["edit", "Edit"]));
  return { element, fill() {} };
}

function answer(element, message) {
  const thought = part("details", "thought");
  const thoughtText = part("p", "text");
  thought.append(Object.assign(part("summary"), { textContent: "Reasoning" }), thoughtText);
  const text = part("div", "markdown");
  const fault = part("p", "fault");
  fault.setAttribute("role", "alert");
  const facts = part("p", "facts");
  const markdown = new Markdown(text);
  const foot = part("div", "foot");
  foot.append(facts, acts(["copy", "Copy"], ["again", "Regenerate"]));
  element.append(thought, text, fault, foot);

  function fill(now) {
    thought.hidden = !now.reasoning;
    thoughtText.textContent = now.reasoning ?? "";
    markdown.show(now.content);
    fault.hidden = !now.fault;
    fault.textContent = now.fault ?? "";
    facts.hidden = !now.facts;
    facts.textContent = now.facts ? factsLine(now.facts) : "";
    element.classList.toggle("waiting", !now.content && !now.reasoning && !now.fault && !now.facts);
  }
  fill(message);
  return { element, fill };
}

/** What an answer cost, in one line. */
export function factsLine(facts) {
  const parts = [`${facts.tokens} tokens`];
  if (facts.rate) parts.push(`${facts.rate.toFixed(1)} tok/s`);
  if (facts.first) parts.push(`first after ${facts.first.toFixed(2)} s`);
  if (facts.active !== null && facts.active < 1) parts.push(`${percent(facts.active)} of weights read (${facts.setting})`);
  if (facts.cached) parts.push(`${facts.cached} of ${facts.prompt} prompt tokens from cache`);
  if (facts.stopped) parts.push("stopped");
  if (facts.cut) parts.push("cut at the most tokens");
  return parts.join(" · ");
}

/** A share as a whole percentage. */
export function percent(share) {
  return `${Math.round(share * 100)} %`;
}

function acts(...names) {
  const row = part("div", "acts");
  for (const [act, text] of names) {
    const button = part("button");
    button.type = "button";
    button.textContent = text;
    button.dataset.act = act;
    row.append(button);
  }
  return row;
}

function part(tag, name = "") {
  const element = document.createElement(tag);
  if (name) element.className = name;
  return element;
}

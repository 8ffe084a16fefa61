// Markdown of a model as elements of the page. What a model writes is not trusted: HTML in it is
// shown as the text that it is, and what Markdown becomes passes DOMPurify with a short list of
// elements. Images are left out: fetching one would tell its host what the conversation is about.

import { Marked } from "./vendor/marked.js";
import createPurify from "./vendor/purify.js";

const ALLOWED = {
  ALLOWED_TAGS: [
    "a", "blockquote", "br", "code", "del", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li",
    "ol", "p", "pre", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul",
  ],
  ALLOWED_ATTR: ["align", "class", "href", "start"],
  ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};

const LONGEST = 10_000; // characters of a paragraph that is read as Markdown, which takes ever longer

const purify = createPurify(window);
const marked = new Marked({
  gfm: true,
  breaks: true,
  renderer: {
    html: ({ text }) => escaped(text),
    image: ({ text, href }) => escaped(`[${text || "image"}: ${href}]`),
    checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
  },
});

/** A text in Markdown that grows: only blocks that changed are made anew. */
export class Markdown {
  constructor(root) {
    this._root = root;
    this._blocks = []; // [source, its elements]
  }

  /** Show `text` in place of what was shown. */
  show(text) {
    const tokens = lexed(text);
    let same = 0;
    while (same < tokens.length && this._blocks[same]?.source === tokens[same].raw) same += 1;
    for (const block of this._blocks.splice(same)) block.nodes.forEach((each) => each.remove());
    for (const token of tokens.slice(same)) {
      const fragment = elements(token);
      this._blocks.push({ source: token.raw, nodes: [...fragment.childNodes] });
      this._root.append(fragment);
    }
  }
}

function lexed(text) {
  if (text.split(/\n\s*\n/).some((each) => each.length > LONGEST)) return [plain(text)];
  try {
    return marked.lexer(text);
  } catch {
    return [plain(text)]; // nested too deeply
  }
}

function plain(text) {
  return { type: "plain", raw: text };
}

function elements(token) {
  const fragment = token.type === "plain" ? unread(token.raw) : rendered(token);
  for (const link of fragment.querySelectorAll("a")) {
    link.target = "_blank";
    link.title = link.href; // its text may say something else
    link.rel = "noopener noreferrer nofollow";
  }
  for (const table of fragment.querySelectorAll("table")) {
    table.replaceWith(scrolled(table.cloneNode(true), "Table"));
  }
  for (const code of fragment.querySelectorAll("pre")) code.replaceWith(codeBlock(code));
  return fragment;
}

function rendered(token) {
  try {
    return purify.sanitize(marked.parser([token]), ALLOWED);
  } catch {
    return unread(token.raw);
  }
}

/** A text as it was written. */
function unread(text) {
  const fragment = document.createDocumentFragment();
  const paragraph = document.createElement("p");
  paragraph.className = "text";
  paragraph.textContent = text;
  fragment.append(paragraph);
  return fragment;
}

function codeBlock(source) {
  const language = /^language-([\w+#.-]{1,20})$/.exec(source.firstElementChild?.className ?? "")?.[1];
  const block = document.createElement("div");
  const bar = document.createElement("div");
  const name = document.createElement("span");
  const copy = document.createElement("button");
  block.className = "code";
  bar.className = "bar";
  name.textContent = language ?? "";
  copy.type = "button";
  copy.textContent = "Copy";
  copy.setAttribute("aria-label", "Copy code");
  copy.dataset.copy = "code";
  bar.append(name, copy);
  block.append(bar, scrolled(source.cloneNode(true), "Code"));
  return block;
}

/** What may be wider than the page, in a box that the keyboard can scroll. */
function scrolled(element, label) {
  const box = document.createElement("div");
  box.className = "scrolled";
  box.tabIndex = 0;
  box.setAttribute("role", "group");
  box.setAttribute("aria-label", label);
  box.append(element);
  return box;
}

function escaped(text) {
  const letters = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };
  return text.replace(/[&<>"]/g, (letter) => letters[letter]);
}

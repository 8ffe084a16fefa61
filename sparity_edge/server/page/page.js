// The page: what a user does, and what follows of it. The parts are in the files beside this one.

import { answerInto } from "./answering.js";
import { getJson, useKey } from "./client.js";
import { Conversation, asJson, asMarkdown, asked } from "./conversation.js";
import { Dial } from "./dial.js";
import { copied, saved } from "./files.js";
import { MessageList } from "./messages.js";
import { Settings } from "./settings.js";

const SHOW_EVERY = 60; // milliseconds between two looks of an answer that grows, and
const SHOW_SHARE = 4; // at least so many times what one look takes
const UNDO_FOR = 8000; // milliseconds

const at = (id) => document.getElementById(id);
const conversation = new Conversation();
const list = new MessageList(at("messages"));
const settings = new Settings(at("settings"));
const dial = new Dial(at("dial-box"), () =>
  conversation.messages.map((each) => each.facts).filter(Boolean).reverse(),
);
let model = "";
let running = null; // what stops the answer that grows
let following = true; // whether the end of the conversation stays in view
let editing = null; // the index of the message that is edited

function render() {
  list.show(conversation.messages);
  at("welcome").hidden = conversation.messages.length > 0;
  toEnd();
}

async function send() {
  const text = at("text").value.trim();
  if (!text || running) return;
  if (editing !== null) conversation.cut(editing);
  leaveEditing();
  at("text").value = "";
  fitText();
  conversation.add({ role: "user", content: text });
  render();
  await answer();
}

async function answer() {
  running = new AbortController();
  const message = { role: "assistant", content: "" };
  const messages = asked(conversation.messages, settings.system);
  const body = { messages, reasoning_format: "auto", ...settings.sampling, ...dial.fields };
  list.add(conversation.add(message), conversation.messages.length - 1);
  setBusy(true);
  toEnd();
  let due = null;
  let rate = null;
  let cost = 0;
  const show = () => {
    const begin = performance.now();
    due = null;
    dial.show(rate);
    list.grow(message);
    if (following) toEnd();
    cost = performance.now() - begin;
  };
  const failed = await answerInto(message, body, running.signal, (now) => {
    rate = now;
    due ??= setTimeout(show, Math.max(SHOW_EVERY, SHOW_SHARE * cost));
  });
  clearTimeout(due);
  rate = null;
  show();
  running = null;
  setBusy(false);
  if (!conversation.save()) toast("The browser's storage is full: this conversation is not kept.");
  if (failed?.status === 401) askForKey();
  at("spoken").textContent = message.fault ?? message.content;
}

function setBusy(busy) {
  const had = document.activeElement;
  const from = at(busy ? "send" : "stop");
  const to = at(busy ? "stop" : "send");
  to.hidden = false;
  if (had === from) to.focus();
  from.hidden = true;
  document.body.classList.toggle("busy", busy);
  at("messages").lastElementChild?.setAttribute("aria-busy", String(busy));
  if (busy) at("spoken").textContent = "Answering";
}

function again(index) {
  if (running) return;
  leaveEditing();
  conversation.cut(index);
  render();
  answer();
  at("stop").focus(); // the button that was pressed is gone
}

function edit(index) {
  if (running) return;
  editing = index;
  at("text").value = conversation.messages[index].content;
  at("editing").hidden = false;
  list.dim(index);
  fitText();
  at("text").focus();
}

function leaveEditing() {
  if (editing === null) return;
  editing = null;
  at("text").value = "";
  at("editing").hidden = true;
  list.dim(null);
  fitText();
}

function startAnew() {
  running?.abort();
  leaveEditing();
  const before = conversation.cut(0);
  render();
  at("text").focus();
  if (before.length) toast("A new conversation.", () => conversation.replace(before));
}

let toastTimer = 0;
let undo = null;
function toast(sentence, undoing = null) {
  undo = undoing;
  at("toast-text").textContent = sentence;
  at("undo").hidden = !undoing;
  at("toast").hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => (at("toast").hidden = true), UNDO_FOR);
}

function toggleSettings(open) {
  at("settings").hidden = !open;
  at("toggle").setAttribute("aria-expanded", String(open));
  document.body.classList.toggle("with-settings", open);
}

function closeSettings() {
  toggleSettings(false);
  at("toggle").focus();
}

function toEnd() {
  at("log").scrollTop = at("log").scrollHeight;
}

function fitText() {
  at("text").style.height = "auto";
  at("text").style.height = `${Math.min(at("text").scrollHeight, innerHeight * 0.4)}px`;
}

function askForKey() {
  at("unlock").hidden = false;
  at("key").focus();
}

async function begin() {
  try {
    model = (await getJson("v1/models")).data[0].id;
  } catch (error) {
    if (error.status === 401) askForKey();
    else toast(error.message);
    return false;
  }
  at("model").textContent = model;
  document.title = `${model} – sparity-edge`;
  const plans = await getJson("v1/plans").catch(() => ({ data: [] }));
  at("no-plans").hidden = dial.offer(model, plans);
  return true;
}

at("log").addEventListener("scroll", () => {
  const log = at("log");
  following = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
});
new ResizeObserver(() => following && toEnd()).observe(at("log"));
at("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
at("text").addEventListener("input", fitText);
at("text").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send();
});
at("stop").addEventListener("click", () => running?.abort());
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  if (running) running.abort();
  else if (editing !== null) leaveEditing();
  else if (at("done").offsetParent) closeSettings();
});
at("messages").addEventListener("click", (event) => {
  const button = event.target.closest("button");
  const index = Number(event.target.closest("article")?.dataset.index);
  if (button?.dataset.act === "edit") edit(index);
  if (button?.dataset.act === "again") again(index);
  if (button?.dataset.act === "copy") copied(button, conversation.messages[index].content);
  if (button?.dataset.copy) {
    copied(button, button.closest(".code").querySelector("pre").textContent);
  }
});
at("new").addEventListener("click", startAnew);
at("undo").addEventListener("click", () => {
  undo?.();
  at("toast").hidden = true;
  render();
});
at("toggle").addEventListener("click", () => toggleSettings(at("settings").hidden));
at("done").addEventListener("click", closeSettings);
at("settings").querySelector("form").addEventListener("submit", (event) => event.preventDefault());
at("export-markdown").addEventListener("click", () => {
  saved("conversation.md", asMarkdown(conversation.messages, settings.system, model));
});
at("export-json").addEventListener("click", () => {
  const text = asJson(conversation.messages, settings.system, model, {
    ...settings.sampling,
    ...dial.fields,
  });
  saved("conversation.json", text);
});
at("unlock").addEventListener("submit", async (event) => {
  event.preventDefault();
  useKey(at("key").value);
  if (!(await begin())) {
    at("unlock-note").textContent = "That key does not fit.";
    return;
  }
  at("unlock").hidden = true;
  at("text").focus();
});

render();
toggleSettings(matchMedia("(min-width: 70rem)").matches);
begin();

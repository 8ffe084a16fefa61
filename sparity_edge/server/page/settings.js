// Fields whose values are kept in the browser: system prompt and sampling.

import { keep, kept } from "./storage.js";

const NUMBERS = ["temperature", "top_p", "max_tokens", "seed"];

/** The fields of `form`, filled with what was kept and kept whenever they change. */
export class Settings {
  constructor(form) {
    this._fields = Object.fromEntries(
      ["system", ...NUMBERS].map((name) => [name, form.querySelector(`#${name}`)]),
    );
    const before = kept("settings", {});
    for (const [name, field] of Object.entries(this._fields)) {
      if (typeof before[name] === "string") field.value = before[name];
    }
    form.addEventListener("input", () => this._keep());
  }

  /** The system prompt; empty: none. */
  get system() {
    return this._fields.system.value.trim();
  }

  /** The sampling fields that are filled, as the server takes them. */
  get sampling() {
    const filled = NUMBERS.filter((name) => this._fields[name].value !== "");
    return Object.fromEntries(filled.map((name) => [name, Number(this._fields[name].value)]));
  }

  _keep() {
    const values = Object.entries(this._fields).map(([name, field]) => [name, field.value]);
    keep("settings", Object.fromEntries(values));
  }
}

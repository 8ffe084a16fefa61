// The dial: which share of the weights decoding skips, what that is known to cost, and what it
// gave. A position is {plan, sparsity}; at 0 everything is read, by whichever plan.

import { keep, kept } from "./storage.js";

const LOSSY = 0.1; // KL in nats a token beyond which a request has to say that it means it

/** The KL of a plan at a sparsity, linear between what was measured; null: not known. */
export function klAt(plan, sparsity) {
  const above = plan.positions.findIndex((each) => each.sparsity >= sparsity - 1e-9);
  if (above < 0) return null;
  const right = plan.positions[above];
  if (above === 0 || right.kl === null) return right.kl;
  const left = plan.positions[above - 1];
  const share = (sparsity - left.sparsity) / (right.sparsity - left.sparsity);
  return left.kl + share * (right.kl - left.kl);
}

/** The KL of a plan over its reach as an SVG line in a box of 100 by 24. */
export function curve(plan) {
  const known = plan.positions.filter((each) => each.kl !== null);
  const most = Math.max(LOSSY, ...known.map((each) => each.kl));
  const points = known.map((each) => {
    const x = (100 * each.sparsity) / plan.most_sparsity;
    return `${x.toFixed(1)} ${(24 - 23 * Math.sqrt(each.kl / most)).toFixed(1)}`;
  });
  return points.length > 1 ? `M${points.join("L")}` : "";
}

/** The position that a server's setting stands for: `dense`, `PLAN:SPARSITY` or `PLAN@LEVEL`. */
export function positionOf(setting, plans) {
  const [, id, sign, value] = /^(.+)([:@])(.+)$/.exec(setting) ?? [];
  const plan = plans.find((each) => each.id === id);
  if (!plan) return { plan: null, sparsity: 0 };
  if (sign === ":") return { plan: id, sparsity: Number(value) };
  const found = plan.positions.find((each) => each.level >= Number(value) - 1e-6);
  return { plan: id, sparsity: (found ?? plan.positions.at(-1)).sparsity };
}

/** The slider, the choice of a plan, and the facts beside them. */
export class Dial {
  /**
   * @param box holds the elements.
   * @param measured gives the facts of the answers so far, the latest first.
   */
  constructor(box, measured) {
    this._box = box;
    this._measured = measured;
    this._plans = [];
    this._at = (id) => box.querySelector(`#${id}`);
    this._at("dial").addEventListener("input", () => this._moved());
    this._at("plan").addEventListener("change", () => {
      this._fit(this._sparsity);
      this._moved();
    });
  }

  /** Offer the plans of a model, as /v1/plans tells them; false: there is none. */
  offer(model, { data, default: standard }) {
    this._plans = data.filter((each) => each.most_sparsity > 0);
    this._box.hidden = !this._plans.length;
    if (!this._plans.length) return false;
    this._place = `dial.${model}`; // another model's plan of that name costs something else
    const before = kept(this._place, positionOf(standard, this._plans));
    this._at("plan").replaceChildren(...this._plans.map((each) => new Option(each.id)));
    this._at("plan").hidden = this._plans.length < 2;
    if (this._plans.some((each) => each.id === before.plan)) this._at("plan").value = before.plan;
    this._fit(before.sparsity);
    this.show();
    return true;
  }

  /** The fields of a request. */
  get fields() {
    if (!this._plans.length) return {};
    const sparsity = this._sparsity;
    if (!sparsity) return { sparsity: 0 };
    const force = sparsity > this._plan.most_sparsity_unforced;
    return { plan: this._plan.id, sparsity, ...(force && { force }) };
  }

  /** Show facts anew; `rate` is the speed of an answer that grows. */
  show(rate = null) {
    if (!this._plans.length) return;
    const sparsity = this._sparsity;
    const kl = sparsity ? klAt(this._plan, sparsity) : 0;
    const here = this._setting;
    const facts = this._measured();
    const last = facts.find((each) => each.setting === here && each.active !== null);
    const other = facts.find((each) => each.rate && each.setting);
    const speed = rate ? { rate } : last?.rate ? last : other;
    const elsewhere = speed?.setting && speed.setting !== here;
    this._at("dial-value").value = whole(sparsity);
    this._at("fact-kl").textContent = kl === null ? "unknown" : shortKl(kl);
    this._at("fact-kl").classList.toggle("lossy", kl > LOSSY);
    this._at("name-active").textContent = `active, ${last ? "measured" : "expected"}`;
    this._at("fact-active").textContent = last
      ? `${(100 * last.active).toFixed(1)} %`
      : whole(1 - sparsity);
    this._at("name-speed").textContent = elsewhere ? `speed at ${speed.setting}` : "speed";
    this._at("fact-speed").textContent = speed ? `${speed.rate.toFixed(1)} tok/s` : "–";
    this._at("dial").setAttribute(
      "aria-valuetext",
      `${whole(sparsity)} of weights skipped, KL ${kl === null ? "unknown" : shortKl(kl)}`,
    );
  }

  get _plan() {
    return this._plans.find((each) => each.id === this._at("plan").value);
  }

  get _sparsity() {
    return Number(this._at("dial").value);
  }

  /** As the server's header X-Sparity-Plan tells it. */
  get _setting() {
    return this._sparsity ? `${this._plan.id}:${this._sparsity}` : "dense";
  }

  /** Scale the slider to what the plan reaches. */
  _fit(sparsity) {
    this._at("dial").max = Math.floor(this._plan.most_sparsity * 100 + 1e-6) / 100;
    this._at("dial").value = sparsity;
    const line = curve(this._plan);
    this._at("line").setAttribute("d", line);
    this._at("area").setAttribute("d", line && `${line}V24H0Z`);
  }

  _moved() {
    keep(this._place, { plan: this._plan.id, sparsity: this._sparsity });
    this.show();
  }
}

function shortKl(kl) {
  if (kl === 0) return "0";
  return kl >= 0.1 ? kl.toFixed(2) : kl.toFixed(3);
}

function whole(share) {
  return `${Math.round(100 * share)} %`;
}

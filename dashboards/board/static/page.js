// One dashboard: the choices in the address, the panels, and when they are asked again.

import { plots } from "./charts.js";
import { ask, make } from "./dom.js";
import { Panel } from "./panel.js";
import { refreshPicker, say, timePicker, variablePicker } from "./pickers.js";
import { toggle } from "./theme.js";

const UNITS = { s: 1000, m: 60000, h: 3600000 };

class Page {
  constructor(model) {
    this.uid = model.uid;
    this.model = model;
    this.zoom = (from, to) => to - from > 1000 && this.setRange(String(from), String(to));
    this.read();
    this.panels = model.panels.map((panel) => new Panel(panel, this));
  }

  // The chart that an element holds, for whoever looks at the page from outside (its tests, the console).
  chart(element) {
    return plots.get(element);
  }

  read() {
    const address = new URLSearchParams(location.search);
    this.range = { from: address.get("from") || this.model.time.from, to: address.get("to") || this.model.time.to };
    this.refresh = address.has("refresh") ? address.get("refresh") : this.model.refresh;
    this.variables = {};
    for (const name of this.model.variables) {
      const values = address.getAll(`var-${name}`);
      if (values.length) this.variables[name] = values.map((value) => (value === "All" ? "$__all" : value));
    }
  }

  rangeParameters() {
    return new URLSearchParams(this.range).toString();
  }

  parameters() {
    const parameters = new URLSearchParams(this.range);
    if (this.refresh) parameters.set("refresh", this.refresh);
    for (const [name, values] of Object.entries(this.variables)) {
      for (const value of values) if (!values.includes("$__all")) parameters.append(`var-${name}`, value);
    }
    return parameters.toString();
  }

  async start() {
    const grid = document.getElementById("panels");
    grid.replaceChildren(...this.panels.map((panel) => panel.element));
    await this.controls();
    const observer = new IntersectionObserver(
      (entries) => {
        for (const entry of entries) {
          const panel = this.panels.find((one) => one.element === entry.target);
          panel.seen = entry.isIntersecting;
          if (panel.seen && panel.stale) panel.load();
        }
      },
      { rootMargin: "400px" },
    );
    for (const panel of this.panels) observer.observe(panel.element);
    document.addEventListener("visibilitychange", () => document.hidden || this.reload());
    addEventListener("popstate", () => location.reload());
    document.getElementById("theme").addEventListener("click", () => {
      toggle();
      for (const panel of this.panels) panel.show();
    });
    document.getElementById("kiosk").addEventListener("click", () => document.documentElement.toggleAttribute("data-kiosk", true));
    addEventListener("keydown", (event) => {
      if (event.key === "Escape") document.documentElement.removeAttribute("data-kiosk");
    });
    this.schedule();
  }

  async controls() {
    const box = document.getElementById("controls");
    const notice = document.getElementById("notice");
    this.time = timePicker(this);
    const step = (name, words, move) => make("button", { type: "button", title: words, "aria-label": words, onclick: move }, name);
    let variables = [];
    if (this.model.variables.length) {
      try {
        variables = await ask(`/api/dashboards/${this.uid}/variables`, this.parameters());
      } catch (error) {
        notice.textContent = error.message;
      }
    }
    for (const variable of variables) {
      this.variables[variable.name] = variable.chosen;
      if (variable.unknown.length) notice.textContent = `${variable.label}: ${variable.unknown.join(", ")} is not there.`;
    }
    box.replaceChildren(
      ...variables.map((variable) => variablePicker(this, variable).root),
      make("div", { class: "group" }, step("‹", "Earlier", () => this.shift(-0.5)), this.time.root, step("›", "Later", () => this.shift(0.5)), step("−", "Zoom out", () => this.widen())),
      refreshPicker(this, this.model.refreshIntervals).root,
    );
  }

  // The range in numbers, as the last answer had it.
  shown() {
    const drawn = this.panels.map((panel) => panel.drawn).find((one) => one && one.from);
    return drawn ? [drawn.from, drawn.to] : [Date.now() - 3 * 3600e3, Date.now()];
  }

  shift(part) {
    const [from, to] = this.shown();
    const step = (to - from) * part;
    this.setRange(String(Math.round(from + step)), String(Math.round(to + step)));
  }

  widen() {
    const [from, to] = this.shown();
    const half = (to - from) / 2;
    this.setRange(String(Math.round(from - half)), String(Math.round(to + half)));
  }

  setRange(from, to) {
    this.range = { from, to };
    this.time.say(say(this.range));
    this.keep();
    this.reload();
  }

  setRefresh(text) {
    this.refresh = text;
    this.keep();
    this.schedule();
  }

  setVariable(name, values) {
    this.variables[name] = values;
    this.keep();
    this.reload();
  }

  keep() {
    const address = new URLSearchParams(location.search);
    for (const name of [...address.keys()]) if (name.startsWith("var-")) address.delete(name);
    for (const [name, value] of new URLSearchParams(this.parameters())) {
      if (name.startsWith("var-")) address.append(name, value);
      else address.set(name, value);
    }
    if (!this.refresh) address.set("refresh", "");
    history.pushState(null, "", `?${address}`);
    for (const link of document.querySelectorAll("nav a[data-dashboard]")) {
      link.search = this.rangeParameters();
    }
  }

  reload() {
    for (const panel of this.panels) panel.load();
  }

  // Not by setInterval: a page that was asleep must not wake to a burst of questions.
  schedule() {
    clearTimeout(this.timer);
    const found = /^(\d+)([smh])$/.exec(this.refresh || "");
    if (!found || !`${this.range.from}${this.range.to}`.includes("now")) {
      if (found) this.timer = setTimeout(() => this.schedule(), 5000);
      return;
    }
    const step = Math.max(5000, Number(found[1]) * UNITS[found[2]]);
    // Just after the server's own step, when the rounded clock has moved on.
    this.timer = setTimeout(() => {
      if (!document.hidden) this.reload();
      this.schedule();
    }, step - (Date.now() % step) + 150);
  }
}

async function main() {
  const { uid } = document.body.dataset;
  try {
    const page = new Page(await ask(`/api/dashboards/${uid}`, ""));
    window.board = page;
    await page.start();
  } catch (error) {
    document.getElementById("notice").textContent = error.message;
  }
}

main();

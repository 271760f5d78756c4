// A panel: its frame, its data, and what is said when there is none.

import { heatMap, places, stateTimeline } from "./areas.js";
import { drop, lines, plots } from "./charts.js";
import { ask, make } from "./dom.js";
import { inspect } from "./inspect.js";
import { bars, gauge, stat } from "./numbers.js";
import { table, text } from "./table.js";

const KINDS = {
  timeseries: (body, drawn, page) => lines(body, drawn, page.zoom),
  "state-timeline": (body, drawn, page) => stateTimeline(body, drawn, page.zoom),
  heatmap: (body, drawn) => heatMap(body, drawn),
  geomap: (body, drawn) => places(body, drawn),
  stat: (body, drawn) => stat(body, drawn),
  gauge: (body, drawn) => gauge(body, drawn),
  bargauge: (body, drawn) => bars(body, drawn),
  table: (body, drawn, page) => table(body, drawn, { range: page.rangeParameters() }),
  text: (body, drawn) => text(body, drawn),
};

export class Panel {
  constructor(model, page) {
    this.model = model;
    this.page = page;
    this.drawn = null;
    this.seen = false;
    this.stale = true;
    this.body = make("div", { class: "panel-body" });
    this.title = make("h2", {}, model.title);
    this.note = make("span", { class: "panel-note", role: "status" });
    const help = model.description && model.type !== "text" ? make("span", { class: "help", tabindex: "0", role: "note", "aria-label": model.description, "data-tip": model.description }, "i") : null;
    const look = model.type === "text" ? null : make("button", { type: "button", class: "inspect", title: "Inspect: SQL, rows, CSV", "aria-label": `Inspect ${model.title}`, onclick: () => inspect(this) }, "⋯");
    this.element = make(
      "section",
      { class: `panel ${model.type}`, "data-panel": model.id, "data-state": "loading", "aria-label": model.title },
      make("header", {}, this.title, help, this.note, look),
      this.body,
    );
    const { x, y, w, h } = model.gridPos;
    this.element.style.setProperty("grid-column", `${x + 1} / span ${w}`);
    this.element.style.setProperty("grid-row", `${y + 1} / span ${h}`);
    this.element.style.setProperty("--h", h);
    this.placeholder("loading …");
  }

  get path() {
    return `/api/dashboards/${this.page.uid}/panels/${this.model.id}`;
  }

  async load() {
    if (!this.seen) {
      this.stale = true; // drawn when it comes into view
      return;
    }
    this.stale = false;
    if (this.flight) this.flight.abort();
    const flight = new AbortController();
    this.flight = flight;
    this.element.dataset.loading = "";
    try {
      const drawn = await ask(this.path, this.page.parameters(), flight.signal);
      this.drawn = drawn;
      this.show();
    } catch (error) {
      if (error.name === "AbortError") return;
      this.fail(error instanceof TypeError ? "The board does not answer. It is asked again at the next refresh." : error.message);
    } finally {
      if (this.flight === flight) delete this.element.dataset.loading;
    }
  }

  show() {
    const { drawn } = this;
    if (!drawn) return;
    this.title.textContent = drawn.title;
    this.note.textContent = "";
    if (drawn.unknown) return this.placeholder(`The board can't draw a panel of the kind ${drawn.kind}.`, "empty");
    if (drawn.empty) return this.placeholder(drawn.field.noValue || "no data", "empty");
    if (this.element.dataset.state !== "ready") this.clear();
    try {
      KINDS[drawn.kind](this.body, drawn, this.page);
      this.element.dataset.state = "ready";
    } catch (error) {
      console.error(error);
      this.fail(`This panel could not be drawn: ${error.message}`);
    }
  }

  // What was drawn stays, and is marked as old: a wall that goes blank says less than one that is late.
  fail(message) {
    if (this.drawn && this.element.dataset.state === "ready") {
      this.note.textContent = "⚠ not current";
      this.note.title = message;
      return;
    }
    this.placeholder(message, "error");
  }

  placeholder(message, state = "loading") {
    this.clear();
    this.element.dataset.state = state;
    this.body.replaceChildren(make("p", { class: "placeholder", role: state === "error" ? "alert" : null }, message));
  }

  clear() {
    for (const element of [...plots.keys()]) if (this.body.contains(element)) drop(element);
    this.body.className = "panel-body";
    delete this.body.dataset.value;
    this.body.replaceChildren();
  }
}

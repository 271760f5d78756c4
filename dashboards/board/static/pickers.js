// The controls above the panels: time range, refresh, variables.

import { make } from "./dom.js";
import { moment } from "./units.js";

const QUICK = [
  ["now-15m", "Last 15 minutes"], ["now-30m", "Last 30 minutes"], ["now-1h", "Last hour"], ["now-3h", "Last 3 hours"],
  ["now-6h", "Last 6 hours"], ["now-12h", "Last 12 hours"], ["now-24h", "Last 24 hours"], ["now-2d", "Last 2 days"],
  ["now-7d", "Last 7 days"], ["now-30d", "Last 30 days"],
];
const DAYS = [["now/d", "now/d", "Today"], ["now-1d/d", "now-1d/d", "Yesterday"], ["now/w", "now/w", "This week"]];

export function say({ from, to }) {
  const quick = QUICK.find(([start]) => start === from && to === "now");
  if (quick) return quick[1];
  const day = DAYS.find(([start, stop]) => start === from && stop === to);
  if (day) return day[2];
  return `${shown(from)} – ${shown(to)}`;
}

// A button with a box under it that closes by Escape and by a click elsewhere.
export function dropdown(label, name, fill) {
  const box = make("div", { class: "dropdown-box", hidden: true });
  const words = make("span", {}, label);
  const button = make("button", { type: "button", class: "dropdown-button", "aria-haspopup": "true", "aria-expanded": "false", "data-control": name }, words);
  const root = make("div", { class: "dropdown" }, button, box);
  const close = () => {
    box.hidden = true;
    button.setAttribute("aria-expanded", "false");
  };
  button.addEventListener("click", () => {
    if (!box.hidden) return close();
    box.replaceChildren(...fill(close));
    box.hidden = false;
    button.setAttribute("aria-expanded", "true");
  });
  document.addEventListener("pointerdown", (event) => root.contains(event.target) || close());
  root.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    close();
    button.focus();
  });
  return { root, say: (text) => (words.textContent = text) };
}

export function timePicker(page) {
  const picker = dropdown(say(page.range), "time", (close) => {
    const from = make("input", { name: "from", value: shown(page.range.from), spellcheck: "false", autocomplete: "off" });
    const to = make("input", { name: "to", value: shown(page.range.to), spellcheck: "false", autocomplete: "off" });
    const choose = (start, stop) => () => {
      close();
      page.setRange(start, stop);
    };
    const apply = () => choose(written(from.value), written(to.value))();
    const enter = (event) => event.key === "Enter" && apply();
    from.addEventListener("keydown", enter);
    to.addEventListener("keydown", enter);
    return [
      make(
        "div",
        { class: "time-box" },
        make(
          "div",
          { class: "absolute" },
          make("label", {}, "From", from),
          make("label", {}, "To", to),
          make("p", {}, "now-6h, now/d, 2023-11-16 18:00 (UTC), or milliseconds since 1970"),
          make("button", { type: "button", class: "primary", onclick: apply }, "Apply"),
        ),
        make(
          "div",
          { class: "quick" },
          ...QUICK.map(([start, words]) => make("button", { type: "button", onclick: choose(start, "now") }, words)),
          ...DAYS.map(([start, stop, words]) => make("button", { type: "button", onclick: choose(start, stop) }, words)),
        ),
      ),
    ];
  });
  return picker;
}

// A fixed time as it is read, without the seconds where they are none; what is relative stays as it is written.
function shown(text) {
  if (text.startsWith("now")) return text;
  const parsed = /^\d{6,}$/.test(text) ? Number(text) : Date.parse(text);
  return Number.isFinite(parsed) ? moment(parsed).replace(/:00$/, "") : text;
}

function written(text) {
  const trimmed = text.trim();
  if (/^\d{4}-\d\d-\d\d/.test(trimmed)) {
    const hasZone = /(Z|[+-]\d\d:?\d\d)$/.test(trimmed);
    const parsed = Date.parse(trimmed.replace(" ", "T") + (hasZone || trimmed.length === 10 ? "" : "Z"));
    if (Number.isFinite(parsed)) return String(parsed);
  }
  return trimmed;
}

export function refreshPicker(page, intervals) {
  const words = (text) => (text ? `⟳ ${text}` : "⟳ off");
  const picker = dropdown(words(page.refresh), "refresh", (close) => [
    make(
      "div",
      { class: "choices" },
      ...["", ...intervals].map((text) =>
        make(
          "button",
          {
            type: "button",
            onclick: () => {
              close();
              page.setRefresh(text);
              picker.say(words(text));
            },
          },
          text || "off",
        ),
      ),
    ),
  ]);
  return picker;
}

export function variablePicker(page, variable) {
  const words = (chosen) => (chosen.includes("$__all") ? "All" : chosen.length > 2 ? `${chosen.length} chosen` : chosen.join(" + "));
  const picker = dropdown("", `var-${variable.name}`, (close) => {
    let chosen = new Set(page.variables[variable.name] || ["$__all"]);
    const list = make("div", { class: "options" });
    const search = make("input", { type: "search", placeholder: `Search ${variable.options.length}`, "aria-label": `Search ${variable.label}` });
    const done = () => {
      const values = chosen.size ? [...chosen] : ["$__all"];
      picker.say(`${variable.label}: ${words(values)}`);
      page.setVariable(variable.name, values);
    };
    const option = (value, label) => {
      const box = make("input", { type: "checkbox", value, checked: chosen.has(value) });
      box.addEventListener("change", () => {
        if (value === "$__all") chosen = new Set(["$__all"]);
        else {
          chosen.delete("$__all");
          if (!variable.multi) chosen.clear();
          if (box.checked) chosen.add(value);
          else chosen.delete(value);
        }
        for (const other of list.querySelectorAll("input")) other.checked = chosen.has(other.value);
        done();
      });
      return make("label", {}, box, label);
    };
    const fill = () => {
      const wanted = search.value.toLowerCase();
      const hits = variable.options.filter((value) => value.toLowerCase().includes(wanted)).slice(0, 300);
      list.replaceChildren(option("$__all", "All"), ...hits.map((value) => option(value, value)));
    };
    search.addEventListener("input", fill);
    fill();
    return [make("div", { class: "variable-box" }, search, list, make("button", { type: "button", onclick: close }, "Close"))];
  });
  picker.say(`${variable.label}: ${words(variable.chosen)}`);
  return picker;
}

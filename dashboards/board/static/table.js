// Tables and texts.

import { make, safe } from "./dom.js";
import { color, mapping, valueColor } from "./theme.js";
import { ago, format, moment } from "./units.js";

const PAGE = 200;

function words(value, column) {
  const { field } = column;
  const mapped = mapping(value, field);
  if (mapped && mapped.text) return mapped.text;
  if (value === null || value === undefined) return "–";
  if (column.type === "time") return field.unit === "dateTimeFromNow" ? ago(value) : moment(value);
  if (typeof value === "number") return format(value, field.unit, field.decimals);
  return String(value);
}

function link(column, value, range) {
  const [first] = column.field.links || [];
  if (!first || value === null) return null;
  const url = first.url
    .replaceAll("${__value.raw}", encodeURIComponent(String(value)))
    .replaceAll("${__url_time_range}", range);
  return safe(url);
}

function cell(column, row, range) {
  const value = column.values[row];
  const { field } = column;
  const kind = ((field.custom || {}).cellOptions || {}).type || "auto";
  const node = make("td", { class: `is-${column.type} ${kind}`, "data-value": value === null ? "" : String(value) });
  const text = words(value, column);
  const href = link(column, value, range);
  const tint = valueColor(value, field);
  if (kind === "gauge" && typeof value === "number") {
    const low = field.min ?? 0;
    const share = Math.min(1, Math.max(0, (value - low) / ((field.max ?? 1) - low || 1)));
    const fill = make("i", { style: { width: `${(share * 100).toFixed(1)}%`, background: tint || color("blue") } });
    node.append(make("span", { class: "cell-track" }, fill), make("b", {}, text));
  } else if (kind === "color-background" && tint && value !== null) {
    node.append(make("span", { class: "pill", style: { "--tint": tint } }, text));
  } else {
    node.append(href ? make("a", { href }, text) : text);
    if (kind === "color-text" && tint && value !== null) node.style.setProperty("color", tint);
  }
  if (column.type === "time" && value !== null) node.title = `${moment(value)} UTC`;
  return node;
}

export function table(element, drawn, { range = "" } = {}) {
  const state = element.sorting || (element.sorting = { column: null, down: false });
  const count = drawn.columns.length ? drawn.columns[0].values.length : 0;
  const order = Array.from({ length: count }, (_, index) => index);
  const by = drawn.columns.find((column) => column.name === state.column);
  if (by) {
    order.sort((one, other) => compare(by.values[one], by.values[other]) * (state.down ? -1 : 1));
  }
  const sort = (name) => () => {
    state.down = state.column === name ? !state.down : false;
    state.column = name;
    table(element, drawn, { range });
  };
  const head = drawn.columns.map((column) => {
    const width = (column.field.custom || {}).width;
    const mark = state.column === column.name ? (state.down ? " ↓" : " ↑") : "";
    return make(
      "th",
      { class: `is-${column.type}`, style: width ? { width: `${width}px` } : {}, "aria-sort": mark ? (state.down ? "descending" : "ascending") : null },
      make("button", { type: "button", onclick: sort(column.name) }, (column.field.displayName || column.name) + mark),
    );
  });
  const top = element.querySelector(".scroll") ? element.querySelector(".scroll").scrollTop : 0;
  const body = order.slice(0, PAGE * 5).map((row) => make("tr", {}, ...drawn.columns.map((column) => cell(column, row, range))));
  const box = make("div", { class: "scroll", tabindex: "0" }, make("table", {}, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...body)));
  if (drawn.rows > body.length) box.append(make("p", { class: "more" }, `${(drawn.rows - body.length).toLocaleString("en-US")} more rows: download the CSV`));
  element.replaceChildren(box);
  box.scrollTop = top;
}

function compare(one, other) {
  if (one === other) return 0;
  if (one === null) return 1;
  if (other === null) return -1;
  if (typeof one === "number" && typeof other === "number") return one - other;
  return String(one).localeCompare(String(other), "en", { numeric: true });
}

// The little of Markdown that the dashboards' texts use: paragraphs, lists, **bold**, `code` and links.
export function text(element, drawn) {
  const blocks = String(drawn.options.content || "").split(/\n{2,}/);
  element.replaceChildren(
    make(
      "div",
      { class: "text" },
      ...blocks.map((block) => {
        const rows = block.trim().split("\n");
        if (rows.every((row) => /^[-*] /.test(row))) return make("ul", {}, ...rows.map((row) => make("li", {}, ...inline(row.slice(2)))));
        const heading = /^(#{1,3}) (.*)$/.exec(rows[0]);
        if (heading) return make("h3", {}, ...inline(heading[2]));
        return make("p", {}, ...inline(rows.join(" ")));
      }),
    ),
  );
}

function inline(source) {
  return source.split(/(\*\*[^*]+\*\*|`[^`]+`|\[[^\]]+\]\([^)\s]+\))/).map((part) => {
    if (part.startsWith("**")) return make("b", {}, part.slice(2, -2));
    if (part.startsWith("`")) return make("code", {}, part.slice(1, -1));
    const found = /^\[([^\]]+)\]\(([^)\s]+)\)$/.exec(part);
    const href = found && safe(found[2]);
    return href ? make("a", { href }, found[1]) : part;
  });
}

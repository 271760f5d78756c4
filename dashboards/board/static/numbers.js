// Single numbers: tiles with a trend, dials and bars.

import { plot } from "./charts.js";
import { drawing, make } from "./dom.js";
import { color, look, mapping, valueColor } from "./theme.js";
import { format, split } from "./units.js";

function words(value, field) {
  const mapped = mapping(value, field);
  return mapped && mapped.text ? mapped.text : format(value, field.unit, field.decimals);
}

// A line under the number; a gap in the data is a gap in the line.
function trend(values, tint) {
  const known = values.filter((value) => value !== null);
  if (known.length < 2) return null;
  const low = Math.min(...known);
  const high = Math.max(...known);
  const height = (value) => (high === low ? 20 : 36 - (32 * (value - low)) / (high - low));
  const width = 100 / (values.length - 1);
  const runs = [];
  values.forEach((value, index) => {
    if (value === null) return;
    const point = [(index * width).toFixed(2), height(value).toFixed(2)];
    if (index > 0 && values[index - 1] !== null) runs[runs.length - 1].push(point);
    else runs.push([point]);
  });
  const line = runs.map((run) => `M${run.map((point) => point.join(",")).join("L")}`).join("");
  const area = runs.map((run) => `M${run[0][0]},40L${run.map((point) => point.join(",")).join("L")}L${run[run.length - 1][0]},40Z`).join("");
  return drawing(
    "svg",
    { viewBox: "0 0 100 40", preserveAspectRatio: "none", class: "trend", "aria-hidden": "true" },
    drawing("path", { d: area, fill: tint, opacity: "0.13" }),
    drawing("path", { d: line, fill: "none", stroke: tint, "stroke-width": "1.5", "vector-effect": "non-scaling-stroke", "stroke-linejoin": "round" }),
  );
}

export function stat(element, drawn) {
  const filled = drawn.options.colorMode === "background";
  const many = drawn.numbers.length > 1;
  const frame = element.closest(".panel");
  frame.classList.toggle("filled", filled);
  if (filled) frame.style.setProperty("--tint", valueColor(drawn.numbers[0].value, drawn.numbers[0].field) || color("text"));
  element.replaceChildren(
    make(
      "div",
      { class: "stats" },
      ...drawn.numbers.map((one) => {
        const tint = valueColor(one.value, one.field) || color("text");
        const [number, unit] = split(words(one.value, one.field));
        const tile = make(
          "div",
          { class: "stat", "data-name": one.name, "data-value": one.value },
          make("div", { class: "stat-number", style: { color: tint } }, number, unit ? make("small", {}, ` ${unit}`) : null),
          many ? make("div", { class: "stat-name" }, one.name) : null,
          one.trend && drawn.options.graphMode !== "none" ? trend(one.trend, tint) : null,
        );
        // All of a number or none: cut off at the panel's edge, a long one would read as another one.
        tile.style.setProperty("--letters", (number.length + (unit ? 0.6 * (unit.length + 1) : 0)) * drawn.numbers.length);
        return tile;
      }),
    ),
  );
}

export function gauge(element, drawn) {
  const [one] = drawn.numbers;
  const tone = look();
  const { field } = one;
  const low = field.min ?? 0;
  const high = field.max ?? 100;
  const steps = (field.thresholds || { steps: [] }).steps;
  const bands = steps.map((step, index) => [
    Math.min(1, Math.max(0, ((steps[index + 1] ? steps[index + 1].value : high) - low) / (high - low))),
    color(step.color),
  ]);
  element.dataset.value = one.value;
  element.dataset.name = one.name;
  plot(
    element,
    {
      animation: false,
      series: [
        {
          type: "gauge", startAngle: 210, endAngle: -30, min: low, max: high, radius: "96%", center: ["50%", "58%"],
          axisLine: { lineStyle: { width: 4, color: bands } },
          progress: { show: false }, pointer: { show: false }, axisTick: { show: false }, splitLine: { show: false },
          axisLabel: { show: false }, detail: { show: false }, data: [],
        },
        {
          type: "gauge", startAngle: 210, endAngle: -30, min: low, max: high, radius: "88%", center: ["50%", "58%"],
          axisLine: { lineStyle: { width: 14, color: [[1, tone.line]] } },
          progress: { show: true, width: 14, itemStyle: { color: valueColor(one.value, field) } },
          pointer: { show: false }, axisTick: { show: false }, splitLine: { show: false }, axisLabel: { show: false },
          detail: { formatter: () => words(one.value, field), color: valueColor(one.value, field), fontSize: 24, fontWeight: 600, offsetCenter: [0, "4%"] },
          data: [{ value: one.value }],
        },
      ],
    },
    { linked: false },
  );
}

export function bars(element, drawn) {
  const highest = Math.max(...drawn.numbers.map((one) => one.value), 0);
  element.replaceChildren(
    make(
      "div",
      { class: "bars" },
      ...drawn.numbers.map((one) => {
        const low = one.field.min ?? 0;
        const high = one.field.max ?? highest;
        const share = high > low ? Math.min(1, Math.max(0, (one.value - low) / (high - low))) : 0;
        const tint = valueColor(one.value, one.field) || color("blue");
        return make(
          "div",
          { class: "bar", "data-name": one.name, "data-value": one.value },
          make("span", { class: "bar-name", title: one.name }, one.name),
          make("span", { class: "bar-track" }, make("i", { style: { width: `${(share * 100).toFixed(2)}%`, background: tint } })),
          make("b", { style: { color: tint } }, words(one.value, one.field)),
        );
      }),
    ),
  );
}

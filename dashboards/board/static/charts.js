// Lines over time on ECharts: shared crosshair, zoom by dragging, gaps where there is no data.

import { echarts } from "../echarts/index.js";
import { make } from "./dom.js";
import { color, look, seriesColors } from "./theme.js";
import { clock, format, moment } from "./units.js";

const GROUP = "board";
const GAP_POINT = 5;

export const plots = new Map();

// One chart an element; it follows the element's size and dies with it.
export function plot(element, option, { linked = true } = {}) {
  let chart = echarts.getInstanceByDom(element);
  if (!chart) {
    chart = echarts.init(element, null, { renderer: "canvas", useDirtyRect: false });
    const observer = new ResizeObserver(() => chart.resize());
    observer.observe(element);
    chart.on("dispose", () => observer.disconnect());
    element.addEventListener("pointerenter", () => (element.dataset.hovered = ""));
    element.addEventListener("pointerleave", () => delete element.dataset.hovered);
    if (linked) {
      chart.group = GROUP;
      echarts.connect(GROUP);
    }
    plots.set(element, chart);
  }
  chart.setOption(option, { notMerge: true });
  return chart;
}

export function drop(element) {
  const chart = plots.get(element);
  if (chart) chart.dispose();
  plots.delete(element);
}

export function timeAxis(drawn) {
  const tone = look();
  const span = drawn.to - drawn.from;
  return {
    type: "time",
    min: drawn.from,
    max: drawn.to,
    axisLine: { lineStyle: { color: tone.line } },
    axisTick: { show: false },
    axisLabel: { color: tone.soft, hideOverlap: true, formatter: (value) => clock(value, span), margin: 10, fontSize: 11 },
    splitLine: { show: false },
  };
}

export function tip(element, rows, title) {
  // The others of the group get the crosshair; only the panel under the pointer says the numbers.
  if (element.dataset.hovered === undefined) return "";
  const shown = rows.slice(0, 14);
  const list = make(
    "div",
    { class: "tip" },
    make("div", { class: "tip-title" }, title),
    ...shown.map((row) =>
      make(
        "div",
        { class: "tip-row" },
        make("i", { class: "dot", style: { background: row.color } }),
        make("span", {}, row.name),
        make("b", {}, row.text),
      ),
    ),
  );
  if (rows.length > shown.length) list.append(make("div", { class: "tip-more" }, `and ${rows.length - shown.length} more`));
  return list;
}

export function tooltipStyle() {
  const tone = look();
  return {
    backgroundColor: tone.panel,
    borderColor: tone.line,
    textStyle: { color: tone.ink, fontSize: 12 },
    padding: [8, 10],
    confine: true,
    transitionDuration: 0,
    className: "board-tooltip",
  };
}

function points(times, values) {
  return times.map((time, index) => {
    const alone = values[index] !== null && values[index - 1] == null && values[index + 1] == null;
    return alone ? { value: [time, values[index]], symbol: "circle", symbolSize: GAP_POINT } : [time, values[index]];
  });
}

function thresholdLines(drawn) {
  const custom = drawn.field.custom || {};
  const mode = custom.thresholdsStyle && custom.thresholdsStyle.mode;
  if (!mode || mode === "off") return undefined;
  const steps = (drawn.field.thresholds || { steps: [] }).steps.filter((step) => typeof step.value === "number");
  return {
    silent: true,
    symbol: "none",
    label: { show: false },
    data: steps.map((step) => ({ yAxis: step.value, lineStyle: { color: color(step.color), type: "dashed", width: 1 } })),
  };
}

export function lines(element, drawn, onZoom) {
  element.classList.add("with-legend");
  const legend = drawn.options.legend || {};
  element.classList.toggle("legend-right", legend.displayMode === "table" && legend.placement === "right");
  let canvas = element.querySelector(":scope > .canvas");
  if (!canvas) {
    canvas = make("div", { class: "canvas" });
    element.replaceChildren(canvas, make("div", { class: "legend" }));
  }
  const tone = look();
  const custom = drawn.field.custom || {};
  const stacked = custom.stacking && custom.stacking.mode === "normal";
  const colors = seriesColors(drawn.series.map((one) => one.name));
  const hidden = element.hiddenSeries || (element.hiddenSeries = new Set());
  const { unit, decimals } = drawn.field;
  const opacity = (custom.fillOpacity ?? 0) / 100;
  const option = {
    animation: false,
    useUTC: true,
    grid: { left: 6, right: 14, top: 10, bottom: 2, containLabel: true },
    xAxis: timeAxis(drawn),
    yAxis: {
      type: "value",
      min: stacked ? undefined : drawn.field.min,
      max: drawn.field.max,
      interval: drawn.field.max === undefined || drawn.field.min === undefined ? undefined : (drawn.field.max - drawn.field.min) / 4,
      scale: drawn.field.min === undefined,
      splitNumber: 4,
      axisLabel: { color: tone.soft, formatter: (value) => format(value, unit, undefined), fontSize: 11 },
      splitLine: { lineStyle: { color: tone.line, opacity: 0.7 } },
    },
    toolbox: { show: true, top: -100, feature: { dataZoom: { yAxisIndex: "none", brushStyle: { color: tone.ink, opacity: 0.15 } } } },
    tooltip: {
      ...tooltipStyle(),
      trigger: "axis",
      axisPointer: { type: "line", lineStyle: { color: tone.soft, width: 1 }, label: { show: false } },
      formatter: (hits) => {
        const rows = hits
          .filter((hit) => hit.value && hit.value[1] !== null && hit.value[1] !== undefined)
          .sort((one, other) => other.value[1] - one.value[1])
          .map((hit) => ({ name: hit.seriesName, color: hit.color, text: format(hit.value[1], unit, decimals) }));
        return tip(canvas, rows, hits.length ? moment(hits[0].axisValue) : "");
      },
    },
    series: drawn.series.map((one, index) => ({
      name: one.name,
      type: "line",
      data: hidden.has(one.name) ? [] : points(drawn.times, one.values),
      color: colors[index],
      symbol: "none",
      showSymbol: true,
      connectNulls: false,
      lineStyle: { width: custom.lineWidth ?? 1.5 },
      areaStyle: opacity ? { opacity } : undefined,
      stack: stacked ? "all" : undefined,
      emphasis: { disabled: true },
      markLine: index === 0 ? thresholdLines(drawn) : undefined,
    })),
  };
  const chart = plot(canvas, option);
  zoomable(chart, onZoom);
  legendOf(element, drawn, colors, hidden, () => lines(element, drawn, onZoom));
}

// Dragging across selects a range; the page turns it into the range of all panels.
export function zoomable(chart, onZoom) {
  chart.dispatchAction({ type: "takeGlobalCursor", key: "dataZoomSelect", dataZoomSelectActive: true });
  chart.off("datazoom");
  chart.on("datazoom", (event) => {
    const range = event.batch && event.batch[0];
    if (range && Number.isFinite(range.startValue) && Number.isFinite(range.endValue)) {
      onZoom(Math.round(range.startValue), Math.round(range.endValue));
    }
  });
}

const CALCS = { lastNotNull: "last", last: "last", mean: "mean", max: "max", min: "min", sum: "total" };

function legendOf(element, drawn, colors, hidden, redraw) {
  const box = element.querySelector(":scope > .legend");
  const options = drawn.options.legend || {};
  if (options.showLegend === false || (drawn.series.length === 1 && !(options.calcs || []).length && !drawn.series[0].name)) {
    box.replaceChildren();
    return;
  }
  const calcs = options.calcs || [];
  const { unit, decimals } = drawn.field;
  const pick = (name) => () => {
    if (hidden.has(name)) hidden.delete(name);
    else hidden.add(name);
    redraw();
  };
  const entry = (one, index) =>
    make(
      "button",
      { type: "button", class: hidden.has(one.name) ? "entry off" : "entry", onclick: pick(one.name), title: one.name },
      make("i", { class: "dot", style: { background: colors[index] } }),
      make("span", { class: "name" }, one.name),
      ...calcs.map((calc) =>
        make("b", { class: "calc", title: CALCS[calc] || calc }, format(one.calcs[calc], unit, decimals)),
      ),
    );
  const head = calcs.length
    ? [make("div", { class: "entry head" }, make("span", { class: "name" }, ""), ...calcs.map((calc) => make("b", { class: "calc" }, CALCS[calc] || calc)))]
    : [];
  box.replaceChildren(...head, ...drawn.series.map(entry));
}

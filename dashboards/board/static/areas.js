// Panels that fill areas: heat map, state timeline, and the map of places.

import { echarts } from "../echarts/index.js";
import { plot, timeAxis, tip, tooltipStyle, zoomable } from "./charts.js";
import { make } from "./dom.js";
import { color, HEAT, look, mapping, valueColor } from "./theme.js";
import { clock, format, moment } from "./units.js";

const ROW_LABEL = 170;

// Names from top to bottom; the buckets of a histogram from bottom to top.
function nameAxis(names, unit) {
  const tone = look();
  const buckets = names.length > 0 && names.every((name) => /^\d+(\.\d+)?$/.test(name));
  return {
    type: "category",
    data: buckets ? names.map((name) => format(Number(name), unit)) : names,
    inverse: !buckets,
    axisLine: { show: false },
    axisTick: { show: false },
    axisLabel: { color: tone.soft, fontSize: 11, width: ROW_LABEL, overflow: "truncate", interval: names.length > 60 ? "auto" : 0 },
    splitLine: { show: false },
  };
}

export function heatMap(element, drawn) {
  const tone = look();
  const span = drawn.to - drawn.from;
  const cells = [];
  let low = Infinity;
  let high = -Infinity;
  drawn.series.forEach((one, row) =>
    one.values.forEach((value, column) => {
      if (value === null) return;
      cells.push([column, row, value]);
      low = Math.min(low, value);
      high = Math.max(high, value);
    }),
  );
  const scale = drawn.options.color || {};
  low = scale.min ?? low;
  high = Math.max(scale.max ?? high, low + 1e-9);
  const { unit, decimals } = drawn.field;
  plot(
    element,
    {
      animation: false,
      grid: { left: 6, right: 14, top: 6, bottom: 30, containLabel: true },
      xAxis: {
        type: "category",
        data: drawn.times,
        axisLine: { lineStyle: { color: tone.line } },
        axisTick: { show: false },
        axisLabel: { color: tone.soft, fontSize: 11, hideOverlap: true, formatter: (value) => clock(Number(value), span) },
      },
      yAxis: nameAxis(drawn.series.map((one) => one.name), (drawn.options.yAxis || {}).unit),
      visualMap: {
        type: "continuous",
        min: low,
        max: high,
        calculable: false,
        orient: "horizontal",
        right: 12,
        bottom: 0,
        itemWidth: 8,
        itemHeight: 120,
        text: [format(high, unit, decimals), format(low, unit, decimals)],
        textStyle: { color: tone.soft, fontSize: 11 },
        inRange: { color: HEAT },
      },
      tooltip: {
        ...tooltipStyle(),
        formatter: (hit) =>
          tip(
            element,
            [{ name: drawn.series[hit.value[1]].name, color: hit.color, text: format(hit.value[2], unit, decimals) }],
            moment(drawn.times[hit.value[0]]),
          ),
      },
      series: [
        {
          type: "heatmap",
          data: cells,
          progressive: 0,
          itemStyle: { borderWidth: cells.length > 4000 ? 0 : 1, borderColor: tone.panel },
          emphasis: { itemStyle: { borderColor: tone.ink, borderWidth: 1 } },
        },
      ],
    },
    { linked: false },
  );
}

// Neighbours of one value become one bar; a bucket without data leaves a gap.
export function segments(times, values, step, end) {
  const found = [];
  times.forEach((time, index) => {
    const value = values[index];
    const stop = Math.min(times[index + 1] ?? time + step, time + step);
    const last = found[found.length - 1];
    if (value === null) return;
    if (last && last.value === value && last.stop >= time) last.stop = Math.min(stop, end);
    else found.push({ value, start: time, stop: Math.min(stop, end) });
  });
  return found;
}

export function stateTimeline(element, drawn, onZoom) {
  let canvas = element.querySelector(":scope > .canvas");
  if (!canvas) {
    canvas = make("div", { class: "canvas" });
    element.classList.add("with-legend");
    element.replaceChildren(canvas, make("div", { class: "legend" }));
  }
  const tone = look();
  const data = [];
  drawn.series.forEach((one, row) => {
    for (const part of segments(drawn.times, one.values, drawn.interval * 1000, drawn.to)) {
      data.push({
        name: one.name,
        value: [row, part.start, part.stop, String(part.value)],
        itemStyle: { color: valueColor(part.value, drawn.field) || tone.soft },
      });
    }
  });
  const words = (value) => (mapping(value, drawn.field) || {}).text || format(value, drawn.field.unit);
  const chart = plot(canvas, {
    animation: false,
    useUTC: true,
    grid: { left: 6, right: 14, top: 4, bottom: 2, containLabel: true },
    xAxis: timeAxis(drawn),
    yAxis: nameAxis(drawn.series.map((one) => one.name)),
    // Nothing is filtered: a state that began before the range would not be drawn at all.
    toolbox: { show: true, top: -100, feature: { dataZoom: { yAxisIndex: "none", filterMode: "none" } } },
    tooltip: {
      ...tooltipStyle(),
      trigger: "item",
      formatter: (hit) =>
        tip(
          canvas,
          [{ name: words(hit.value[3]), color: hit.color, text: `${moment(hit.value[1])} – ${moment(hit.value[2])}` }],
          hit.name,
        ),
    },
    series: [
      {
        type: "custom",
        clip: true,
        progressive: 0,
        encode: { x: [1, 2], y: 0 },
        data,
        renderItem: (parameters, api) => {
          const from = api.coord([api.value(1), api.value(0)]);
          const to = api.coord([api.value(2), api.value(0)]);
          const height = Math.max(3, api.size([0, 1])[1] * 0.78);
          const area = { x: from[0], y: from[1] - height / 2, width: Math.max(1, to[0] - from[0]), height };
          const { x, y, width, height: tall } = parameters.coordSys;
          const shape = echarts.graphic.clipRectByRect(area, { x, y, width, height: tall });
          return shape && { type: "rect", shape: { ...shape, r: 1 }, style: { fill: api.visual("color"), opacity: 0.9 } };
        },
      },
    ],
  });
  zoomable(chart, onZoom);
  const known = (drawn.field.mappings || []).flatMap((one) => (one.type === "value" ? Object.values(one.options) : []));
  element.querySelector(":scope > .legend").replaceChildren(
    ...known.map((one) =>
      make("span", { class: "entry" }, make("i", { class: "dot", style: { background: color(one.color) } }), make("span", { class: "name" }, one.text)),
    ),
  );
}

// Places on a plain grid of longitude and latitude: an outline of land needs a map that an operator may show.
export function places(element, drawn) {
  const tone = look();
  const column = (name) => (drawn.columns.find((one) => one.name === name) || { values: [] }).values;
  const [latitude, longitude, value, weight] = ["latitude", "longitude", "value", "weight"].map(column);
  const names = (drawn.columns.find((one) => one.type === "text") || { values: [] }).values;
  const heaviest = Math.max(...weight.filter((one) => one !== null), 1);
  const unit = drawn.field.unit;
  const data = names.map((name, index) => ({
    name,
    value: [longitude[index], latitude[index], value[index]],
    symbolSize: weight[index] === null || weight[index] === undefined ? 8 : 8 + 26 * Math.sqrt(weight[index] / heaviest),
    itemStyle: { color: value[index] === null ? tone.soft : valueColor(value[index], drawn.field), opacity: 0.85, borderColor: tone.panel, borderWidth: 1 },
    label: { show: (weight[index] || 0) > heaviest * 0.12 },
  }));
  const axis = (sign) => ({
    type: "value",
    scale: true,
    axisLine: { show: false },
    axisTick: { show: false },
    axisLabel: { color: tone.soft, fontSize: 10, formatter: (degree) => `${Math.abs(degree)}°${sign}` },
    splitLine: { lineStyle: { color: tone.line, type: "dotted" } },
  });
  plot(
    element,
    {
      animation: false,
      grid: { left: 4, right: 20, top: 12, bottom: 4, containLabel: true },
      xAxis: { ...axis("E"), min: (range) => Math.floor(range.min / 5) * 5, max: (range) => Math.ceil(range.max / 5) * 5 + 5, interval: 5 },
      yAxis: { ...axis("N"), min: (range) => Math.floor(range.min / 5) * 5, max: (range) => Math.ceil(range.max / 5) * 5, interval: 5 },
      tooltip: {
        ...tooltipStyle(),
        formatter: (hit) =>
          tip(element, [{ name: "completeness", color: hit.color, text: format(hit.value[2], unit, 1) }, ...(weight[hit.dataIndex] == null ? [] : [{ name: "power", color: "transparent", text: format(weight[hit.dataIndex], "watt") }])], hit.name),
      },
      series: [
        {
          type: "scatter",
          data,
          label: { position: "right", formatter: "{b}", color: tone.soft, fontSize: 10 },
          labelLayout: { hideOverlap: true },
          emphasis: { scale: 1.15 },
        },
      ],
    },
    { linked: false },
  );
}

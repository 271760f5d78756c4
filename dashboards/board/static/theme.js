// Colours: Grafana's names, in shades that can be read on both backgrounds.

const NAMED = {
  dark: {
    green: "#4fc978", "dark-green": "#23704a", yellow: "#f2cc4d", orange: "#ff9a3d", red: "#ff5c68", blue: "#5ea3ff", purple: "#b48cf2",
    text: "#dfe5ee", transparent: "transparent",
  },
  light: {
    green: "#117a3d", "dark-green": "#5fae84", yellow: "#8a6400", orange: "#b45300", red: "#c4162a", blue: "#1a5fc4", purple: "#7a3fc0",
    text: "#1c2530", transparent: "transparent",
  },
};

const SERIES = {
  dark: ["#5ea3ff", "#3fd0b0", "#f5c451", "#f2799f", "#a78bfa", "#56c8ef", "#ff9a6b", "#97cf55", "#e08be0", "#c3cfdd"],
  light: ["#1f6fd6", "#0b8f74", "#b07a00", "#c93d70", "#6a48d0", "#0e7fa8", "#c2571c", "#56861a", "#a540a5", "#5b6b7e"],
};

const LOOK = {
  dark: { ink: "#dfe5ee", soft: "#8e9bae", line: "#232b38", panel: "#121822", page: "#0a0e14" },
  light: { ink: "#1c2530", soft: "#5a6675", line: "#e3e8ee", panel: "#ffffff", page: "#f2f5f8" },
};

// Low to high; no red, because much is not bad everywhere, and no colour that a colour-blind eye takes for another.
export const HEAT = ["#26366b", "#2b5f96", "#2a8ba3", "#37b38d", "#8fd05f", "#f4dc4c"];

export const theme = () => (document.documentElement.dataset.theme === "light" ? "light" : "dark");
export const look = () => LOOK[theme()];

export function color(name) {
  if (!name) return NAMED[theme()].text;
  return NAMED[theme()][name] || NAMED[theme()][name.replace(/^(semi-dark|dark|light|super-light)-/, "")] || name;
}

// A name has the same colour in every panel, unless another of its panel took it first.
export function seriesColors(names) {
  const palette = SERIES[theme()];
  const taken = new Set();
  return names.map((name) => {
    let index = hash(name) % palette.length;
    for (let tries = 0; taken.has(index) && tries < palette.length; tries += 1) index = (index + 1) % palette.length;
    taken.add(index);
    return palette[index];
  });
}

function hash(text) {
  let value = 2166136261;
  for (const letter of text) value = Math.imul(value ^ letter.codePointAt(0), 16777619) >>> 0;
  return value;
}

export function toggle() {
  const next = theme() === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  try {
    localStorage.setItem("board-theme", next);
  } catch {
    // Not kept where storage is forbidden; the page itself has changed all the same.
  }
}

// The colour of a value by thresholds or by the mapping of its words; null where neither says.
export function valueColor(value, field) {
  const mapped = mapping(value, field);
  if (mapped && mapped.color) return color(mapped.color);
  const steps = field.thresholds && field.thresholds.steps;
  if (!steps || typeof value !== "number") return null;
  let scale = value;
  if (field.thresholds.mode === "percentage") {
    const low = field.min ?? 0;
    scale = (100 * (value - low)) / ((field.max ?? 100) - low || 1);
  }
  let found = steps[0];
  for (const step of steps) if (step.value === null || step.value === undefined || scale >= step.value) found = step;
  return color(found.color);
}

export function mapping(value, field) {
  for (const one of field.mappings || []) {
    if (one.type === "value" && one.options[String(value)]) return one.options[String(value)];
  }
  return null;
}

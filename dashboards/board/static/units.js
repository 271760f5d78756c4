// Numbers in words, as Grafana writes them: three digits that count, unless the field sets its decimals.

const METRIC = ["f", "p", "n", "µ", "m", "", "k", "M", "G", "T", "P", "E"];
const BINARY = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
const SHORT = ["", " K", " Mil", " Bil", " Tri", " Quadr", " Quint"];

export function fixed(value, decimals) {
  let places = decimals;
  if (places === undefined || places === null) {
    places = Number.isInteger(value) ? 0 : Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))));
  }
  return value.toFixed(Math.min(places, 20));
}

function metric(unit) {
  return (value, decimals) => {
    const size = Math.abs(value);
    const step = size === 0 ? 0 : Math.min(6, Math.max(-5, Math.floor(Math.log10(size) / 3 + 1e-9)));
    return `${fixed(value / 1000 ** step, decimals)} ${METRIC[step + 5]}${unit}`;
  };
}

function scaled(factor, words, join, unit) {
  return (value, decimals) => {
    let step = 0;
    let scale = value;
    while (Math.abs(scale) >= factor && step < words.length - 1) {
      scale /= factor;
      step += 1;
    }
    return `${fixed(scale, decimals)}${join}${words[step]}${unit}`;
  };
}

function seconds(value, decimals) {
  const size = Math.abs(value);
  if (size === 0) return `${fixed(0, decimals)} s`;
  if (size < 1e-6) return `${fixed(value * 1e9, decimals)} ns`;
  if (size < 1e-3) return `${fixed(value * 1e6, decimals)} µs`;
  if (size < 1) return `${fixed(value * 1e3, decimals)} ms`;
  if (size < 60) return `${fixed(value, decimals)} s`;
  const [scale, word] =
    size < 3600 ? [60, "min"] : size < 86400 ? [3600, "hour"] : size < 604800 ? [86400, "day"] : [604800, "week"];
  return `${fixed(value / scale, decimals)} ${word}${Math.abs(value / scale) > 1 ? "s" : ""}`;
}

const counted = (value, decimals) => value.toLocaleString("en-US", { maximumFractionDigits: decimals ?? 3 });

const FORMATS = {
  none: (value, decimals) => fixed(value, decimals),
  short: scaled(1000, SHORT, "", ""),
  sishort: metric(""),
  locale: counted,
  percent: (value, decimals) => `${fixed(value, decimals)}%`,
  percentunit: (value, decimals) => `${fixed(value * 100, decimals)}%`,
  watt: metric("W"),
  joule: metric("J"),
  watth: metric("Wh"),
  bps: metric("b/s"),
  s: seconds,
  ms: (value, decimals) => seconds(value / 1000, decimals),
  bytes: scaled(1024, BINARY, " ", "B"),
  decbytes: metric("B"),
  celsius: (value, decimals) => `${fixed(value, decimals)} °C`,
  reqps: (value, decimals) => `${scaled(1000, SHORT, "", "")(value, decimals)} req/s`,
  dBm: (value, decimals) => `${fixed(value, decimals)} dBm`,
  dateTimeAsIso: (value) => moment(value),
  dateTimeFromNow: (value) => ago(value),
};

// A suffix that stands for no known unit is shown behind the number, as Grafana does.
export function format(value, unit, decimals) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return String(value);
  const known = FORMATS[unit || "none"];
  if (known) return known(value, decimals);
  return `${fixed(value, decimals)} ${String(unit).replace(/^(suffix|short):/, "")}`;
}

// The number apart from its unit, so that a tile can show the unit smaller.
export function split(text) {
  const found = /^([+−-]?[\d.,]+)\s*(.*)$/.exec(text);
  return found ? [found[1], found[2]] : [text, ""];
}

export function moment(milliseconds) {
  return new Date(milliseconds).toISOString().replace("T", " ").replace(/\.000Z$|Z$/, "");
}

export function clock(milliseconds, span) {
  const text = moment(milliseconds);
  if (span > 2 * 86400e3) return text.slice(5, 16);
  return span > 3600e3 ? text.slice(11, 16) : text.slice(11, 19);
}

export function ago(milliseconds, now = Date.now()) {
  const away = (now - milliseconds) / 1000;
  const size = Math.abs(away);
  const steps = [[60, 1, "s"], [3600, 60, "min"], [86400, 3600, "h"], [Infinity, 86400, "d"]];
  const [, scale, word] = steps.find(([limit]) => size < limit);
  const text = `${Math.floor(size / scale)} ${word}`;
  return away >= 0 ? `${text} ago` : `in ${text}`;
}

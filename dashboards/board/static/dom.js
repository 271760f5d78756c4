// The page is built node by node: nothing that comes from data is ever read as markup.

export function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "style") for (const [name, rule] of Object.entries(value)) node.style.setProperty(name, rule);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

export function drawing(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

export const prefix = () => document.body.dataset.prefix || "";

export async function ask(path, parameters, signal) {
  const response = await fetch(`${prefix()}${path}?${parameters}`, { signal, headers: { accept: "application/json" } });
  let body;
  try {
    body = await response.json();
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error; // given up for a newer one, or cut off: that is no answer
    throw new Error(`The board answered ${response.status} in words that are not JSON.`);
  }
  if (!response.ok) throw new Error(body.error || `The board answered ${response.status}.`);
  return body;
}

// Only addresses of this board and of the web: never javascript: or data:.
export function safe(url) {
  if (url.startsWith("/") && !url.startsWith("//")) return prefix() + url;
  return /^https?:\/\//i.test(url) ? url : null;
}

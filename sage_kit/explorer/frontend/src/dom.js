// Elements from plain calls. Text goes in as text nodes only, so that nothing in the data can become markup.

const SVG = "http://www.w3.org/2000/svg";

/** An element with properties, listeners (onclick), data and children; null and false children are left out. */
export function h(tag, properties = {}, ...children) {
  return fill(document.createElement(tag), properties, children);
}

export function svg(tag, properties = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") Object.assign(element.style, value);
    else if (name in element && !(element instanceof SVGElement) && name !== "list" && typeof value !== "string")
      element[name] = value;
    else element.setAttribute(name === "className" ? "class" : name, value === true ? "" : String(value));
  }
  append(element, children);
  return element;
}

export function append(element, children) {
  for (const child of children.flat(3)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

export function replace(element, ...children) {
  element.replaceChildren();
  append(element, children);
  return element;
}

let lastId = 0;
export const newId = (name) => `sage-${name}-${++lastId}`;

export const count = (value) => (value === null || value === undefined ? "-" : value.toLocaleString("en-US"));

/** A number with three digits that count. */
export function short(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "-";
  const size = Math.abs(value);
  if (size >= 1e6) return value.toExponential(2);
  if (size >= 1000) return count(Math.round(value));
  if (size !== 0 && size < 1e-3) return value.toExponential(1);
  return String(Number(value.toPrecision(3)));
}

export const score = (value) => (value === null || value === undefined ? "-" : value.toFixed(3));
export const percent = (value, digits = 1) =>
  value === null || value === undefined ? "-" : `${(100 * value).toFixed(digits)}\u00a0%`;

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "-";
  if (seconds < 100) return `${seconds.toFixed(seconds < 10 ? 1 : 0)}\u00a0s`;
  if (seconds < 6000) return `${(seconds / 60).toFixed(1)}\u00a0min`;
  return `${(seconds / 3600).toFixed(1)}\u00a0h`;
}

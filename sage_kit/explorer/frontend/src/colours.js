// The colours of losses: a part of magma (matplotlib, CC0), which is perceptually uniform and reads without red-green
// vision. Low losses come near the background, high ones stand out, so the order is turned around in the dark.

const MAGMA = [
  "#000004", "#140e36", "#3b0f70", "#641a80", "#8c2981", "#b73779", "#de4968", "#f7705c", "#fe9f6d", "#fecf92", "#fcfdbf",
].map((text) => [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16)));

export const STEPS = 64;
export const NOT_KNOWN = STEPS;

const RANGE = { light: [0.87, 0.12], dark: [0.25, 0.97] };
const GREY = { light: "#c3c9cf", dark: "#454c54" };

function at(share) {
  const place = Math.min(Math.max(share, 0), 1) * (MAGMA.length - 1);
  const low = Math.min(Math.floor(place), MAGMA.length - 2);
  const part = place - low;
  return `#${MAGMA[low]
    .map((value, i) => Math.round(value + part * (MAGMA[low + 1][i] - value)).toString(16).padStart(2, "0"))
    .join("")}`;
}

/** The colours of all steps, low first, and that of what is not known. */
export function palette(theme) {
  const [first, last] = RANGE[theme];
  const ramp = Array.from({ length: STEPS }, (_, i) => at(first + ((last - first) * i) / (STEPS - 1)));
  return [...ramp, GREY[theme]];
}

/** For each possible code of a loss the step of its colour. */
export function stepsOf(scale) {
  const share = ({ kind, low, high }, value) =>
    kind === "log" ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low);
  const first = share(scale, scale.first);
  const last = share(scale, scale.last);
  const found = new Uint8Array(65536).fill(NOT_KNOWN);
  for (let code = 0; code < 65535; code++) {
    const place = (code / 65534 - first) / (last - first);
    found[code] = Math.min(STEPS - 1, Math.max(0, Math.floor(place * STEPS)));
  }
  return found;
}

/** Values at even distances along the colours. */
export function ticks(scale, many = 3) {
  const { kind, first, last } = scale;
  return Array.from({ length: many }, (_, i) => {
    const share = i / (many - 1);
    return kind === "log" ? first * (last / first) ** share : first + share * (last - first);
  });
}

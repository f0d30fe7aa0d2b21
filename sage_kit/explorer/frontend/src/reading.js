// Small pieces that several parts of the page show: a text, outputs, a synthetic example with its changes marked.

import { UNKNOWN } from "./data.js";
import { count, h, percent, short } from "./dom.js";

export const textOf = (text) => h("span", { className: "text", dir: "auto" }, text || "(no text)");

/** A synthetic example, what is not its anchor's in <mark>. */
export function marked(set, i) {
  if (!set.hasText) return h("span", { className: "hint" }, "This lift moves vectors and makes no text; `sage-kit decode` reads such examples.");
  const pieces = set.pieces(i).map(([text, isChanged]) => (isChanged ? h("mark", {}, text) : text));
  return h("span", { className: "text", dir: "auto" }, ...pieces);
} // prettier-ignore

export function output(found) {
  if (!found) return "-";
  const share = found.share === null ? null : h("span", { className: "share" }, ` ${percent(found.share, 0)}`);
  return h("span", { className: "output", dir: "auto" }, found.words || "-", share);
}

/** The points of highest loss after a round, highest first. */
export function hardest(run, round, most) {
  const codes = run.losses(round);
  if (!codes) return [];
  const counts = new Uint32Array(65536);
  for (const code of codes) counts[code]++;
  let least = UNKNOWN - 1;
  for (let sum = 0; least > 0; least--) {
    sum += counts[least];
    if (sum >= most) break;
  }
  const found = [];
  for (let i = 0; i < codes.length; i++) if (codes[i] >= least && codes[i] !== UNKNOWN) found.push(i);
  return found.sort((a, b) => codes[b] - codes[a]).slice(0, most);
}

/** The words by which points fall into few groups: the teacher's outputs, or else the labels. */
export function grouping(run) {
  const few = (coded) => coded && coded.names.length > 1 && coded.names.length <= 12;
  if (few(run.teacher)) return { of: run.teacher, called: "the teacher says" };
  if (few(run.group.gold)) return { of: run.group.gold, called: "labelled" };
  return null;
}

/** By group: how many points, mean loss after a round, mean agreement; the highest loss first. */
export function byGroup(run, round) {
  const found = grouping(run);
  const codes = run.losses(round);
  if (!found || !codes) return null;
  const rows = found.of.names.map((name) => ({ name: name || "(none)", points: 0, known: 0, loss: 0, alike: 0 }));
  for (let i = 0; i < codes.length; i++) {
    const row = rows[found.of.codes[i]];
    row.points++;
    if (codes[i] !== UNKNOWN) {
      row.known++;
      row.loss += run.value(codes[i]);
    }
    if (run.agreement) row.alike += run.agreement[i] / 255;
  }
  for (const row of rows) {
    row.loss = row.known ? row.loss / row.known : null;
    row.alike = run.agreement ? row.alike / row.points : null;
  }
  return { called: found.called, rows: rows.filter((row) => row.points).sort((a, b) => (b.loss ?? 0) - (a.loss ?? 0)) };
}

/** A table of the groups with bars. */
export function groupTable(run, round) {
  const found = byGroup(run, round);
  if (!found) return null;
  const most = Math.max(...found.rows.map((row) => row.loss ?? 0)) || 1;
  return h("table", { className: "groups" },
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, found.called), h("th", { scope: "col" }, "mean loss"),
      h("th", { scope: "col", className: "number" }, "agree"), h("th", { scope: "col", className: "number" }, "texts"))),
    h("tbody", {}, ...found.rows.map((row) =>
      h("tr", {}, h("th", { scope: "row", dir: "auto" }, row.name),
        h("td", { className: "bar" }, h("span", { className: "number" }, short(row.loss)), h("span", { className: "fill loss", style: { width: `${(52 * (row.loss ?? 0)) / most}%` } })),
        h("td", { className: "number" }, percent(row.alike, 0)), h("td", { className: "number" }, count(row.points))),
    )),
  ); // prettier-ignore
}

// Beside the map: where the student is weak and what was synthesised there, or all about one text.

import { label, lineChart } from "./charts.js";
import { count, h, percent, short } from "./dom.js";
import { groupTable, hardest, marked, output, textOf } from "./reading.js";

const FEW = 3;

/** Weak spots of a round, and some of its synthetic examples. */
export function overview(run, round, onFocus) {
  const groups = groupTable(run, round);
  const hard = hardest(run, round, FEW);
  const set = run.synthetic(round);
  const parts = [h("h2", {}, "Where it is weak")];
  if (groups) parts.push(groups);
  if (hard.length) {
    parts.push(h("h3", {}, `Hardest texts after round ${round}`), h("ol", { className: "plain-list" }, ...hard.map((i) =>
      h("li", {}, h("button", { type: "button", className: "row-button", onclick: () => onFocus(i, -1) }, textOf(run.group.text(i))),
        h("span", { className: "about" }, `loss ${short(run.loss(round, i))}`,
          run.teacher ? [" · teacher ", output(run.output("teacher", i))] : null,
          run.student ? [" · student ", output(run.output("student", i))] : null)),
    ))); // prettier-ignore
  } else parts.push(h("p", { className: "hint" }, "The losses of this round are not kept."));
  parts.push(h("h2", {}, "What was synthesised"));
  if (!set || !set.length) {
    const first = run.facts.synthetic.rounds[0]?.round;
    parts.push(h("p", { className: "hint" }, run.facts.is_plain
      ? "Plain distillation synthesises nothing."
      : first ? `Nothing in round ${round}; the first synthetic examples are those of round ${first}.` : "Nothing yet.")); // prettier-ignore
    return parts;
  }
  parts.push(h("p", {}, `Round ${round} trained on ${count(set.total)} synthetic examples${set.length < set.total ? `, of which ${count(set.length)} are here` : ""}, from ${count(set.anchorCount)} anchors. `, set.hasText ? h("span", {}, h("mark", {}, "Marked"), " is what differs from the anchor.") : null));
  const shown = spread(set, FEW, run, round);
  if (set.hasText)
    parts.push(h("ol", { className: "plain-list" }, ...shown.map((i) =>
      h("li", {}, h("button", { type: "button", className: "row-button", onclick: () => onFocus(set.anchors[i], i) }, marked(set, i)),
        h("span", { className: "about" }, "from: ", h("span", { dir: "auto" }, run.group.text(set.anchors[i])))),
    ))); // prettier-ignore
  else parts.push(h("p", { className: "hint" }, "This lift moves vectors and makes no text; `sage-kit decode` reads such examples."));
  return parts;
} // prettier-ignore

/** Some synthetic examples whose anchors have high losses, each of another anchor. */
function spread(set, most, run, round) {
  const seen = new Set();
  const codes = run.losses(round - 1) ?? run.losses(round);
  const order = Array.from({ length: set.length }, (_, i) => i);
  if (codes) order.sort((a, b) => (codes[set.anchors[b]] % 65535) - (codes[set.anchors[a]] % 65535));
  const found = [];
  for (const i of order) {
    if (seen.has(set.anchors[i])) continue;
    seen.add(set.anchors[i]);
    found.push(i);
    if (found.length === most) break;
  }
  return found;
}

/** All about one text. */
export function details(runs, round, point, synthetic, onBack) {
  const [run] = runs;
  const { group } = run;
  const set = run.synthetic(round);
  const children = set ? set.of(point) : [];
  const facts = [
    ["label", group.gold?.get(point)],
    ["teacher", run.teacher ? output(run.output("teacher", point)) : null],
    ["student", run.student ? output(run.output("student", point)) : null],
    ["agreement", run.agreement ? percent(run.agreement[point] / 255, 0) : null],
    [`loss after round ${round}`, short(run.loss(round, point))],
  ].filter(([, value]) => value !== null && value !== undefined && value !== "");
  const lines = runs.map((one, place) => ({
    name: label(one),
    className: ["own", "plain"][place],
    points: one.facts.loss_rounds.map((number) => {
      const steps = one.facts.rounds.find((known) => known.round === number)?.total_steps;
      return [steps ?? number, one.loss(number, point)];
    }),
  }));
  const chart = Math.max(...lines.map((line) => line.points.length)) > 1 ? lineChart("Its loss, round by round", lines, { fromZero: true }) : null;
  const rounds = run.facts.synthetic.rounds.filter((one) => run.synthetic(one.round).of(point).length).map((one) => one.round);
  return [
    h("div", { className: "side-head" }, h("h2", { tabindex: "-1", className: "focus-target" }, `Text ${count(group.rows[point] + 1)}`),
      h("button", { type: "button", className: "quiet", onclick: onBack }, "Back to overview")),
    h("blockquote", {}, textOf(group.text(point))),
    h("dl", { className: "facts" }, ...facts.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])),
    h("h3", {}, `Synthesised from it in round ${round}`),
    children.length
      ? h("ul", { className: "plain-list made" }, ...children.map((i) => h("li", { className: i === synthetic ? "is-meant" : "" }, marked(set, i),
          set.labels ? h("span", { className: "about" }, "teacher: ", h("span", { dir: "auto" }, set.labels.get(i))) : null)))
      : h("p", { className: "hint" }, rounds.length ? `Nothing in this round; in round ${rounds.join(", ")} it was an anchor.` : "Nothing: it was no anchor in any round."),
    chart,
  ]; // prettier-ignore
}

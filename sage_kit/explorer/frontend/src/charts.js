// Learning curves and costs, as SVG with a table in words beside them.

import { count, duration, h, percent, score, short, svg } from "./dom.js";

const BOX = { width: 380, height: 220, left: 46, right: 12, top: 12, bottom: 34 };

/** One chart of lines: [{name, className, points: [[x, y]]}], and levels: [{name, value}]. */
export function lineChart(title, lines, { levels = [], fromZero = false, unit = "student steps", form = short } = {}) {
  const known = lines
    .map((line) => ({ ...line, points: line.points.filter(([, y]) => y !== null && y !== undefined) }))
    .filter((line) => line.points.length);
  if (!known.length) return null;
  const xs = known.flatMap((line) => line.points.map(([x]) => x));
  const ys = [...known.flatMap((line) => line.points.map(([, y]) => y)), ...levels.map((one) => one.value)];
  let low = fromZero ? Math.min(0, ...ys) : Math.min(...ys);
  let high = Math.max(...ys);
  const room = (high - low || Math.abs(high) || 1) * 0.08;
  if (!fromZero || low < 0) low -= room;
  high += room;
  const first = Math.min(0, ...xs);
  const last = Math.max(...xs, first + 1);
  const x = (value) => BOX.left + ((value - first) / (last - first)) * (BOX.width - BOX.left - BOX.right);
  const y = (value) => BOX.height - BOX.bottom - ((value - low) / (high - low)) * (BOX.height - BOX.top - BOX.bottom);
  const marks = nice(low, high, 4);
  const chart = svg("svg", { viewBox: `0 0 ${BOX.width} ${BOX.height}`, role: "img", "aria-label": spoken(title, known, levels, form) },
    ...marks.map((value) => [
      svg("line", { className: "grid", x1: BOX.left, x2: BOX.width - BOX.right, y1: y(value), y2: y(value) }),
      svg("text", { className: "tick", x: BOX.left - 6, y: y(value) + 4, "text-anchor": "end" }, short(value)),
    ]),
    ...nice(first, last, 4).map((value) =>
      svg("text", { className: "tick", x: x(value), y: BOX.height - BOX.bottom + 16, "text-anchor": "middle" }, count(value)),
    ),
    svg("text", { className: "tick", x: BOX.width - BOX.right, y: BOX.height - 4, "text-anchor": "end" }, unit),
    ...levels.map((one) => svg("line", { className: `level ${one.className ?? ""}`, x1: BOX.left, x2: BOX.width - BOX.right, y1: y(one.value), y2: y(one.value) },
      svg("title", {}, `${one.name} ${form(one.value)}`))),
    ...known.map((line) => [
      svg("polyline", { className: `curve ${line.className}`, points: line.points.map(([a, b]) => `${x(a)},${y(b)}`).join(" ") }),
      ...line.points.map(([a, b]) => svg("circle", { className: `dot ${line.className}`, cx: x(a), cy: y(b), r: 3 },
        svg("title", {}, `${line.name}, ${count(a)} ${unit}: ${form(b)}`))),
    ]),
  ); // prettier-ignore
  const keys = [...known, ...levels].map((one) =>
    h("span", { className: `key ${one.points ? "" : "level "}${one.className ?? ""}` }, one.name),
  );
  return h("figure", { className: "sage-chart" }, h("figcaption", {}, title), chart, h("div", { className: "keys" }, ...keys));
}

function spoken(title, lines, levels, form) {
  const told = lines.map((line) => `${line.name} from ${form(line.points[0][1])} to ${form(line.points.at(-1)[1])}`);
  return `${title}: ${[...told, ...levels.map((one) => `${one.name} ${form(one.value)}`)].join("; ")}`;
}

function nice(low, high, most) {
  const rough = (high - low) / most || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((one) => one * power).find((one) => one >= rough);
  const found = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step * 1e-9; value += step)
    found.push(Number(value.toPrecision(12)));
  return found;
}

const CURVES = ["own", "plain", "third", "fourth", "fifth", "sixth"];

/** The learning curves of runs of one task, the one that is looked at first. */
export function learningCurves(runs) {
  const [main] = runs;
  const metric = main.facts.metric;
  const split = (facts) => facts.splits.find((one) => one.name === "dev") ?? null;
  const names = (run, place) => ({ name: label(run), className: CURVES[place] });
  const teacher = split(main.facts)?.teacher?.[metric];
  const levels = teacher === undefined || teacher === null ? [] : [{ name: `teacher`, value: teacher, className: "teacher" }];
  const line = (of) => runs.map((run, place) => ({ ...names(run, place), points: run.facts.rounds.map((one) => [one.total_steps, of(one)]) }));
  const losses = line((one) => one.train_loss);
  if (main.facts.rounds.some((one) => one.synthetic_loss !== null))
    losses.push({ name: `${label(main)}, synthetic`, className: "own dashed", points: main.facts.rounds.map((one) => [one.total_steps, one.synthetic_loss]) });
  return [
    lineChart(`${metric} on dev`, line((one) => one.dev[metric]), { levels, form: score }),
    lineChart("Agreement with the teacher on dev", line((one) => one.dev.agreement), { form: (value) => percent(value) }),
    lineChart("Mean loss in training", losses, { fromZero: true }),
  ].filter(Boolean); // prettier-ignore
}

export const label = (run) => (run.facts.is_plain && !/plain/i.test(run.facts.name) ? `${run.facts.name} (plain)` : run.facts.name);

/** Seconds by activity of one or more runs, as bars and numbers. */
export function costTable(runs) {
  const activities = new Map();
  for (const run of runs)
    for (const [name, seconds] of Object.entries(run.facts.costs.seconds ?? {}))
      activities.set(name, Math.max(activities.get(name) ?? 0, seconds));
  if (!activities.size) return h("p", { className: "hint" }, "No costs are kept.");
  const most = Math.max(...activities.values());
  const wide = runs.length > 1 ? "number" : "number wide"; // of two runs, all columns stay under their names
  const rows = [...activities].sort((a, b) => b[1] - a[1]).map(([name]) =>
    h("tr", {}, h("th", { scope: "row" }, name),
      ...runs.flatMap((run, place) => {
        const { seconds = {}, tokens = {}, flops = {} } = run.facts.costs;
        const own = seconds[name];
        const width = own ? Math.max(0.5, (60 * own) / most) : 0;
        return [
          h("td", { className: "bar" }, h("span", { className: "number" }, duration(own)), h("span", { className: `fill ${CURVES[place]}`, style: { width: `${width}%` } })),
          runs.length > 1 ? null : h("td", { className: "number wide" }, tokens[name] ? count(tokens[name]) : "-"),
          h("td", { className: wide }, flops[name] ? count(Math.round(flops[name] / 1e9)) : "-"),
        ];
      }),
    ),
  ); // prettier-ignore
  const total = h("tr", { className: "total" }, h("th", { scope: "row" }, "all"),
    ...runs.flatMap((run) => {
      const sum = (table) => Object.values(table ?? {}).reduce((a, b) => a + b, 0);
      const { seconds, tokens, flops } = run.facts.costs;
      return [
        h("td", {}, duration(sum(seconds))),
        runs.length > 1 ? null : h("td", { className: "number wide" }, count(sum(tokens))),
        h("td", { className: wide }, count(Math.round(sum(flops) / 1e9))),
      ];
    }),
  ); // prettier-ignore
  const head = [
    h("tr", {}, h("td", {}), ...runs.map((run) => h("th", { scope: "colgroup", colspan: "2", className: "name" }, label(run)))),
    h("tr", {}, h("th", { scope: "col" }, "activity"), ...runs.flatMap(() => [
      h("th", { scope: "col" }, "time"), runs.length > 1 ? null : h("th", { scope: "col", className: "number wide" }, "tokens"), h("th", { scope: "col", className: wide }, "GFLOP"),
    ])),
  ]; // prettier-ignore
  return h("table", { className: "costs" }, h("thead", {}, ...(runs.length > 1 ? head : head.slice(1))), h("tbody", {}, ...rows, total));
}

const isShare = (name) => name !== "divergence";

/** Scores of teacher and students on every split. */
export function scoreTable(runs) {
  const [main] = runs;
  const metric = main.facts.metric;
  const metrics = [metric, ...new Set(main.facts.splits.flatMap((one) => Object.keys(one.student)))].filter((name, i, all) => all.indexOf(name) === i);
  const rows = [];
  for (const split of main.facts.splits) {
    const models = [["teacher", split.teacher], ...runs.map((run) => [label(run), run.facts.splits.find((one) => one.name === split.name)?.student ?? {}])];
    models.filter(([, scores]) => Object.keys(scores).length).forEach(([name, scores], i) =>
      rows.push(h("tr", { className: i ? "" : "first" },
        h("th", { scope: "row" }, i ? "" : `${split.name}${split.rows ? ` (${count(split.rows)})` : ""}`), h("td", { className: "name" }, name),
        ...metrics.map((one) => h("td", { className: "number" }, scores[one] === null || scores[one] === undefined ? "-" : isShare(one) ? score(scores[one]) : short(scores[one]))),
      )),
    ); // prettier-ignore
  }
  return h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "split"), h("th", { scope: "col" }, "model"),
    ...metrics.map((one) => h("th", { scope: "col", className: "number" }, one.replaceAll("_", " "))))), h("tbody", {}, ...rows)); // prettier-ignore
}

// The whole explorer: what is chosen, what is shown, and how one follows the other.

import { costTable, label, learningCurves, scoreTable } from "./charts.js";
import { palette, STEPS, stepsOf, ticks } from "./colours.js";
import { count, duration, h, newId, percent, replace, score, short } from "./dom.js";
import { MapView, MOST_DRAWN } from "./map.js";
import { marked, output, textOf } from "./reading.js";
import { details, overview } from "./side.js";
import { Texts } from "./texts.js";

const REST = 140; // ms after the last step of the slider, until lists follow

export class App {
  constructor(root, page) {
    this.root = root;
    this.page = page;
    this.run = page.runs[0];
    this.beside = null;
    this.round = this.run.facts.rounds.at(-1).round;
    this.focused = null;
    this.maps = [];
    this.steps = stepsOf(page.scale);
    this.theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
    this.texts = new Texts({ focus: (i, made) => this.focus(i, made), mark: (i) => this.mark(i) });
  }

  async start() {
    this.build();
    this.setTheme(this.theme);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", (event) => this.setTheme(event.matches ? "dark" : "light"));
    await this.showRun();
  } // prettier-ignore

  destroy() {
    this.maps.forEach((map) => map.destroy());
    this.maps = [];
  }

  // ---- what stands where

  build() {
    const { runs } = this.page;
    this.themeButton = h("button", { type: "button", className: "quiet", onclick: () => this.setTheme(this.theme === "dark" ? "light" : "dark") });
    this.heading = h("h1", {});
    this.under = h("p", { className: "under" });
    this.headline = h("p", { className: "headline" });
    this.tiles = h("dl", { className: "tiles" });
    this.mapCard = h("section", { className: "card map-card" });
    this.side = h("aside", { className: "card side", tabindex: "0", "aria-label": "About the map" });
    this.curves = h("div", { className: "charts" });
    this.scores = h("div", { className: "scroll", tabindex: "0", role: "region", "aria-label": "Scores" });
    this.costs = h("div", { className: "scroll", tabindex: "0", role: "region", "aria-label": "Costs" });
    this.settings = h("div", { className: "settings" });
    this.notes = h("ul", { className: "notes" });
    const cards = this.page.header.scorecards;
    replace(
      this.root,
      h("header", { className: "top" }, h("div", { className: "brand" }, "sage-kit explorer"), runs.length > 1 ? this.runChoice() : null, this.themeButton),
      h("div", { className: "intro" }, this.heading, this.under, this.headline),
      this.tiles,
      this.notes,
      h("div", { className: "main" }, this.mapCard, this.side),
      this.texts.element,
      section("Learning curves", this.curves),
      h("div", { className: "pair" }, section("Scores", this.scores), section("Cost", this.costs)),
      cards.length ? section("How well vectors come back from the map", scorecardTable(cards)) : null,
      h("details", { className: "card" }, h("summary", {}, "Settings that differ from the default"), this.settings),
      h("footer", {}, `Written by sage-kit ${this.page.header.version}. This page holds all it shows, and asks no server for anything.`),
    ); // prettier-ignore
  }

  runChoice() {
    const name = newId("run");
    return h("fieldset", { className: "runs" }, h("legend", {}, "Run"), ...this.page.runs.map((run) =>
      h("label", {}, h("input", { type: "radio", name, checked: run === this.run, onchange: () => { this.run = run; this.showRun(); } }),
        h("span", {}, run.facts.name, h("small", {}, run.facts.kind))))); // prettier-ignore
  }

  setTheme(theme) {
    this.theme = theme;
    this.root.dataset.theme = theme;
    if (document.body.classList.contains("sage-page")) document.documentElement.dataset.theme = theme;
    this.themeButton.textContent = theme === "dark" ? "Light colours" : "Dark colours";
    this.maps.forEach((map) => map.setTheme(theme));
    this.paintLegend();
  }

  // ---- a run

  async showRun() {
    const { run } = this;
    const { facts } = run;
    const alike = this.alike();
    this.focused = null;
    this.round = facts.rounds.at(-1).round;
    if (this.beside && (this.beside === run || this.beside.group !== run.group)) this.beside = null;
    replace(this.heading, facts.task, h("span", { className: `badge ${facts.is_plain ? "plain" : "own"}` }, facts.kind),
      facts.finished ? null : h("span", { className: "badge warn" }, "not finished")); // prettier-ignore
    replace(this.under, [facts.name, `teacher ${facts.teacher}`, `student ${facts.student}`, facts.map ? `map by ${facts.map}` : "no map of its own"].join(" · "));
    this.headline.textContent = facts.headline;
    replace(this.tiles, ...this.tileList());
    replace(this.notes, ...facts.notes.map((note) => h("li", {}, note)));
    this.notes.hidden = !facts.notes.length;
    replace(this.curves, ...learningCurves([run, ...alike.filter((one) => one !== run)]));
    replace(this.scores, scoreTable([run, ...alike.filter((one) => one !== run)]));
    replace(this.costs, costTable([run, ...alike.filter((one) => one !== run)].slice(0, 2)));
    replace(this.settings, facts.settings.length
      ? h("table", {}, h("tbody", {}, ...facts.settings.map(([name, value]) => h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, value)))))
      : h("p", {}, "None."));
    this.texts.selection = null;
    await this.buildMaps();
    this.follow();
  } // prettier-ignore

  /** Runs of the same task and metric, the plain ones first. */
  alike() {
    const { task, metric } = this.run.facts;
    const found = this.page.runs.filter((run) => run.facts.task === task && run.facts.metric === metric);
    return found.sort((a, b) => Number(b.facts.is_plain) - Number(a.facts.is_plain));
  }

  tileList() {
    const { facts } = this.run;
    const split = facts.splits[0];
    const metric = facts.metric;
    const own = split?.student[metric];
    const its = split?.teacher?.[metric];
    const other = this.alike().find((run) => run !== this.run && run.facts.is_plain !== facts.is_plain);
    const theirs = other?.facts.splits.find((one) => one.name === split?.name)?.student[metric];
    const sign = (value) => `${value < 0 ? "\u2212" : "+"}${Math.abs(value).toFixed(3)}`;
    const where = split ? `${split.name}${split.rows ? `, ${count(split.rows)} rows` : ""}` : "";
    const size = facts.parameters;
    const made = facts.rounds.reduce((sum, one) => sum + one.synthetic, 0);
    return [
      tile(`Student, ${metric}`, score(own), where, "strong"),
      its === undefined ? null : tile("Teacher", score(its), own === undefined ? "" : `student ${sign(own - its)}`),
      theirs === undefined ? null : tile(other.facts.is_plain ? "Plain distillation" : "SAGE", score(theirs), own === undefined ? "" : `this run ${sign(own - theirs)}`),
      tile("Agreement with teacher", percent(split?.student.agreement), where),
      size.student ? tile("Size", `${(size.student / 1e6).toFixed(1)} M`, `${percent(size.student / size.teacher, 0)} of ${(size.teacher / 1e6).toFixed(1)}\u00a0M`) : null,
      tile("Training", `${count(facts.student_steps)} steps`, [`${count(facts.rounds.length)} round${facts.rounds.length > 1 ? "s" : ""}`, facts.seconds ? duration(facts.seconds) : null].filter(Boolean).join(", ")),
      facts.is_plain ? null : tile("Synthetic examples", count(made), `in ${count(facts.rounds.filter((one) => one.synthetic).length)} rounds`),
    ];
  } // prettier-ignore

  // ---- the maps

  /** The run whose map is drawn: the chosen one's, or of another run on the same texts. */
  mapRun() {
    const { run } = this;
    return [run, this.beside, ...this.page.runs.filter((one) => one.group === run.group)].find((one) => one?.xy) ?? null;
  }

  async buildMaps() {
    this.destroy();
    const { run } = this;
    const base = this.mapRun();
    const rounds = run.facts.rounds.map((one) => one.round);
    const id = newId("round");
    this.roundTitle = h("h2", {});
    this.slider = h("input", { type: "range", id, min: String(rounds[0]), max: String(rounds.at(-1)), step: "1", oninput: () => this.setRound(Number(this.slider.value)) });
    this.slider.value = String(this.round);
    this.roundWords = h("output", { for: id });
    this.words = h("p", { className: "hint map-words", role: "status" });
    this.tip = h("div", { className: "tip", hidden: true, "aria-hidden": "true" });
    const roundControl = h("div", { className: "control round" }, h("label", { for: id }, "Round"), this.slider, this.roundWords);
    if (!base) {
      replace(this.mapCard, h("div", { className: "card-head" }, this.roundTitle, roundControl),
        h("p", { className: "no-map" }, "There is no map to draw. The list below has the texts by their loss, and the synthetic examples."), this.words);
      return;
    }
    const others = this.page.runs.filter((one) => one !== run && one.group === run.group);
    const shown = [run, ...(this.beside ? [this.beside] : [])];
    this.legend = h("div", { className: "legend" });
    this.mapBox = h("div", { className: `maps ${shown.length > 1 ? "two" : ""}` });
    replace(this.mapCard, h("div", { className: "card-head" }, this.roundTitle, roundControl, this.legend), h("div", { className: "map-frame" }, this.mapBox, this.tip),
      h("div", { className: "controls" }, this.modeControl(), this.layerControl(),
        others.length ? this.besideControl(others) : null), this.words);
    this.paintLegend();
    for (const one of shown) {
      const map = new MapView(this.theme, {
        hover: (real, made, event) => this.hover(map, real, made, event),
        focus: (real, made) => this.focus(real, made),
        select: (points) => this.select(points),
        view: (from, view) => this.maps.forEach((other) => other !== from && other.follow(view)),
        drawn: () => this.describe(),
      });
      map.run = one;
      map.caption = h("figcaption", {});
      map.element.setAttribute("role", "group");
      map.element.setAttribute("aria-label", "Map. Arrow keys move it, plus and minus zoom, 0 shows all. The list of texts below has the same texts.");
      this.mapBox.append(h("figure", {}, shown.length > 1 ? map.caption : null, map.element));
      if (!map.start(base.xy, run.group.even)) {
        replace(this.mapBox, h("p", { className: "no-map" }, "This browser has no WebGL to draw the map with. The list below has the same texts."));
        this.legend.replaceChildren();
        break;
      }
      map.hidden.rings = Boolean(this.many);
      this.maps.push(map);
    }
    await this.paint();
  } // prettier-ignore

  modeControl() {
    const name = newId("mode");
    const choice = (mode, title, hint) =>
      h("label", { title: hint }, h("input", { type: "radio", name, checked: mode === "move", onchange: () => this.maps.forEach((map) => map.setMode(mode)) }), h("span", {}, title));
    return h("div", { className: "control" },
      h("fieldset", { className: "choices", "aria-label": "What dragging does" }, choice("move", "Move", "Drag to move, the wheel zooms after a click"), choice("lasso", "Lasso", "Drag around points to list their texts; so does Shift and dragging")),
      ...[["+", "Zoom in", (map) => map.zoom(0.6)], ["\u2212", "Zoom out", (map) => map.zoom(1 / 0.6)], ["All", "Show all of the map", (map) => map.reset()]].map(([text, spoken, act]) =>
        h("button", { type: "button", className: "quiet", "aria-label": spoken, title: spoken, onclick: () => this.maps.slice(0, 1).forEach(act) }, text)));
  } // prettier-ignore

  layerControl() {
    if (!this.page.runs.some((run) => run.group === this.run.group && run.facts.synthetic.rounds.length)) return null;
    // rings around very many anchors hide what they are meant to show
    this.many = this.page.runs.some((run) => run.group === this.run.group && run.facts.synthetic.rounds.some((one) => one.held > 300));
    const box = (title, names, checked = true) =>
      h("label", { className: "check" }, h("input", { type: "checkbox", checked, onchange: (event) => names.forEach((name) => this.maps.forEach((map) => map.show(name, event.target.checked))) }), title);
    return h("div", { className: "control" }, box("synthetic", ["points"]), box("lines", ["lines"]), box("anchors", ["rings"], !this.many));
  } // prettier-ignore

  besideControl(others) {
    const id = newId("beside");
    const choice = h("select", { id, onchange: async () => {
      this.beside = others[Number(choice.value)] ?? null;
      await this.buildMaps();
      this.follow();
      this.mapCard.querySelector("select")?.focus();
    } }, h("option", { value: "-1" }, "nothing"), ...others.map((run, place) =>
      h("option", { value: String(place), selected: run === this.beside }, `${run.facts.name} (${run.facts.kind})`)));
    return h("div", { className: "control" }, h("label", { for: id }, "Beside it"), choice);
  } // prettier-ignore

  paintLegend() {
    if (!this.legend || !this.maps) return;
    const { scale } = this.page;
    const colours = palette(this.theme);
    const ramp = `linear-gradient(to right, ${colours.slice(0, STEPS).join(",")})`;
    const hasMade = this.page.runs.some((run) => run.group === this.run.group && run.facts.synthetic.rounds.length);
    replace(this.legend,
      h("div", { className: "ramp", role: "img", "aria-label": `Colour is loss, from ${short(scale.first)} to ${short(scale.last)}${scale.kind === "log" ? ", logarithmic" : ""}` },
        h("span", { className: "ramp-name" }, "loss"),
        h("span", { className: "ramp-box" }, h("span", { className: "ramp-colours", style: { background: ramp } }),
          h("span", { className: "ramp-ticks" }, ...ticks(scale).map((value, i, all) => h("span", {}, `${i === 0 ? "\u2264" : i === all.length - 1 ? "\u2265" : ""}${short(value)}`))))),
      hasMade ? h("span", { className: "sign" }, h("i", { className: "diamond" }), "synthetic") : null,
      hasMade ? h("span", { className: "sign" }, h("i", { className: "ring" }), "anchor") : null);
  } // prettier-ignore

  /** Bring colours and synthetic points to the chosen round: the step that the slider takes. */
  paint() {
    const base = this.mapRun();
    const done = this.maps.map((map) => {
      const round = this.roundOf(map.run);
      map.round = round;
      const steps = map.run.facts.rounds.find((one) => one.round === round)?.total_steps;
      map.caption.textContent = `${map.run.facts.name}, ${map.run.facts.kind}: round ${round}, ${count(steps)} steps`;
      map.setSynthetic(map.run.synthetic(round), sameMap(map.run, base));
      return map.colour(map.run.losses(round), this.steps);
    });
    return Promise.all(done);
  }

  roundOf(run) {
    if (run === this.run) return this.round;
    const steps = this.run.facts.rounds.find((one) => one.round === this.round).total_steps;
    return run.roundNear(steps);
  }

  setRound(round) {
    this.round = round;
    this.slider.value = String(round);
    this.tellRound();
    clearTimeout(this.resting);
    this.resting = setTimeout(() => this.follow(), REST);
    return this.paint();
  }

  tellRound() {
    const last = this.run.facts.rounds.at(-1).round;
    this.roundWords.textContent = `${this.round} of ${last}`;
    this.slider.setAttribute("aria-valuetext", `round ${this.round} of ${last}`);
    replace(this.roundTitle, this.maps.length ? `Map after round ${this.round}` : `Round ${this.round}`);
  }

  // ---- lists follow

  follow() {
    this.tellRound();
    this.texts.set(this.run, this.round);
    this.drawSide();
    this.describe();
  }

  describe() {
    const { run, round } = this;
    const { group } = run;
    const set = run.synthetic(round);
    const place = run.facts.loss_rounds.indexOf(round);
    const mean = place < 0 ? null : run.facts.mean_losses[place];
    const parts = [];
    if (this.maps.length) {
      const drawn = this.maps[0].drawn.length;
      const all = group.examples;
      parts.push(drawn < all ? `${count(drawn)} of ${count(all)} training texts are drawn, an even draw${group.held > MOST_DRAWN ? "; nearer views draw others" : ""}.` : `Each point is one of ${count(all)} training texts.`);
    } else parts.push(`${count(group.examples)} training texts.`);
    if (mean !== null) parts.push(`Mean loss after round ${round}: ${short(mean)}.`);
    if (set?.length) {
      parts.push(`The round trained on ${count(set.total)} synthetic examples from ${count(set.anchorCount)} anchors${set.length < set.total ? `, ${count(set.length)} of which are here` : ""}.`);
      if (this.maps.length && this.maps[0].chosen?.length < set.length && set.xy) parts.push(`${count(this.maps[0].chosen.length)} are drawn at a time.`);
      if (this.maps.length && (!set.xy || !sameMap(run, this.mapRun()))) parts.push("They have no place in this map.");
    }
    this.words.textContent = parts.join(" ");
  } // prettier-ignore

  drawSide() {
    if (this.focused) {
      const { point, made } = this.focused;
      const runs = this.beside ? [this.run, this.beside] : [this.run];
      replace(this.side, ...details(runs, this.round, point, made, () => this.focus(-1, -1)));
    } else replace(this.side, ...overview(this.run, this.round, (i, made) => this.focus(i, made)));
  }

  focus(point, made) {
    this.focused = point < 0 ? null : { point, made };
    this.drawSide();
    this.mark(point < 0 ? -1 : point);
    this.side.scrollTop = 0;
    const target = point < 0 ? this.side : this.side.querySelector(".focus-target");
    target?.focus({ preventScroll: true });
    const box = this.side.getBoundingClientRect();
    if (point >= 0 && (box.top > innerHeight - 80 || box.bottom < 80)) this.side.scrollIntoView({ block: "nearest" });
  }

  mark(point) {
    const shown = point >= 0 ? point : (this.focused?.point ?? -1);
    this.maps.forEach((map) => map.mark(shown));
  }

  select(points) {
    const some = points?.length ? points : null;
    this.maps.forEach((map) => map.select(some));
    this.texts.select(some);
  }

  hover(map, real, made, event) {
    if (!event || (real < 0 && made < 0)) {
      this.tip.hidden = true;
      return;
    }
    const { run, round } = map;
    const set = run.synthetic(round);
    const point = made >= 0 ? set.anchors[made] : real;
    const about = [
      run.group.gold ? ["label", run.group.gold.get(point)] : null,
      run.teacher ? ["teacher", output(run.output("teacher", point))] : null,
      run.student ? ["student", output(run.output("student", point))] : null,
      ["loss", short(run.loss(round, point))],
    ].filter((one) => one && one[1]);
    const children = set && made < 0 ? set.of(real) : [];
    replace(this.tip,
      made >= 0 ? [h("p", { className: "tip-kind" }, "synthetic example"), h("p", {}, marked(set, made)), set.labels ? h("p", { className: "about" }, `teacher: ${set.labels.get(made)}`) : null,
        h("p", { className: "tip-kind" }, "its anchor"), h("p", {}, textOf(run.group.text(point)))] : h("p", {}, textOf(run.group.text(real))),
      h("p", { className: "about" }, ...about.map(([name, value]) => h("span", {}, `${name} `, value))),
      children.length ? [h("p", { className: "tip-kind" }, `made of it: ${count(children.length)}`), ...children.slice(0, 2).map((i) => h("p", {}, marked(set, i)))] : null);
    this.tip.hidden = false;
    const frame = this.tip.parentElement.getBoundingClientRect();
    const own = this.tip.getBoundingClientRect();
    const x = event.clientX - frame.left;
    const y = event.clientY - frame.top;
    const left = Math.max(0, Math.min(x + 14, frame.width - own.width));
    const top = y + 18 + own.height > frame.height && y - own.height - 12 > 0 ? y - own.height - 12 : y + 18;
    Object.assign(this.tip.style, { left: `${left}px`, top: `${top}px` });
  } // prettier-ignore
}

const same = new Map();

/** Whether two runs have the same map, so that synthetic points of one have a place in the other's. */
function sameMap(one, other) {
  if (!one || !other || one === other) return one === other;
  const key = `${one.place} ${other.place}`;
  if (!same.has(key)) {
    const [a, b] = [one.xy, other.xy];
    same.set(key, Boolean(a && b && a.length === b.length && a.every((value, i) => value === b[i])));
  }
  return same.get(key);
}

const section = (title, ...children) => h("section", { className: "card" }, h("h2", {}, title), ...children);

const tile = (name, value, about, className = "") =>
  h("div", { className: `tile ${className}` }, h("dt", {}, name), h("dd", {}, value, h("small", {}, about)));

function scorecardTable(cards) {
  const metrics = [...new Set(cards.flatMap((card) => Object.values(card.fidelity).flatMap(Object.keys)))];
  return h("div", { className: "scroll", tabindex: "0", role: "region", "aria-label": "Scorecards" }, h("table", {},
    h("thead", {}, h("tr", {}, ...["reducer", "inverter", "what is scored"].map((name) => h("th", { scope: "col" }, name)), ...metrics.map((name) => h("th", { scope: "col", className: "number" }, name.replaceAll("_", " "))))),
    h("tbody", {}, ...cards.flatMap((card) => Object.entries(card.fidelity).map(([name, figures], i) =>
      h("tr", { className: i ? "" : "first" }, h("th", { scope: "row" }, i ? "" : card.reducer), h("td", {}, i ? "" : card.inverter), h("td", {}, name),
        ...metrics.map((metric) => h("td", { className: "number" }, short(figures[metric]))))))),
  ));
} // prettier-ignore

// The list of texts: the hardest ones, a selection, synthetic examples, or what a search finds. It does whatever the map
// does with a pointer, for readers who use the keyboard or no picture.

import { count, h, percent, replace, short } from "./dom.js";
import { hardest, marked, output, textOf } from "./reading.js";

const AT_ONCE = 25;
const MOST = 500;

export class Texts {
  constructor(on) {
    this.on = on;
    this.tab = "hardest";
    this.shown = AT_ONCE;
    this.selection = null;
    this.query = "";
    this.title = h("h2", {}, "Texts");
    this.status = h("p", { className: "hint", role: "status" });
    this.tabs = h("div", { className: "choices", role: "radiogroup", "aria-label": "Which texts" });
    this.search = h("input", { type: "search", placeholder: "Search the texts", "aria-label": "Search the texts",
      oninput: () => { clearTimeout(this.waiting); this.waiting = setTimeout(() => this.find(), 200); } }); // prettier-ignore
    this.table = h("div", { className: "scroll", tabindex: "0", role: "region", "aria-label": "Texts" });
    this.more = h("button", { type: "button", className: "quiet", onclick: () => { this.shown += AT_ONCE; this.draw(); } }, "Show more"); // prettier-ignore
    this.element = h("section", { className: "card texts" },
      h("div", { className: "card-head" }, this.title, this.tabs, this.search), this.status, this.table, this.more); // prettier-ignore
  }

  set(run, round) {
    if (run !== this.run) this.shown = AT_ONCE;
    this.run = run;
    this.round = round;
    if (this.tab === "synthetic" && !run.facts.synthetic.rounds.length) this.tab = "hardest";
    this.search.hidden = !run.group.texts;
    this.draw();
  }

  select(points) {
    this.selection = points;
    this.shown = AT_ONCE;
    if (points) this.tab = "selection";
    else if (this.tab === "selection") this.tab = "hardest";
    this.draw();
  }

  find() {
    this.query = this.search.value.trim().toLowerCase();
    this.tab = this.query ? "search" : "hardest";
    this.shown = AT_ONCE;
    this.draw();
  }

  choose(tab) {
    this.tab = tab;
    this.shown = AT_ONCE;
    this.draw();
    this.tabs.querySelector("[aria-checked=true]")?.focus();
  }

  drawTabs() {
    const tabs = [["hardest", "Hardest"]];
    if (this.run.facts.synthetic.rounds.length) tabs.push(["synthetic", "Synthetic"]);
    if (this.selection) tabs.push(["selection", `Selected (${count(this.selection.length)})`]);
    if (this.query) tabs.push(["search", "Found"]);
    replace(this.tabs, ...tabs.map(([name, title], place) =>
      h("button", { type: "button", role: "radio", "aria-checked": String(this.tab === name), tabindex: this.tab === name ? "0" : "-1",
        onclick: () => this.choose(name),
        onkeydown: (event) => {
          const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
          if (!step) return;
          event.preventDefault();
          this.choose(tabs[(place + step + tabs.length) % tabs.length][0]);
        } }, title))); // prettier-ignore
  }

  points() {
    const { run, round } = this;
    if (this.tab === "selection") {
      const codes = run.losses(round);
      const order = [...this.selection];
      return codes ? order.sort((a, b) => (codes[b] % 65535) - (codes[a] % 65535)) : order;
    }
    if (this.tab === "search") {
      const found = [];
      for (let i = 0; i < run.group.held && found.length < MOST; i++)
        if (run.group.text(i).toLowerCase().includes(this.query)) found.push(i);
      return found;
    }
    const hard = hardest(run, round, MOST);
    return hard.length ? hard : Array.from({ length: Math.min(MOST, run.group.held) }, (_, i) => i);
  }

  draw() {
    const { run } = this;
    if (!run) return;
    this.drawTabs();
    const isMade = this.tab === "synthetic";
    const rows = isMade ? this.madeRows() : this.realRows();
    this.more.hidden = rows.total <= this.shown;
    this.status.textContent = rows.told;
    replace(this.table, rows.total ? h("table", {}, h("thead", {}, h("tr", {}, ...rows.head.map(([name, kind]) =>
      h("th", { scope: "col", className: kind ?? "" }, name)))), h("tbody", {}, ...rows.body)) : null); // prettier-ignore
  }

  realRows() {
    const { run, round } = this;
    const points = this.points();
    const set = run.synthetic(round);
    const columns = [
      ["label", "", run.group.gold && ((i) => h("span", { dir: "auto" }, run.group.gold.get(i) || "-"))],
      ["teacher", "", run.teacher && ((i) => output(run.output("teacher", i)))],
      ["student", "", run.student && ((i) => output(run.output("student", i)))],
      ["agree", "number", run.agreement && !run.teacherShares && ((i) => percent(run.agreement[i] / 255, 0))],
      ["loss", "number", run.losses(round) && ((i) => short(run.loss(round, i)))],
      ["made of it", "number", set && ((i) => set.of(i).length || "-")],
    ].filter(([, , of]) => of);
    const body = points.slice(0, this.shown).map((i) => {
      const differs = run.teacher && run.student && run.teacherShares && run.teacher.get(i) !== run.student.get(i);
      return h("tr", { className: differs ? "differs" : "", onmouseenter: () => this.on.mark(i), onmouseleave: () => this.on.mark(-1) },
        h("td", { className: "words" }, h("button", { type: "button", className: "row-button", onfocus: () => this.on.mark(i), onclick: () => this.on.focus(i, -1) }, textOf(run.group.text(i)))),
        ...columns.map(([name, kind, of]) => h("td", { className: kind, "data-name": name }, of(i))));
    }); // prettier-ignore
    const what = { hardest: run.losses(round) ? `The ${count(points.length)} texts of highest loss after round ${round}` : "Texts", selection: "Texts that were selected on the map, the highest loss first", search: `Texts that hold what was searched${points.length === MOST ? `, the first ${MOST}` : ""}` }[this.tab];
    const told = points.length ? `${what}: ${count(Math.min(this.shown, points.length))} of ${count(points.length)} shown.` : "No text was found.";
    return { head: [["text"], ...columns], body, total: points.length, told };
  } // prettier-ignore

  madeRows() {
    const { run, round } = this;
    const set = run.synthetic(round);
    if (!set || !set.length) return { head: [], body: [], total: 0, told: `Round ${round} trained on no synthetic examples.` };
    const body = Array.from({ length: Math.min(this.shown, set.length) }, (_, i) => {
      const anchor = set.anchors[i];
      return h("tr", { onmouseenter: () => this.on.mark(anchor), onmouseleave: () => this.on.mark(-1) },
        h("td", { className: "words" }, h("button", { type: "button", className: "row-button", onfocus: () => this.on.mark(anchor), onclick: () => this.on.focus(anchor, i) }, marked(set, i))),
        h("td", { className: "words second", "data-name": "anchor" }, textOf(run.group.text(anchor))),
        set.labels ? h("td", { "data-name": "teacher" }, h("span", { dir: "auto" }, set.labels.get(i))) : null,
        h("td", { className: "number", "data-name": "changed" }, set.hasText ? percent(set.changed(i), 0) : "-"));
    }); // prettier-ignore
    const told = `${count(body.length)} of ${count(set.total)} synthetic examples that round ${round} trained on${set.length < set.total ? `; the page holds ${count(set.length)}` : ""}.`;
    return { head: [["synthetic example"], ["anchor"], ...(set.labels ? [["teacher"]] : []), ["changed", "number"]], body, total: set.length, told };
  } // prettier-ignore
}

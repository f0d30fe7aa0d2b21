// One map: real examples by regl-scatterplot, synthetic ones above them, and what the pointer does.

import createRegl from "regl";
import createScatterplot from "regl-scatterplot";
import { NOT_KNOWN, palette } from "./colours.js";
import { h } from "./dom.js";
import { Overlay } from "./overlay.js";

export const MOST_DRAWN = 50_000;
export const MOST_MADE = 3_000; // synthetic examples drawn at a time
const SETTLE = 250; // ms after the view stands still, until other points are drawn
const REACH = 8; // px around the pointer in which a synthetic point is meant

const STYLES = {
  light: { point: [0, 0.66, 0.78, 1], edge: [1, 1, 1, 1], line: [0, 0.5, 0.62, 0.4], ring: [0, 0.5, 0.62, 0.9], mark: [0.05, 0.07, 0.09, 1] },
  dark: { point: [0.25, 0.85, 0.95, 1], edge: [0.05, 0.07, 0.09, 1], line: [0.25, 0.85, 0.95, 0.35], ring: [0.25, 0.85, 0.95, 0.8], mark: [1, 1, 1, 1] },
}; // prettier-ignore
const BACKGROUND = { light: "#ffffff", dark: "#15191e" };

const EXTENSIONS = ["ANGLE_instanced_arrays", "OES_texture_float", "OES_element_index_uint", "WEBGL_color_buffer_float", "EXT_float_blend"]; // prettier-ignore

/** What the library draws the points with. Its own has the size of the window, and brings each frame into the map by way
 * of a second buffer and a copy of the pixels, which take most of the time where the GPU is computed; this one is in the
 * page itself. */
class Renderer {
  constructor(canvas) {
    const gl = canvas.getContext("webgl", { antialias: false, depth: false, premultipliedAlpha: true });
    if (!gl) throw new Error("no WebGL");
    const extensions = EXTENSIONS.filter((name) => gl.getExtension(name));
    if (!extensions.includes("OES_texture_float")) throw new Error("no float textures");
    this.canvas = canvas;
    this.regl = createRegl({ gl, extensions });
    this.gamma = 1;
    this.isSupported = true;
    this.isDestroyed = false;
    this.frames = new Set();
    this.frame = this.regl.frame(() => this.frames.forEach((draw) => draw()));
  }

  render(draw) {
    this.regl.clear({ color: [0, 0, 0, 0], depth: 1 });
    draw();
  }

  resize(width, height) {
    const ratio = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    this.refresh();
  }

  onFrame(draw) {
    this.frames.add(draw);
    return () => this.frames.delete(draw);
  }

  refresh() {
    this.regl.poll();
  }

  destroy() {
    this.isDestroyed = true;
    this.frame.cancel();
    this.regl.destroy();
  }
}

export class MapView {
  /** `on` has hover(point, synthetic, event), focus(point, synthetic), select(points or null) and view(matrix). */
  constructor(theme, on) {
    this.on = on;
    this.theme = theme;
    this.ground = h("canvas", { className: "sage-ground", "aria-hidden": "true" });
    this.canvas = h("canvas", { className: "sage-canvas" }); // the library listens to it
    this.layer = h("canvas", { className: "sage-layer", "aria-hidden": "true" });
    this.element = h("div", { className: "sage-map", tabindex: "0" }, this.ground, this.canvas, this.layer);
    this.hidden = { points: false, lines: false, rings: false, marks: false };
    this.drawn = null; // indices of the held points that are drawn
    this.set = null;
    this.selected = null;
    this.pointer = null;
    this.over = -1;
    this.view = [1, 1, 0, 0];
    this.queue = Promise.resolve();
  }

  /** Take up the room of the parent; false where the browser has no WebGL for it. */
  start(xy, even) {
    this.setPoints(xy, even);
    const { width, height } = this.element.getBoundingClientRect();
    try {
      this.renderer = new Renderer(this.ground);
      this.renderer.resize(Math.round(width), Math.round(height));
      this.plot = createScatterplot({
        renderer: this.renderer,
        canvas: this.canvas,
        width: Math.max(1, Math.round(width)),
        height: Math.max(1, Math.round(height)),
        backgroundColor: BACKGROUND[this.theme],
        colorBy: "valueA",
        pointColor: palette(this.theme),
        pointColorActive: this.theme === "dark" ? "#ffffff" : "#000000",
        pointColorHover: this.theme === "dark" ? "#ffffff" : "#000000",
        pointOutlineWidth: 1,
        pointSizeSelected: 1,
        opacityInactiveMax: 0.35,
        opacityInactiveScale: 1,
        lassoColor: "#0072b2",
        lassoInitiatorParentElement: this.element,
        lassoLongPressIndicatorParentElement: this.element,
        actionKeyMap: { lasso: "shift", merge: "meta", remove: "alt" },
        deselectOnDblClick: false,
        deselectOnEscape: false,
        spatialIndexUseWorker: false,
        cameraDistance: this.distance(width, height),
      });
    } catch (error) {
      return false;
    }
    this.overlay = new Overlay(this.layer);
    this.plot.subscribe("drawing", ({ view }) => this.drawLayer(view));
    this.plot.subscribe("view", ({ view }) => {
      this.on.view(this, view);
      clearTimeout(this.settling);
      this.settling = setTimeout(() => this.choose(), SETTLE);
    });
    this.plot.subscribe("pointOver", (i) => {
      this.over = i;
      this.tell();
    });
    this.plot.subscribe("pointOut", () => {
      this.over = -1;
      this.tell();
    });
    this.plot.subscribe("lassoStart", () => (this.inLasso = true));
    this.plot.subscribe("lassoEnd", ({ coordinates }) => {
      setTimeout(() => (this.inLasso = false));
      if (coordinates.length > 2) this.on.select(this.within(coordinates));
    });
    // a click means one text, and leaves what a lasso has selected
    this.plot.subscribe("select", () => {
      if (!this.inLasso) this.select(this.selected);
    });
    this.plot.subscribe("deselect", () => {
      if (!this.inLasso) this.select(this.selected);
    });
    this.element.addEventListener("mousemove", (event) => {
      this.pointer = event;
      this.tell();
    });
    this.element.addEventListener("mouseleave", () => {
      this.pointer = null;
      this.over = -1;
      this.on.hover(-1, -1, null);
    });
    this.element.addEventListener("mousedown", (event) => (this.pressed = [event.clientX, event.clientY]));
    this.element.addEventListener("click", (event) => this.click(event));
    // a page that is scrolled past must not be caught by the map: the wheel zooms once the map was clicked
    this.element.addEventListener(
      "wheel",
      (event) => {
        if (!event.ctrlKey && !this.element.contains(document.activeElement)) event.stopPropagation();
      },
      { capture: true, passive: true },
    );
    this.element.addEventListener("keydown", (event) => this.key(event));
    this.observer = new ResizeObserver(() => this.resize());
    this.observer.observe(this.element);
    return true;
  }

  /** How far the camera stands to see all points in a frame. */
  distance(width, height) {
    const [x, y] = this.extent ?? [1, 1];
    return Math.max(0.05, 1.08 * Math.max(y, (x * height) / Math.max(1, width)));
  }

  resize() {
    const { width, height } = this.element.getBoundingClientRect();
    if (width < 2 || height < 2 || !this.plot) return;
    this.renderer.resize(Math.round(width), Math.round(height));
    this.plot.set({ width: Math.round(width), height: Math.round(height) });
  }

  // ---- what is drawn

  /** Places of the held points (x and y in turn, from 0 to 65535), of which the first `even` are an even draw. */
  setPoints(xy, even) {
    const n = xy.length / 2;
    this.xy = new Float32Array(xy.length);
    for (let i = 0; i < xy.length; i++) this.xy[i] = xy[i] / 32767.5 - 1;
    this.extent = [0, 0];
    for (let i = 0; i < n; i++) {
      this.extent[0] = Math.max(this.extent[0], Math.abs(this.xy[2 * i]));
      this.extent[1] = Math.max(this.extent[1], Math.abs(this.xy[2 * i + 1]));
    }
    this.even = even;
    this.drawn = Uint32Array.from({ length: Math.min(n, MOST_DRAWN) }, (_, i) => i);
    this.isPart = n > MOST_DRAWN;
    this.index = null;
  }

  /** Colour the points by the steps of their losses; nothing else of them changes. */
  colour(codes, steps) {
    this.codes = codes;
    this.steps = steps;
    return this.redraw();
  }

  redraw() {
    this.wanted = true;
    this.queue = this.queue.then(async () => {
      if (!this.wanted || !this.plot || !this.xy) return;
      this.wanted = false;
      const { drawn, codes, steps, xy } = this;
      if (this.rows?.of !== drawn) {
        this.rows = Array.from(drawn, (i) => [xy[2 * i], xy[2 * i + 1], 0, 0]);
        this.rows.of = drawn;
        this.index = null;
        this.plot.set({ pointSize: this.pointSize() });
      }
      for (let j = 0; j < drawn.length; j++) this.rows[j][2] = codes ? steps[codes[drawn[j]]] : NOT_KNOWN;
      const options = { zDataType: "categorical", wDataType: "categorical", preventFilterReset: true };
      if (this.index) options.spatialIndex = this.index;
      await this.plot.draw(this.rows, options);
      this.index ??= this.plot.get("spatialIndex");
    });
    return this.queue;
  }

  pointSize() {
    const n = this.drawn.length;
    if (this.element.clientWidth < 600) return n < 10_000 ? 4 : 3;
    return n < 3000 ? 6 : n < 10_000 ? 5 : n < 30_000 ? 4 : 3;
  }

  /** Of more points than can be drawn, those in view: an even draw of them, so that nearer views show more. */
  choose() {
    if (!this.plot) return;
    this.chooseMade();
    if (!this.isPart) return;
    const [sx, sy, dx, dy] = this.view;
    const found = [];
    for (let i = 0; i < this.even && found.length < MOST_DRAWN; i++) {
      const x = this.xy[2 * i] * sx + dx;
      const y = this.xy[2 * i + 1] * sy + dy;
      if (x > -1.2 && x < 1.2 && y > -1.2 && y < 1.2) found.push(i);
    }
    this.drawn = Uint32Array.from(found);
    this.redraw();
    this.on.drawn?.(this.drawn.length);
  }

  /** The synthetic examples of a round, and whether their places are in this map. */
  setSynthetic(set, isHere) {
    this.set = set;
    this.isHere = Boolean(set && isHere && set.xy);
    this.chooseMade();
  }

  /** Of more synthetic examples than can be told apart, an even draw of those in view. */
  chooseMade() {
    const { set, xy } = this;
    let chosen = [];
    if (this.isHere) {
      const [sx, sy, dx, dy] = this.view;
      const all = Array.from({ length: set.length }, (_, i) => i);
      chosen = set.length <= MOST_MADE ? all : all.filter((i) => {
        const x = (set.xy[2 * i] / 32767.5 - 1) * sx + dx;
        const y = (set.xy[2 * i + 1] / 32767.5 - 1) * sy + dy;
        return x > -1.1 && x < 1.1 && y > -1.1 && y < 1.1;
      });
      const step = chosen.length / MOST_MADE;
      if (step > 1) chosen = Array.from({ length: MOST_MADE }, (_, j) => chosen[Math.floor(j * step)]);
    }
    this.chosen = chosen;
    const n = chosen.length;
    this.made = new Float32Array(2 * n);
    const lines = new Float32Array(4 * n);
    const rings = [];
    const seen = new Set();
    chosen.forEach((i, j) => {
      const anchor = set.anchors[i];
      const place = [set.xy[2 * i] / 32767.5 - 1, set.xy[2 * i + 1] / 32767.5 - 1];
      const from = [xy[2 * anchor], xy[2 * anchor + 1]];
      this.made.set(place, 2 * j);
      lines.set([...from, ...place], 4 * j);
      if (!seen.has(anchor)) rings.push(...from);
      seen.add(anchor);
    });
    this.overlay.set("points", this.made);
    this.overlay.set("lines", lines);
    this.overlay.set("rings", new Float32Array(rings));
    this.refresh();
  } // prettier-ignore

  show(name, isShown) {
    this.hidden[name] = !isShown;
    this.refresh();
  }

  /** Mark one point, or none. */
  mark(point) {
    if (!this.overlay || !this.xy) return;
    this.overlay.set("marks", point < 0 ? new Float32Array(0) : this.xy.slice(2 * point, 2 * point + 2));
    this.refresh();
  }

  select(points) {
    this.selected = points;
    if (!this.plot) return;
    if (!points) {
      this.plot.deselect({ preventEvent: true });
      return;
    }
    const place = new Map(Array.from(this.drawn, (i, j) => [i, j]));
    const found = points.map((i) => place.get(i)).filter((j) => j !== undefined);
    this.plot.select(found, { preventEvent: true });
  }

  refresh() {
    if (this.lastView) this.drawLayer(this.lastView);
  }

  drawLayer(view) {
    this.lastView = view;
    const { width, height } = this.canvas;
    if (this.layer.width !== width || this.layer.height !== height) {
      this.layer.width = width;
      this.layer.height = height;
    }
    const aspect = width / height;
    this.view = [view[0] / aspect, view[5], view[12] / aspect, view[13]];
    // many of them are drawn small and without edges, so that the colours below stay in sight
    const many = this.chosen?.length ?? 0;
    const style = { ...STYLES[this.theme] };
    if (many > 1500) style.edge = style.point;
    const room = Math.min(1, Math.max(0.65, this.element.clientWidth / 900));
    const size = room * (many > 1500 ? 6 : many > 300 ? 8 : 10);
    this.overlay.draw(this.view, { ...style, pointSize: size, ringSize: size + 4, markSize: 22, hidden: this.hidden });
  }

  setTheme(theme) {
    this.theme = theme;
    if (!this.plot) return;
    const active = theme === "dark" ? "#ffffff" : "#000000";
    this.plot.set({
      backgroundColor: BACKGROUND[theme], pointColor: palette(theme), pointColorActive: active, pointColorHover: active,
    }); // prettier-ignore
    this.refresh();
  }

  // ---- view

  setMode(mode) {
    this.plot?.set({ mouseMode: mode === "lasso" ? "lasso" : "panZoom" });
    this.element.classList.toggle("is-lasso", mode === "lasso");
  }

  follow(view) {
    this.plot?.view(view, { preventEvent: true });
    clearTimeout(this.settling);
    this.settling = setTimeout(() => this.choose(), SETTLE);
  }

  reset() {
    const { width, height } = this.element.getBoundingClientRect();
    this.plot?.zoomToLocation([0, 0], this.distance(width, height));
  }

  zoom(factor) {
    if (!this.plot) return;
    const camera = this.plot.get("camera");
    this.plot.zoomToLocation([...camera.target], camera.distance[0] * factor);
  }

  key(event) {
    const steps = { ArrowLeft: [-0.2, 0], ArrowRight: [0.2, 0], ArrowUp: [0, 0.2], ArrowDown: [0, -0.2] }[event.key];
    if (event.key === "+" || event.key === "=") this.zoom(0.7);
    else if (event.key === "-") this.zoom(1 / 0.7);
    else if (event.key === "0") this.reset();
    else if (steps && this.plot) {
      const camera = this.plot.get("camera");
      const [x, y] = camera.target;
      const far = camera.distance[0];
      this.plot.zoomToLocation([x + steps[0] * far, y + steps[1] * far], far);
    } else if (event.key === "Escape") this.on.select(null);
    else return;
    event.preventDefault();
  }

  // ---- pointer

  /** The place of an event in the map, or null outside of it. */
  placeOf(event) {
    const box = this.canvas.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * 2 - 1;
    const y = 1 - ((event.clientY - box.top) / box.height) * 2;
    const [sx, sy, dx, dy] = this.view;
    return { x: (x - dx) / sx, y: (y - dy) / sy, reach: REACH / (box.height / 2) / sy };
  }

  /** Where in the window a place of the map is. */
  onScreen([x, y]) {
    const box = this.canvas.getBoundingClientRect();
    const [sx, sy, dx, dy] = this.view;
    return [box.left + ((x * sx + dx + 1) / 2) * box.width, box.top + ((1 - y * sy - dy) / 2) * box.height];
  }

  /** The synthetic example under the pointer, -1 for none. */
  syntheticAt(event) {
    if (!event || !this.made || this.hidden.points) return -1;
    const { x, y, reach } = this.placeOf(event);
    let best = -1;
    let least = reach * reach;
    for (let i = 0; i < this.made.length / 2; i++) {
      const far = (this.made[2 * i] - x) ** 2 + (this.made[2 * i + 1] - y) ** 2;
      if (far < least) {
        least = far;
        best = i;
      }
    }
    return best < 0 ? -1 : this.chosen[best];
  }

  /** Of a synthetic and a real example under the pointer, the nearer one: [real, synthetic], -1 for none. */
  under(event) {
    const made = this.syntheticAt(event);
    const real = this.over >= 0 ? this.drawn[this.over] : -1;
    if (made < 0 || real < 0) return [real, made];
    const { x, y } = this.placeOf(event);
    const far = (places, i) => (places[2 * i] - x) ** 2 + (places[2 * i + 1] - y) ** 2;
    return far(this.made, this.chosen.indexOf(made)) <= far(this.xy, real) ? [-1, made] : [real, -1];
  }

  tell() {
    if (!this.pointer || this.inLasso) return;
    const [real, made] = this.under(this.pointer);
    this.on.hover(real, made, this.pointer);
  }

  click(event) {
    const [x, y] = this.pressed ?? [event.clientX, event.clientY];
    if (this.inLasso || Math.hypot(event.clientX - x, event.clientY - y) > 4) return;
    const [real, made] = this.under(event);
    if (made >= 0) this.on.focus(this.set.anchors[made], made);
    else if (real >= 0) this.on.focus(real, -1);
  }

  within(polygon) {
    const found = [];
    const n = this.xy.length / 2;
    const xs = polygon.map((one) => one[0]);
    const ys = polygon.map((one) => one[1]);
    const box = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    for (let i = 0; i < n; i++) {
      const x = this.xy[2 * i];
      const y = this.xy[2 * i + 1];
      if (x < box[0] || x > box[1] || y < box[2] || y > box[3]) continue;
      let inside = false;
      for (let a = 0, b = polygon.length - 1; a < polygon.length; b = a++) {
        if (ys[a] > y !== ys[b] > y && x < ((xs[b] - xs[a]) * (y - ys[a])) / (ys[b] - ys[a]) + xs[a]) inside = !inside;
      }
      if (inside) found.push(i);
    }
    return found;
  }

  destroy() {
    this.observer?.disconnect();
    clearTimeout(this.settling);
    this.plot?.destroy();
    this.renderer?.destroy();
    this.overlay?.destroy();
  }
}

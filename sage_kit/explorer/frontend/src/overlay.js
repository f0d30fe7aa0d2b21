// Synthetic points, the lines to their anchors, and rings around these, drawn over the map with its view. The library
// that draws the map has one shape for all points; these have another, so that colour is not all that tells them apart.

const VERTEX = `
attribute vec2 place;
uniform vec4 view; // scale x, scale y, shift x, shift y
uniform float size;
void main() {
  gl_Position = vec4(place * view.xy + view.zw, 0.0, 1.0);
  gl_PointSize = size;
}`;

const FRAGMENT = `
precision mediump float;
uniform vec4 colour;
uniform vec4 edge;
uniform int shape; // 0 line, 1 diamond, 2 ring
void main() {
  if (shape == 0) { gl_FragColor = colour; return; }
  vec2 at = abs(gl_PointCoord * 2.0 - 1.0);
  if (shape == 1) {
    float far = at.x + at.y;
    if (far > 1.0) discard;
    gl_FragColor = far > 0.66 ? edge : colour;
    return;
  }
  float far = length(at);
  if (far > 1.0 || far < 0.76) discard;
  gl_FragColor = colour;
}`;

export class Overlay {
  constructor(canvas) {
    this.canvas = canvas;
    // smoothed edges would cost a software renderer more than all points of the map
    const gl = canvas.getContext("webgl", { premultipliedAlpha: false, antialias: false, depth: false });
    this.gl = gl;
    this.counts = { points: 0, lines: 0, rings: 0, marks: 0 };
    if (!gl) return;
    const program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    } // prettier-ignore
    gl.bindAttribLocation(program, 0, "place");
    gl.linkProgram(program);
    gl.useProgram(program);
    this.at = Object.fromEntries(
      ["view", "size", "colour", "edge", "shape"].map((name) => [name, gl.getUniformLocation(program, name)]),
    );
    this.buffers = Object.fromEntries(Object.keys(this.counts).map((name) => [name, gl.createBuffer()]));
    gl.enableVertexAttribArray(0);
    gl.enable(gl.BLEND);
    gl.blendFuncSeparate(gl.SRC_ALPHA, gl.ONE_MINUS_SRC_ALPHA, gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  }

  /** Places (x, y in turn, from -1 to 1) of points, rings or marks, or of both ends of each line. */
  set(name, places) {
    const { gl } = this;
    if (!gl) return;
    this.counts[name] = places.length / 2;
    gl.bindBuffer(gl.ARRAY_BUFFER, this.buffers[name]);
    gl.bufferData(gl.ARRAY_BUFFER, places, gl.DYNAMIC_DRAW);
  }

  /** Draw under a view: scale x, scale y, shift x, shift y. */
  draw(view, style) {
    const { gl, canvas, at } = this;
    if (!gl || gl.isContextLost()) return;
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.uniform4f(at.view, ...view);
    gl.uniform4f(at.edge, ...style.edge);
    const steps = [
      ["lines", gl.LINES, 0, style.line, 1],
      ["rings", gl.POINTS, 2, style.ring, style.ringSize],
      ["points", gl.POINTS, 1, style.point, style.pointSize],
      ["marks", gl.POINTS, 2, style.mark, style.markSize],
    ];
    for (const [name, mode, shape, colour, size] of steps) {
      if (!this.counts[name] || style.hidden[name]) continue;
      gl.bindBuffer(gl.ARRAY_BUFFER, this.buffers[name]);
      gl.vertexAttribPointer(0, 2, gl.FLOAT, false, 0, 0);
      gl.uniform4f(at.colour, ...colour);
      gl.uniform1f(at.size, size * (window.devicePixelRatio || 1));
      gl.uniform1i(at.shape, shape);
      gl.drawArrays(mode, 0, this.counts[name]);
    }
  }

  destroy() {
    this.gl?.getExtension("WEBGL_lose_context")?.loseContext();
  }
}

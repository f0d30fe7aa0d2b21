// The packed block (see binary_blocks.py), unpacked; arrays and strings are read when they are asked for.

export async function unpack(bytes) {
  if (typeof DecompressionStream === "undefined")
    throw new Error("This browser is too old to unpack the data: it lacks DecompressionStream.");
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const buffer = await new Response(stream).arrayBuffer();
  const whole = new Uint8Array(buffer);
  if (String.fromCharCode(...whole.subarray(0, 4)) !== "SKX1") throw new Error("The data of this page are damaged.");
  const length = new DataView(buffer).getUint32(4, true);
  const header = JSON.parse(new TextDecoder().decode(whole.subarray(8, 8 + length)));
  return new Page(header, new Blocks(header.blocks, whole.subarray(8 + length)));
}

/** Base64 as bytes. */
export function bytesOf(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

class Blocks {
  constructor(index, bytes) {
    this.index = index;
    this.bytes = bytes;
    this.known = new Map();
  }

  get(name) {
    if (name === undefined || name === null) return null;
    if (!this.known.has(name)) this.known.set(name, this.read(this.index[name]));
    return this.known.get(name);
  }

  read(about) {
    const raw = this.bytes.subarray(about.start, about.start + about.bytes);
    if (about.type === "strings") return new Strings(raw, this.get(about.lengths));
    const n = about.length;
    if (about.type === "u8") return raw;
    if (about.type === "u16") {
      const values = new Uint16Array(n);
      for (let i = 0; i < n; i++) values[i] = raw[i] | (raw[n + i] << 8);
      return values;
    }
    const values = new Uint32Array(n);
    for (let i = 0; i < n; i++)
      values[i] = raw[i] | (raw[n + i] << 8) | (raw[2 * n + i] << 16) | (raw[3 * n + i] << 24);
    return values;
  }
}

class Strings {
  constructor(raw, lengths) {
    this.raw = raw;
    this.length = lengths.length;
    this.starts = starts(lengths);
    this.decoder = new TextDecoder();
  }

  get(i) {
    return this.decoder.decode(this.raw.subarray(this.starts[i], this.starts[i + 1]));
  }

  all() {
    return Array.from({ length: this.length }, (_, i) => this.get(i));
  }
}

function starts(lengths) {
  const found = new Uint32Array(lengths.length + 1);
  for (let i = 0; i < lengths.length; i++) found[i + 1] = found[i] + lengths[i];
  return found;
}

/** Words of which many are equal: the different ones, and which each is. */
class Coded {
  constructor(about, blocks) {
    this.names = blocks.get(about.names).all();
    this.codes = blocks.get(about.codes);
  }

  get(i) {
    return this.names[this.codes[i]];
  }
}

class Page {
  constructor(header, blocks) {
    this.header = header;
    this.scale = header.scale;
    this.groups = header.groups.map((about) => new Group(about, blocks));
    this.runs = header.runs.map((facts, place) => new Run(facts, place, this.groups[facts.group], header.scale, blocks));
  }
}

/** Training examples that several runs share. */
class Group {
  constructor(about, blocks) {
    this.runs = about.runs;
    this.examples = about.examples;
    this.even = about.even;
    this.rows = blocks.get(about.rows);
    this.held = this.rows.length;
    this.texts = blocks.get(about.texts);
    this.gold = about.gold ? new Coded(about.gold, blocks) : null;
  }

  text(i) {
    return this.texts ? this.texts.get(i) : "";
  }
}

export const UNKNOWN = 65535;

export class Run {
  constructor(facts, place, group, scale, blocks) {
    this.facts = facts;
    this.place = place;
    this.group = group;
    this.scale = scale;
    this.blocks = blocks;
    this.teacher = facts.teacher_outputs ? new Coded(facts.teacher_outputs, blocks) : null;
    this.student = facts.student_outputs ? new Coded(facts.student_outputs, blocks) : null;
    this.teacherShares = blocks.get(facts.teacher_outputs?.shares);
    this.studentShares = blocks.get(facts.student_outputs?.shares);
    this.agreement = blocks.get(facts.agreement);
    this.vocabulary = null;
    this.sets = new Map();
  }

  get xy() {
    return this.blocks.get(this.facts.xy);
  }

  /** Losses of all held examples after a round, as integers; null where they are not known. */
  losses(round) {
    const place = this.facts.loss_rounds.indexOf(round);
    return place < 0 ? null : this.blocks.get(this.facts.losses[place]);
  }

  value(code) {
    if (code === UNKNOWN) return null;
    const { kind, low, high } = this.scale;
    const share = code / (UNKNOWN - 1);
    return kind === "log" ? low * (high / low) ** share : low + share * (high - low);
  }

  loss(round, i) {
    const codes = this.losses(round);
    return codes ? this.value(codes[i]) : null;
  }

  output(whose, i) {
    const words = this[whose];
    if (!words) return null;
    const shares = this[`${whose}Shares`];
    return { words: words.get(i), share: shares ? shares[i] / 255 : null };
  }

  /** The synthetic examples that a round trained on; null without any. */
  synthetic(round) {
    if (!this.sets.has(round)) {
      const about = this.facts.synthetic.rounds.find((one) => one.round === round);
      this.sets.set(round, about ? new Synthetic(about, this) : null);
    }
    return this.sets.get(round);
  }

  piece(id) {
    this.vocabulary ??= this.blocks.get(this.facts.synthetic.vocabulary).all();
    return this.vocabulary[id];
  }

  /** The round whose number of steps is nearest to that of another run's round. */
  roundNear(steps) {
    let best = this.facts.rounds[0];
    for (const one of this.facts.rounds)
      if (Math.abs(one.total_steps - steps) < Math.abs(best.total_steps - steps)) best = one;
    return best.round;
  }
}

class Synthetic {
  constructor(about, run) {
    const { blocks } = run;
    this.run = run;
    this.round = about.round;
    this.total = about.total;
    this.anchors = blocks.get(about.anchors);
    this.length = this.anchors.length;
    this.xy = blocks.get(about.xy);
    this.labels = about.labels ? new Coded(about.labels, blocks) : null;
    this.hasText = about.lengths !== undefined;
    if (this.hasText) {
      this.starts = starts(blocks.get(about.lengths));
      this.ids = blocks.get(about.pieces);
      this.flags = blocks.get(about.flags);
    }
    this.children = null;
  }

  /** The pieces of an example's text: [text, changed], neighbours of one kind joined. */
  pieces(i) {
    const found = [];
    let second = false;
    for (let at = this.starts[i]; at < this.starts[i + 1]; at++) {
      const flags = this.flags[at];
      let text = this.run.piece(this.ids[at]);
      if (flags & 2 && !second) {
        second = true;
        if (found.length) found.push([" \u23ce", false]);
      }
      if (!found.length) text = text.trimStart();
      const changed = Boolean(flags & 1);
      const last = found.at(-1);
      if (last && last[1] === changed) last[0] += text;
      else if (changed && text.startsWith(" ") && last) {
        last[0] += " ";
        found.push([text.slice(1), changed]);
      } else found.push([text, changed]);
    }
    return found;
  }

  changed(i) {
    let sum = 0;
    for (let at = this.starts[i]; at < this.starts[i + 1]; at++) sum += this.flags[at] & 1;
    return sum / Math.max(1, this.starts[i + 1] - this.starts[i]);
  }

  /** The synthetic examples of an anchor. */
  of(anchor) {
    if (!this.children) {
      this.children = new Map();
      for (let i = 0; i < this.length; i++) {
        const own = this.children.get(this.anchors[i]);
        if (own) own.push(i);
        else this.children.set(this.anchors[i], [i]);
      }
    }
    return this.children.get(anchor) ?? [];
  }

  get anchorCount() {
    this.of(-1);
    return this.children.size;
  }
}

// The time-sequence plot: bytes over time. SVG, so that the style sheet colours it; one path a layer, so that it is quick.

const WAYS = ["Server to client", "Client to server"];
const LAYERS = [
  ["data", "Data"], ["again", "Sent again"], ["ack", "ACK"], ["window", "Window"], ["sack", "SACK"], ["mark", "Inside a host"],
];
// What was sent again lies above the ACKs and SACKs that it is about.
const DRAWN = ["data", "sack", "ack", "window", "again", "mark"];
const FLAGS = ["FIN", "SYN", "RST", "PSH", "ACK"];
const MARGIN = { left: 66, right: 12, top: 14, bottom: 26 };
const NEAR = 40; // pixels from which a point is still meant

const group = (number) => number.toLocaleString("en");
const instant = (ns) => `${(ns / 1e6).toLocaleString("en", { minimumFractionDigits: 3, maximumFractionDigits: 6 })} ms`;
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

// A step of 1, 2 or 5 times a power of ten, with which a span has about `wanted` ticks.
function tickStep(span, wanted) {
  const raw = span / Math.max(wanted, 1);
  const power = 10 ** Math.floor(Math.log10(raw));
  return power * [1, 2, 5, 10].find((factor) => factor * power >= raw * 0.999);
}

// Ticks are written in the unit that suits their step.
function tickText(value, step, unitsOf) {
  const [unit, name] = unitsOf.find(([size]) => Math.max(step, Math.abs(value) / 1000) >= size) ?? unitsOf.at(-1);
  const digits = Math.max(0, Math.ceil(-Math.log10(step / unit) - 1e-9));
  return `${(value / unit).toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits })} ${name}`;
}
const TIMES = [[1e9, "s"], [1e6, "ms"], [1e3, "us"], [1, "ns"]];
// As units.py writes a duration: three digits.
function duration(ns) {
  const [unit, name] = TIMES.find(([size]) => ns >= size * 0.9995) ?? TIMES.at(-1);
  return `${(ns / unit).toLocaleString("en", { maximumSignificantDigits: 3, minimumSignificantDigits: unit === 1 ? 1 : 3 })} ${name}`;
}
const SIZES = [[1e9, "GB"], [1e6, "MB"], [1e3, "kB"], [1, "B"]];

// The inverse of report/sequence.py.
function unpack(data) {
  const end = [0, 0], acked = [0, 0], opened = [0, 0];
  const again = new Set(data.again), late = new Set(data.late);
  let at = 0, packet = data.first;
  return data.at.map((step, row) => {
    const way = data.ways[row];
    at += step;
    if (row && packet !== null) packet += data.packet[row - 1];
    const seq = end[way] + data.seq[row];
    end[way] = seq + data.bytes[row];
    const difference = data.window?.[row] ?? null;
    const ack = data.ack[row] === null ? null : (acked[way] += data.ack[row]);
    const window = difference === null ? null : (opened[way] += difference);
    const left = data.left?.[row] ?? null;
    return {
      at, way, seq, end: end[way], flags: data.flags[row], ack, window, packet,
      left: left === null ? null : ack + left, right: left === null ? null : ack + data.right[row],
      merged: data.merged?.[row] ?? 1, again: again.has(row), late: late.has(row),
    };
  });
}

class SequencePlot {
  constructor(figure) {
    const data = JSON.parse(figure.querySelector("script").textContent);
    this.figure = figure;
    this.data = data;
    this.rows = unpack(data);
    this.marks = data.marks.map(([at, way, seq, end, kind, note]) => ({ at, way, seq, end, kind, note }));
    this.off = new Set();
    this.pointers = new Map();
    this.frame = figure.querySelector(".plot");
    this.tip = Object.assign(document.createElement("p"), { className: "tip", hidden: true });
    this.tip.setAttribute("role", "status");
    this.svg = this.make("svg", {
      class: `sequence cause-${data.cause}`, tabindex: 0, role: "application",
      "aria-label": "Time-sequence plot. Arrow keys pan, plus and minus zoom, with Shift the time only; "
        + "N and P go to the next and the previous segment, 0 shows all.",
    });
    this.frame.append(this.svg, this.tip);
    this.controls();
    this.direct(data.way);
    this.listen();
    new ResizeObserver(() => this.draw()).observe(this.frame);
  }

  make(name, attributes, text) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== undefined) element.textContent = text;
    return element;
  }

  button(parent, text, action, title) {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: text });
    if (title) button.title = title;
    button.addEventListener("click", () => action(button));
    parent.append(button);
    return button;
  }

  controls() {
    const bar = this.figure.querySelector(".plot-bar");
    const group = (name) => {
      const box = Object.assign(document.createElement("div"), { className: "group" });
      box.setAttribute("role", "group");
      box.setAttribute("aria-label", name);
      bar.append(box);
      return box;
    };
    const ways = group("Direction of the data");
    this.ways = [1, 0].map((way) => {
      const button = this.button(ways, WAYS[way], () => { this.direct(way); this.draw(); });
      button.dataset.way = way;
      return button;
    });
    const layers = group("Layers");
    this.layers = LAYERS.map(([layer, text]) => {
      const button = this.button(layers, text, () => {
        this.off.has(layer) ? this.off.delete(layer) : this.off.add(layer);
        this.draw();
      });
      button.className = `layer ${layer}`;
      button.dataset.layer = layer;
      return button;
    });
    const zoom = group("Zoom");
    this.button(zoom, "+", () => this.zoom(0.5, 0.5), "Zoom in").ariaLabel = "Zoom in";
    this.button(zoom, "\u2212", () => this.zoom(2, 2), "Zoom out").ariaLabel = "Zoom out";
    this.button(zoom, "Reset", () => this.reset(), "Show all (double click)");
  }

  // Show the data of one direction with what came back for them.
  direct(way) {
    this.way = way;
    for (const button of this.ways) button.ariaPressed = Number(button.dataset.way) === way;
    const points = [];
    for (const row of this.rows) {
      if (row.way === way) {
        if (row.end > row.seq || row.flags & 7) {
          points.push({ layer: row.again || row.late ? "again" : "data", at: row.at, low: row.seq, high: row.end, row });
        }
        continue;
      }
      if (row.ack === null) continue;
      points.push({ layer: "ack", at: row.at, low: row.ack, high: row.ack, row });
      if (row.window !== null) points.push({ layer: "window", at: row.at, low: row.ack + row.window, high: row.ack + row.window, row });
      if (row.left !== null) points.push({ layer: "sack", at: row.at, low: row.left, high: row.right, row });
    }
    for (const mark of this.marks) {
      if (mark.way === way) points.push({ layer: "mark", at: mark.at, low: mark.seq, high: mark.seq, mark });
    }
    points.sort((a, b) => a.at - b.at);
    this.points = points;
    this.chosen = null;
    const bounds = (chosen) => {
      const lows = chosen.map((point) => point.low), highs = chosen.map((point) => point.high);
      const low = lows.reduce((a, b) => Math.min(a, b), Infinity), high = highs.reduce((a, b) => Math.max(a, b), -Infinity);
      if (low === Infinity) return [0, 1];
      const room = Math.max((high - low) * 0.06, 4);
      return [low - room, high + room];
    };
    const pad = Math.max(this.data.elapsed, 1000) * 0.02;
    const home = bounds(points.filter((point) => point.layer !== "window"));
    const whole = bounds(points);
    // A window that lies far above the data would make them a flat line: zooming out shows it.
    const far = whole[1] - whole[0] > 4 * (home[1] - home[0]);
    this.home = { x: [-pad, this.data.elapsed + pad], y: far ? home : whole };
    this.limits = { x: this.home.x, y: whole };
    this.reset(false);
    for (const button of this.layers) {
      const { layer } = button.dataset;
      button.hidden = !points.some((point) => point.layer === layer);
      if (layer === "window") {
        button.textContent = far ? "Window (above: zoom out)" : "Window";
      }
    }
  }

  reset(draw = true) {
    this.view = { x: [...this.home.x], y: [...this.home.y] };
    if (draw) this.draw();
  }

  px(at) { return MARGIN.left + (at - this.view.x[0]) / (this.view.x[1] - this.view.x[0]) * this.inner[0]; }

  py(seq) { return MARGIN.top + (this.view.y[1] - seq) / (this.view.y[1] - this.view.y[0]) * this.inner[1]; }

  // Zoom about a point given as fractions of the plot, right and down.
  zoom(factorX, factorY, right = 0.5, down = 0.5) {
    const axis = (name, factor, fraction, least) => {
      const [low, high] = this.view[name];
      const limit = this.limits[name];
      const span = clamp((high - low) * factor, least, limit[1] - limit[0]);
      const start = clamp(low + (high - low - span) * fraction, limit[0], limit[1] - span);
      return [start, start + span];
    };
    this.view = { x: axis("x", factorX, right, 200), y: axis("y", factorY, 1 - down, 8) };
    this.draw();
  }

  // Pan by fractions of the plot.
  pan(right, up) {
    const axis = (name, fraction) => {
      const [low, high] = this.view[name];
      const by = clamp((high - low) * fraction, Math.min(this.limits[name][0] - low, 0), Math.max(this.limits[name][1] - high, 0));
      return [low + by, high + by];
    };
    this.view = { x: axis("x", right), y: axis("y", up) };
    this.draw();
  }

  fractions(x, y) {
    const box = this.svg.getBoundingClientRect();
    return [(x - box.left - MARGIN.left) / this.inner[0], (y - box.top - MARGIN.top) / this.inner[1]];
  }

  listen() {
    let scrolled = -1000;
    addEventListener("scroll", () => { scrolled = performance.now(); }, { passive: true });
    this.svg.addEventListener("wheel", (event) => {
      const out = (event.deltaY || event.deltaX) > 0;
      const all = ["x", "y"].every((name) => this.view[name][1] - this.view[name][0] >= (this.limits[name][1] - this.limits[name][0]) * 0.999);
      // A page that is being scrolled past the plot goes on scrolling.
      if (performance.now() - scrolled < 300 || (out && all)) return;
      event.preventDefault();
      const factor = Math.exp(clamp(event.deltaY || event.deltaX, -120, 120) * (event.ctrlKey ? 0.01 : 0.002));
      this.zoom(factor, event.shiftKey ? 1 : factor, ...this.fractions(event.clientX, event.clientY));
      this.hover(event);
    }, { passive: false });
    this.svg.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      this.svg.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
      this.hover(event);
    });
    this.svg.addEventListener("pointermove", (event) => {
      if (this.pointers.has(event.pointerId)) this.drag(event);
      else this.hover(event);
    });
    for (const name of ["pointerup", "pointercancel"]) {
      this.svg.addEventListener(name, (event) => this.pointers.delete(event.pointerId));
    }
    this.svg.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") this.choose(null); });
    this.svg.addEventListener("dblclick", () => this.reset());
    this.svg.addEventListener("blur", () => this.choose(null));
    this.svg.addEventListener("keydown", (event) => this.key(event));
  }

  // One pointer pans; two zoom by how far they go apart, each axis for itself, and pan by their middle.
  drag(event) {
    const before = [...this.pointers.values()];
    this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
    const after = [...this.pointers.values()];
    const middle = (points, axis) => points.reduce((sum, point) => sum + point[axis], 0) / points.length;
    if (after.length === 2) {
      const apart = (points, axis) => Math.abs(points[0][axis] - points[1][axis]);
      const factor = [0, 1].map((axis) => {
        const wide = apart(after, axis) > 24 && apart(before, axis) > 24;
        return wide ? apart(before, axis) / apart(after, axis) : 1;
      });
      this.zoom(...factor, ...this.fractions(middle(after, 0), middle(after, 1)));
    }
    if (after.length <= 2) {
      this.pan((middle(before, 0) - middle(after, 0)) / this.inner[0], (middle(after, 1) - middle(before, 1)) / this.inner[1]);
    }
    this.choose(null);
  }

  key(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const shift = event.shiftKey;
    const action = {
      ArrowLeft: () => this.pan(-0.1, 0), ArrowRight: () => this.pan(0.1, 0),
      ArrowUp: () => this.pan(0, 0.1), ArrowDown: () => this.pan(0, -0.1),
      "+": () => this.zoom(0.7, event.code === "Equal" ? 0.7 : shift ? 1 : 0.7), "=": () => this.zoom(0.7, 0.7),
      "*": () => this.zoom(0.7, 1), "-": () => this.zoom(1 / 0.7, 1 / 0.7), _: () => this.zoom(1 / 0.7, 1),
      0: () => this.reset(), Home: () => this.reset(), Escape: () => this.choose(null),
      n: () => this.step(1), N: () => this.step(1), p: () => this.step(-1), P: () => this.step(-1),
    }[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  }

  visible() { return this.points.filter((point) => !this.off.has(point.layer)); }

  // The next or previous segment or event, scrolled into view.
  step(by) {
    const thing = (point) => point?.row ?? point?.mark;
    const points = this.visible().filter((point, at, all) => thing(point) !== thing(all[at - 1]));
    if (!points.length) return;
    const now = points.findIndex((point) => thing(point) === thing(this.chosen));
    const next = points[now < 0 ? (by > 0 ? 0 : points.length - 1) : clamp(now + by, 0, points.length - 1)];
    const reach = (name, low, high) => {
      const [first, last] = this.view[name];
      const span = last - first;
      return low < first || high > last ? ((low + high) / 2 - first - span / 2) / span : 0;
    };
    this.pan(reach("x", next.at, next.at), reach("y", next.low, next.high));
    this.choose(next);
  }

  hover(event) {
    const box = this.svg.getBoundingClientRect();
    const x = event.clientX - box.left, y = event.clientY - box.top;
    let best = null, nearest = NEAR;
    for (const point of this.visible()) {
      const far = Math.hypot(this.px(point.at) - x, clamp(y, this.py(point.high), this.py(point.low)) - y);
      if (far < nearest) [best, nearest] = [point, far];
    }
    this.choose(best);
  }

  words(point) {
    const from = this.data.from === "between" ? "" : `, seen at the ${this.data.from}`;
    if (point.mark) return [`+${instant(point.at)}, inside the ${point.mark.end}`, point.mark.note];
    const { row } = point;
    const size = row.end - row.seq;
    const names = FLAGS.filter((_, bit) => row.flags >> bit & 1).join(" ");
    const lines = [
      `+${instant(row.at)}, ${WAYS[row.way].toLowerCase()}${from}`,
      size ? `seq ${group(row.seq)} to ${group(row.end)} (${group(size)} B), ${names}` : `seq ${group(row.seq)}, no data, ${names}`,
    ];
    if (row.ack !== null) {
      lines.push(`ack ${group(row.ack)}${row.window === null ? "" : `, window ${group(row.window)} B (to ${group(row.ack + row.window)})`}`);
    }
    if (row.left !== null) lines.push(`${row.right <= row.ack ? "D-SACK" : "SACK"} ${group(row.left)} to ${group(row.right)}`);
    if (row.again) lines.push("sent again: these bytes were seen before");
    if (row.late) lines.push("fills a hole: reordered, or sent again after a loss that is not seen here");
    if (row.window === 0) lines.push("the window is closed");
    if (row.merged > 1) lines.push(`${group(row.merged)} segments, merged by offload`);
    if (row.packet !== null) lines.push(`packet ${group(row.packet + 1)} of the capture`);
    return lines;
  }

  // Ring a point and say what it is.
  choose(point) {
    this.chosen = point;
    this.ring?.remove();
    this.tip.hidden = point === null;
    if (!point) return;
    const x = this.px(point.at), y = this.py((point.low + point.high) / 2);
    const tall = Math.abs(this.py(point.low) - this.py(point.high));
    this.ring = this.make("rect", { class: "ring", x: x - 6, width: 12, y: y - tall / 2 - 6, height: tall + 12, rx: 6 });
    this.area.append(this.ring);
    this.tip.replaceChildren(...this.words(point).flatMap((line, at) => (at ? [document.createElement("br"), line] : [line])));
    const { clientWidth: wide, clientHeight: high } = this.frame;
    const { offsetWidth, offsetHeight } = this.tip;
    this.tip.style.left = `${clamp(x + 14 + offsetWidth > wide ? x - 14 - offsetWidth : x + 14, 0, Math.max(wide - offsetWidth, 0))}px`;
    const top = clamp(y, MARGIN.top, high - MARGIN.bottom);
    this.tip.style.top = `${top - 14 - offsetHeight < 0 ? top + 14 : top - 14 - offsetHeight}px`;
  }

  draw() {
    const wide = this.frame.clientWidth, high = this.svg.clientHeight;
    if (!wide || !high) return;
    this.inner = [Math.max(wide - MARGIN.left - MARGIN.right, 1), Math.max(high - MARGIN.top - MARGIN.bottom, 1)];
    this.svg.setAttribute("viewBox", `0 0 ${wide} ${high}`);
    const clip = `${this.figure.id}-clip`;
    const path = this.make("clipPath", { id: clip });
    path.append(this.make("rect", { x: MARGIN.left, y: MARGIN.top, width: this.inner[0], height: this.inner[1] }));
    this.area = this.make("g", { "clip-path": `url(#${clip})` });
    this.svg.replaceChildren(path, ...this.axes(), this.area);
    this.stalls();
    for (const layer of DRAWN) if (!this.off.has(layer)) this.layer(layer);
    for (const button of this.layers) button.ariaPressed = !this.off.has(button.dataset.layer);
    for (const name of ["x", "y"]) this.svg.dataset[name] = this.view[name].join(" ");
    this.choose(this.chosen);
  }

  axes() {
    const [wide, high] = this.inner;
    const parts = [this.make("rect", { class: "ground", x: MARGIN.left, y: MARGIN.top, width: wide, height: high })];
    const ticks = (name, wanted, least, unitsOf, place) => {
      const [low, top] = this.view[name];
      const step = Math.max(tickStep(top - low, wanted), least);
      for (let n = Math.ceil(low / step); n * step <= top; n += 1) place(n * step, tickText(n * step + 0, step, unitsOf)); // + 0: no minus zero
    };
    ticks("x", wide / 85, 1, TIMES, (value, text) => {
      const x = this.px(value);
      parts.push(this.make("line", { class: "grid", x1: x, x2: x, y1: MARGIN.top, y2: MARGIN.top + high }));
      const anchor = x + 30 > MARGIN.left + wide ? "end" : "middle";
      parts.push(this.make("text", { x: anchor === "end" ? MARGIN.left + wide : x, y: MARGIN.top + high + 17, "text-anchor": anchor }, text));
    });
    ticks("y", high / 52, 1, SIZES, (value, text) => {
      const y = this.py(value);
      parts.push(this.make("line", { class: "grid", x1: MARGIN.left, x2: MARGIN.left + wide, y1: y, y2: y }));
      parts.push(this.make("text", { x: MARGIN.left - 7, y: y + 4, "text-anchor": "end" }, text));
    });
    return parts;
  }

  stalls() {
    const [first, last] = [MARGIN.left, MARGIN.left + this.inner[0]];
    const seen = this.data.stalls.map(([start, end]) => ({
      ns: end - start, from: clamp(this.px(start), first, last), to: clamp(this.px(end), first, last), into: this.px(end) >= first && this.px(start) <= last,
    })).filter((stall) => stall.into);
    const widest = seen.reduce((a, b) => (b.to - b.from > (a?.to ?? 0) - (a?.from ?? 0) ? b : a), null);
    for (const stall of seen) {
      this.area.append(this.make("rect", { class: "stall", x: stall.from, y: MARGIN.top, width: Math.max(stall.to - stall.from, 1), height: this.inner[1] }));
    }
    // A stall too narrow for its name goes without, but the widest always has one.
    for (const stall of seen) {
      const middle = (stall.from + stall.to) / 2;
      const text = this.make("text", { class: "stalled", x: middle, y: MARGIN.top + 22, "text-anchor": "middle" }, `${this.data.cause} ${duration(stall.ns)}`);
      this.area.append(text);
      const half = text.getComputedTextLength() / 2 + 4;
      if (stall === widest) text.setAttribute("x", clamp(middle, first + half, last - half));
      else if (2 * half > stall.to - stall.from) text.remove();
    }
    if (this.data.exchange) {
      const [start, end] = this.data.exchange;
      this.area.append(this.make("path", { class: "exchange", d: `M${this.px(start)} ${MARGIN.top + 2}H${this.px(end)}` }));
    }
  }

  layer(layer) {
    const parts = [], dots = [];
    let line = null;
    for (const point of this.points) {
      if (point.layer !== layer) continue;
      const x = this.px(point.at).toFixed(1);
      const low = this.py(point.low), high = this.py(point.high);
      if (layer === "ack" || layer === "window") {
        parts.push(line === null ? `M${x} ${low.toFixed(1)}` : `H${x}V${low.toFixed(1)}`);
        line = low;
        if (layer === "ack") dots.push(`M${x} ${low.toFixed(1)}h.01`);
        continue;
      }
      if (x < MARGIN.left - 20 || x > MARGIN.left + this.inner[0] + 20) continue;
      if (layer === "mark") {
        parts.push(point.mark.kind === "ack-timer" ? `M${x} ${low - 7}l6 11h-12z` : `M${x - 5} ${low - 5}h10v10h-10z`);
        continue;
      }
      const half = Math.max(low - high, layer === "again" ? 9 : 4) / 2; // what is there can be seen
      const [from, to] = [(low + high) / 2 + half, (low + high) / 2 - half];
      parts.push(`M${x} ${from.toFixed(1)}V${to.toFixed(1)}`);
      // Crossbars tell what was sent again from new data without colour.
      if (layer === "again") parts.push(`M${x - 4} ${from.toFixed(1)}h8M${x - 4} ${to.toFixed(1)}h8`);
      if (layer === "data" && point.row.flags & 7) dots.push(`M${x} ${((from + to) / 2).toFixed(1)}h.01`);
    }
    if (line !== null) parts.push(`H${MARGIN.left + this.inner[0]}`);
    if (parts.length) this.area.append(this.make("path", { class: `layer ${layer}`, d: parts.join("") }));
    if (dots.length) this.area.append(this.make("path", { class: `dots ${layer}`, d: dots.join("") }));
  }
}

// A plot is made when its card is opened: a page may have many.
function sequencePlots() {
  for (const figure of document.querySelectorAll("figure.sequence-plot")) {
    const card = figure.closest("details");
    const make = () => {
      if (!card.open || figure.dataset.made) return;
      figure.dataset.made = "yes";
      figure.hidden = false;
      new SequencePlot(figure);
    };
    card.addEventListener("toggle", make);
    make();
  }
}

sequencePlots();

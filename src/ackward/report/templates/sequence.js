// The time-sequence plot: bytes over time. SVG, so that the style sheet colours it; one path a layer, for speed.

const WAYS = ["Server to client", "Client to server"];
const LAYERS = [
  ["data", "Data"], ["again", "Sent again"], ["ack", "ACK"], ["window", "Window"], ["sack", "SACK"],
  ["mark", "Inside a host"],
];
// What was sent again lies above the ACKs and SACKs that it is about.
const DRAWN = ["data", "sack", "ack", "window", "again", "mark"];
const FLAGS = ["FIN", "SYN", "RST", "PSH", "ACK"];
const MARGIN = { left: 66, right: 12, top: 14, bottom: 26 };
const NEAR = 40; // pixels from which a point is still meant

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

// The inverse of report/sequence.py.
function unpack(data) {
  const end = [0, 0], acked = [0, 0], opened = [0, 0];
  const again = new Set(data.again), late = new Set(data.late);
  const sacks = new Map(data.sacks.map(([row, left, size]) => [row, [left, size]]));
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
    const sack = sacks.get(row);
    const left = sack ? ack + sack[0] : null;
    return {
      at, way, seq, end: end[way], flags: data.flags[row], ack, window, packet,
      left, right: sack ? left + sack[1] : null,
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
    this.frame = figure.querySelector(".plot");
    this.tip = Object.assign(document.createElement("p"), { className: "tip", hidden: true });
    this.tip.setAttribute("role", "status");
    this.svg = this.make("svg", {
      class: `sequence cause-${data.cause}`, tabindex: 0, role: "application",
      "aria-label": "Time-sequence plot. Arrow keys pan, plus and minus zoom, X and Shift X the time only; "
        + "N and P go to the next and the previous segment, 0 shows all.",
    });
    this.frame.append(this.svg, this.tip);
    this.controls();
    this.direct(data.way);
    new SequenceInput(this);
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
      const edge = row.ack + row.window;
      if (row.window !== null) points.push({ layer: "window", at: row.at, low: edge, high: edge, row });
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
      if (!chosen.length) return [0, 1];
      const low = lows.reduce((a, b) => Math.min(a, b)), high = highs.reduce((a, b) => Math.max(a, b));
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
      const [least, most] = this.limits[name];
      const by = clamp((high - low) * fraction, Math.min(least - low, 0), Math.max(most - high, 0));
      return [low + by, high + by];
    };
    this.view = { x: axis("x", right), y: axis("y", up) };
    this.draw();
  }

  showsAll() {
    const span = ([low, high]) => high - low;
    return ["x", "y"].every((name) => span(this.view[name]) >= span(this.limits[name]) * 0.999);
  }

  fractions(x, y) {
    const box = this.svg.getBoundingClientRect();
    return [(x - box.left - MARGIN.left) / this.inner[0], (y - box.top - MARGIN.top) / this.inner[1]];
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
      `seq ${group(row.seq)}${size ? ` to ${group(row.end)} (${group(size)} B)` : ", no data"}, ${names}`,
    ];
    if (row.ack !== null) {
      const edge = group(row.ack + row.window);
      lines.push(`ack ${group(row.ack)}${row.window === null ? "" : `, window ${group(row.window)} B (to ${edge})`}`);
    }
    if (row.left !== null) {
      lines.push(`${row.right <= row.ack ? "D-SACK" : "SACK"} ${group(row.left)} to ${group(row.right)}`);
    }
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
    const lines = this.words(point).flatMap((line) => [document.createElement("br"), line]);
    this.tip.replaceChildren(...lines.slice(1));
    const { clientWidth: wide, clientHeight: high } = this.frame;
    const { offsetWidth, offsetHeight } = this.tip;
    const left = x + 14 + offsetWidth > wide ? x - 14 - offsetWidth : x + 14;
    this.tip.style.left = `${clamp(left, 0, Math.max(wide - offsetWidth, 0))}px`;
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
    this.area.append(...this.area.querySelectorAll(".stalled")); // a name over the bars can be read
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
      for (let n = Math.ceil(low / step) + 0; n * step <= top; n += 1) { // + 0: no minus zero
        place(n * step, tickText(n * step, step, unitsOf));
      }
    };
    ticks("x", wide / 85, 1, TIMES, (value, text) => {
      const x = this.px(value);
      parts.push(this.make("line", { class: "grid", x1: x, x2: x, y1: MARGIN.top, y2: MARGIN.top + high }));
      const last = x + 30 > MARGIN.left + wide;
      const where = last ? { x: MARGIN.left + wide, "text-anchor": "end" } : { x, "text-anchor": "middle" };
      parts.push(this.make("text", { ...where, y: MARGIN.top + high + 17 }, text));
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
    const seen = this.data.stalls
      .filter(([start, end]) => this.px(end) >= first && this.px(start) <= last)
      .map(([start, end]) => ({
        ns: end - start, from: clamp(this.px(start), first, last), to: clamp(this.px(end), first, last),
      }));
    const widest = seen.reduce((a, b) => (b.to - b.from > (a?.to ?? 0) - (a?.from ?? 0) ? b : a), null);
    for (const stall of seen) {
      const width = Math.max(stall.to - stall.from, 1);
      this.area.append(this.make("rect", { class: "stall", x: stall.from, y: MARGIN.top, width, height: this.inner[1] }));
    }
    // A stall too narrow for its name goes without, but the widest always has one.
    for (const stall of seen) {
      const middle = (stall.from + stall.to) / 2;
      const where = { class: "stalled", x: middle, y: MARGIN.top + 22, "text-anchor": "middle" };
      const text = this.make("text", where, `${this.data.cause} ${duration(stall.ns)}`);
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

// Mouse, touch and keyboard of a time-sequence plot (sequence.js).

class SequenceInput {
  constructor(plot) {
    this.plot = plot;
    this.pointers = new Map();
    this.listen();
  }

  listen() {
    const { svg } = this.plot;
    let scrolled = -1000;
    addEventListener("scroll", () => { scrolled = performance.now(); }, { passive: true });
    svg.addEventListener("wheel", (event) => {
      const out = (event.deltaY || event.deltaX) > 0;
      // A page that is being scrolled past the plot goes on scrolling.
      if (performance.now() - scrolled < 300 || (out && this.plot.showsAll())) return;
      event.preventDefault();
      const factor = Math.exp(clamp(event.deltaY || event.deltaX, -120, 120) * (event.ctrlKey ? 0.01 : 0.002));
      this.plot.zoom(factor, event.shiftKey ? 1 : factor, ...this.plot.fractions(event.clientX, event.clientY));
      this.plot.hover(event);
    }, { passive: false });
    svg.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      svg.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
      this.plot.hover(event);
    });
    svg.addEventListener("pointermove", (event) => {
      if (this.pointers.has(event.pointerId)) this.drag(event);
      else this.plot.hover(event);
    });
    for (const name of ["pointerup", "pointercancel"]) {
      svg.addEventListener(name, (event) => this.pointers.delete(event.pointerId));
    }
    svg.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") this.plot.choose(null); });
    svg.addEventListener("dblclick", () => this.plot.reset());
    svg.addEventListener("blur", () => this.plot.choose(null));
    svg.addEventListener("keydown", (event) => this.key(event));
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
      this.plot.zoom(...factor, ...this.plot.fractions(middle(after, 0), middle(after, 1)));
    }
    if (after.length <= 2) {
      const [wide, high] = this.plot.inner;
      this.plot.pan((middle(before, 0) - middle(after, 0)) / wide, (middle(after, 1) - middle(before, 1)) / high);
    }
    this.plot.choose(null);
  }

  key(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const action = {
      ArrowLeft: () => this.plot.pan(-0.1, 0), ArrowRight: () => this.plot.pan(0.1, 0),
      ArrowUp: () => this.plot.pan(0, 0.1), ArrowDown: () => this.plot.pan(0, -0.1),
      "+": () => this.plot.zoom(0.7, 0.7), "=": () => this.plot.zoom(0.7, 0.7), // the same key, on many keyboards
      "-": () => this.plot.zoom(1 / 0.7, 1 / 0.7),
      x: () => this.plot.zoom(0.7, 1), X: () => this.plot.zoom(1 / 0.7, 1),
      0: () => this.plot.reset(), Home: () => this.plot.reset(), Escape: () => this.plot.choose(null),
      n: () => this.plot.step(1), N: () => this.plot.step(1), p: () => this.plot.step(-1), P: () => this.plot.step(-1),
    }[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  }
}

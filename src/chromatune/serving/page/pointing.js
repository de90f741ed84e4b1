// What a mouse, fingers or keys do on the picture: move it, zoom, paint, point. The stage tells what came of it.

const REST_MS = 220; // the pointer rests: colors are suggested for the point under it

export class Pointing {
  constructor(stage) {
    this.stage = stage;
    this.pointers = new Map(); // id ⇒ where it is in the window
    this._listen(stage.box);
  }

  _listen(box) {
    box.addEventListener("wheel", (event) => {
      event.preventDefault();
      const rect = box.getBoundingClientRect(), speed = event.ctrlKey ? 0.01 : 0.0015;
      this.stage.zoom(Math.exp(-event.deltaY * speed), event.clientX - rect.left, event.clientY - rect.top);
    }, { passive: false });
    box.addEventListener("pointerdown", (event) => this._down(event));
    box.addEventListener("pointermove", (event) => this._move(event));
    for (const type of ["pointerup", "pointercancel"]) box.addEventListener(type, (event) => this._up(event));
    box.addEventListener("pointerleave", () => {
      this.stage.pointer = null;
      clearTimeout(this.resting);
      this.stage.draw();
    });
    box.addEventListener("keydown", (event) => this._key(event));
    box.addEventListener("dblclick", () => this.stage.tool === "move" && this.stage.fit());
  }

  _down(event) {
    const { stage } = this;
    if (event.target.closest("button, #divider")) return;
    stage.box.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
    if (this.pointers.size === 2) { // two fingers move and zoom, whatever the tool
      stage.stroke = null;
      return stage.draw();
    }
    stage.cross = null;
    const point = stage.at(event);
    if (event.button !== 0 || stage.tool === "move" || !stage.inside(point)) return;
    if (stage.tool === "pick") return stage.tell("pick", stage.clamp(point));
    if (event.pointerType === "touch" && stage.tool === "brush" && !stage.isColorChosen) return this._askForColor(point);
    this._begin(point);
  }

  /** A finger has no way to point without a touch: until a color is chosen, a touch asks for some. */
  _askForColor(point) {
    const { stage } = this;
    stage.cross = stage.clamp(point);
    stage.draw();
    stage.tell("choice", stage.cross);
  }

  _begin(point) {
    const { stage } = this;
    const paint = stage.tool === "version" ? { source: stage.source } : { color: stage.tool === "gray" ? "#808080" : stage.color };
    stage.stroke = { points: [stage.clamp(point)], radius_px: Math.max(0.5, Math.round(stage.radius * 10) / 10), ...paint };
    if (stage.tool === "erase") stage.tell("erase", { point, radius: stage.radius });
    stage.draw();
  }

  _move(event) {
    const { stage } = this, before = this.pointers.get(event.pointerId), point = stage.at(event);
    stage.pointer = event.pointerType === "touch" ? null : point;
    if (before) {
      this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
      if (this.pointers.size === 2) this._pinch(event.pointerId, before);
      else if (stage.stroke) this._continue(event);
      else if (stage.tool === "move" || event.buttons & 4) stage.pan(event.clientX - before[0], event.clientY - before[1]);
    } else {
      clearTimeout(this.resting);
      if (stage.tool === "brush" && stage.inside(point)) {
        this.resting = setTimeout(() => stage.tell("rest", stage.clamp(point)), REST_MS);
      }
    }
    stage.draw();
  }

  _continue(event) {
    const { stage } = this;
    for (const each of event.getCoalescedEvents?.() ?? [event]) {
      const point = stage.at(each), [x, y] = stage.stroke.points.at(-1);
      if (Math.hypot(point[0] - x, point[1] - y) < Math.max(0.5, stage.radius / 4)) continue;
      stage.stroke.points.push(stage.clamp(point));
      if (stage.tool === "erase") stage.tell("erase", { point, radius: stage.radius });
    }
  }

  _pinch(id, before) {
    const { stage } = this, [other] = [...this.pointers].filter(([key]) => key !== id).map(([, at]) => at);
    const now = this.pointers.get(id), rect = stage.box.getBoundingClientRect();
    const distance = (a, b) => Math.max(1, Math.hypot(a[0] - b[0], a[1] - b[1]));
    stage.pan((now[0] - before[0]) / 2, (now[1] - before[1]) / 2);
    stage.zoom(distance(now, other) / distance(before, other), (now[0] + other[0]) / 2 - rect.left, (now[1] + other[1]) / 2 - rect.top);
  }

  _up(event) {
    this.pointers.delete(event.pointerId);
    if (this.stage.stroke) this._end();
  }

  _end() {
    const { stage } = this, { stroke } = stage;
    stage.stroke = null;
    stage.tell(stage.tool === "erase" ? "erased" : "stroke", stroke);
    stage.draw();
  }

  _key(event) {
    const { stage } = this;
    if (event.target !== stage.box || event.ctrlKey || event.metaKey || event.altKey) return;
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (step && stage.tool === "move") stage.pan(-60 * step[0], -60 * step[1]);
    else if (step) this._moveCross(step, event.shiftKey ? 0.002 : 0.02);
    else if ((event.key === "Enter" || event.key === " ") && stage.cross) this._useCross();
    else if (event.key === "+" || event.key === "=") stage.zoom(1.25);
    else if (event.key === "-") stage.zoom(0.8);
    else if (event.key === "0") stage.fit();
    else return;
    event.preventDefault();
  }

  _moveCross([x, y], share) {
    const { stage } = this, { width, height } = stage.size, step = share * Math.min(width, height);
    const [from, to] = stage.cross ?? [width / 2, height / 2];
    stage.cross = stage.clamp([from + x * step, to + y * step]);
    if (stage.tool === "brush") stage.tell("rest", stage.cross);
    stage.draw();
  }

  _useCross() {
    if (this.stage.tool === "pick") return this.stage.tell("pick", this.stage.cross);
    this._begin(this.stage.cross);
    this._end();
  }
}

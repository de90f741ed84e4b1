// Photos that wait to be colorized.

/** Opens photos in their order, a few at a time. */
export class Queue {
  constructor(atOnce = 2) {
    this.atOnce = atOnce;
    this.waiting = [];
    this.working = 0;
  }

  add(photo) {
    this.waiting.push(photo);
    this._next();
  }

  remove(photo) {
    this.waiting = this.waiting.filter((each) => each !== photo);
  }

  async _next() {
    if (this.working >= this.atOnce || !this.waiting.length) return;
    this.working++;
    await this.waiting.shift().open();
    this.working--;
    this._next();
  }
}

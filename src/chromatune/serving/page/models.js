// The models that the server offers, and which options each of them follows.

const FINISHED = "finished picture"; // what the server calls the model of such a version

export class Models {
  /** From the server's /v1/models. */
  constructor({ models = [], details = [], compared = [] } = {}) {
    this.names = compared.length ? compared : models; // the default first; those that nobody asked for are left out
    this.labels = new Map(details.map(({ name, label }) => [name, label || name])); // what people call them
    this.compared = compared; // whose results stand side by side
    this.follow = new Map(details.map(({ name, follows }) => [name, new Set(follows)]));
    this.follow.set(FINISHED, new Set());
  }

  /** What a model is called in menus; two models of one label are told apart by their names. */
  label(name) {
    const label = this.labels.get(name) ?? name;
    const twins = this.names.filter((other) => (this.labels.get(other) ?? other) === label);
    return twins.length > 1 && label !== name ? `${label} (${name})` : label;
  }

  /** Whether an option changes a model's colors; a model that the server has not opened yet may follow all. */
  follows(model, option) {
    return this.follow.get(model)?.has(option) ?? true;
  }

  /** Options without those that a model does not follow. */
  followed(model, options) {
    const left = { ...options };
    for (const option of ["prompt", "seed", "steps"]) if (!this.follows(model, option)) delete left[option];
    return left;
  }
}

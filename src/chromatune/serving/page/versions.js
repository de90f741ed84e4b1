// Versions of a photo: their order, what they are called, and their small pictures as buttons.

const LONGEST_LABEL = 40;

/** What variants of each other have in common. */
export const keyOf = (model, options) => JSON.stringify([model, Object.entries({ ...options, variant: 1 }).sort()]);

/** Versions as they were made, but variants of each other side by side, the likeliest first. */
export function inOrder(versions) {
  const keys = new Map(versions.map((version) => [version, keyOf(version.facts.model, version.options)]));
  const groups = [...new Set(keys.values())];
  const place = (version) => groups.indexOf(keys.get(version));
  return [...versions].sort((one, other) => place(one) - place(other) || one.facts.departure - other.facts.departure);
}

/** An instruction without what every instruction has: "colorize the photo, warm colors" ⇒ "warm". */
function shortWords(words, standards) {
  const standard = [...standards].find((each) => words.startsWith(each)) ?? "";
  const parts = words.slice(standard.length).split(",").map((part) => part.trim().replace(/^mostly | colors$/g, ""));
  return parts.filter(Boolean).join(", ").slice(0, LONGEST_LABEL);
}

/** What sets a version apart from a model's own: its words, seed, steps and the like. */
function differencesOf({ options, facts: { model, prompt, seed, variant } }, models, standards) {
  const parts = [];
  if (options.prompt && models.follows(model, "prompt")) parts.push(shortWords(prompt, standards));
  if (seed > 0 && models.follows(model, "seed")) parts.push(`seed ${seed}`);
  if (options.steps) parts.push(`${options.steps} ${options.steps === 1 ? "step" : "steps"}`);
  if (options.size_px) parts.push(`size ${options.size_px}`);
  if (options.invert) parts.push("inverted");
  if (variant > 1) parts.push(`variant ${variant}`);
  return parts.filter(Boolean);
}

/** Versions' labels: what differs, in as few words as tell them apart; "default" for a model's own. */
function labelsOf(photo, { models, words: { standards } }) {
  const several = new Set(photo.versions.map(({ facts }) => facts.model)).size > 1;
  const whole = new Map(), short = new Map();
  for (const version of photo.versions) {
    const parts = differencesOf(version, models, standards), { model, variant } = version.facts;
    whole.set(version, several ? [model, ...parts].join(", ") : parts.join(", ") || "default");
    short.set(version, variant > 1 ? parts.at(-1) : whole.get(version)); // a variant stands beside its model's own
  }
  const count = (label) => [...short.values()].filter((each) => each === label).length;
  return new Map(photo.versions.map((version) => {
    const label = short.get(version);
    return [version, count(label) > 1 ? whole.get(version) : label];
  }));
}

/** All that a version was made with, for a screen reader and a tip. */
function descriptionOf({ facts: { model, prompt, seed, steps, variant } }, models) {
  const parts = [];
  if (models.follows(model, "prompt")) parts.push(prompt);
  if (models.follows(model, "seed")) parts.push(`seed ${seed}`, `${steps} ${steps === 1 ? "step" : "steps"}`);
  if (variant > 1) parts.push(`variant ${variant}`);
  return [...parts, model].join(", ");
}

/** Fills a box with a button for each of a photo's versions that are given, one of them chosen; the focus stays. */
export function drawVersions(box, photo, versions, chosen, page, choose) {
  const labels = labelsOf(photo, page);
  const buttons = versions.map((version) => {
    const button = document.createElement("button"), said = descriptionOf(version, page.models);
    button.type = "button";
    button.setAttribute("role", "radio");
    button.setAttribute("aria-checked", version === chosen);
    button.setAttribute("aria-label", said);
    button.title = said;
    if (version.thumb) {
      const image = new Image();
      image.src = version.thumb;
      image.alt = "";
      button.append(image);
    }
    const shown = document.createElement("span");
    shown.textContent = labels.get(version);
    button.append(shown);
    button.addEventListener("click", () => choose(version));
    return button;
  });
  const focused = [...box.children].indexOf(document.activeElement);
  box.replaceChildren(...buttons);
  buttons[focused]?.focus();
}

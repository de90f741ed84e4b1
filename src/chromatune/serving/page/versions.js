// Versions of a photo: their order, what they are called, and their small pictures as buttons.

/** What variants of each other have in common. */
export const keyOf = (model, options) => JSON.stringify([model, Object.entries({ ...options, variant: 1 }).sort()]);

/** Versions as they were made, but variants of each other side by side, the likeliest first. */
export function inOrder(versions) {
  const keys = new Map(versions.map((version) => [version, keyOf(version.facts.model, version.options)]));
  const groups = [...new Set(keys.values())];
  const place = (version) => groups.indexOf(keys.get(version));
  return [...versions].sort((one, other) => place(one) - place(other) || one.facts.departure - other.facts.departure);
}

/** A version's name for a small label, and all that it was made with. Beside other models' it is called by its model. */
function namesOf({ facts: { model, prompt, seed, variant } }, models, several) {
  const made = variant > 1 ? `variant ${variant}` : `seed ${seed}`, said = [];
  if (models.follows(model, "prompt")) said.push(prompt);
  if (models.follows(model, "seed")) said.push(`seed ${seed}`);
  if (variant > 1) said.push(made);
  const isPlain = (several && variant === 1 && seed === 0) || !models.follows(model, "seed");
  const label = isPlain ? model : several ? `${model}, ${made}` : made;
  return { label, said: [...said, model].join(", ") };
}

/** Fills a box with a button for each of a photo's versions that are given, one of them chosen; the focus stays. */
export function drawVersions(box, photo, versions, chosen, models, choose) {
  const several = new Set(photo.versions.map(({ facts }) => facts.model)).size > 1;
  const buttons = versions.map((version) => {
    const button = document.createElement("button"), { label, said } = namesOf(version, models, several);
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
    shown.textContent = label;
    button.append(shown);
    button.addEventListener("click", () => choose(version));
    return button;
  });
  const focused = [...box.children].indexOf(document.activeElement);
  box.replaceChildren(...buttons);
  buttons[focused]?.focus();
}

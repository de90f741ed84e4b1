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

/** A version's name for a small label, with its model's where there are several, and all that it was made with. */
function namesOf({ facts: { model, prompt, seed, variant } }, models, several) {
  const parts = [];
  if (models.follows(model, "prompt")) parts.push(prompt);
  if (models.follows(model, "seed")) parts.push(`seed ${seed}`);
  if (variant > 1) parts.push(`variant ${variant}`);
  const said = [...parts, model].join(", ");
  if (variant > 1) return { label: `variant ${variant}`, said }; // it stands beside its model's own
  if (!models.follows(model, "seed")) return { label: model, said };
  if (!several) return { label: `seed ${seed}`, said };
  return { label: seed === 0 ? model : `${model}, seed ${seed}`, said };
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

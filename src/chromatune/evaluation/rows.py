"""Methods and the rows they give."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chromatune.errors import OptionsError
from chromatune.evaluation.settings import EvaluationSettings

GREY = "grey"
RAW = ", raw"

Record = dict[str, Any]


@dataclass(frozen=True)
class Method:
    """One way to colorize, run once over the photos; a model or another tool gives a recomposed and a raw row.

    Attributes:
        name: of the recomposed row.
        model: name to load, or None.
        folder: of result files, or None.
        steps: sampling steps; None means the model's own.
        prompt: instruction; None means the model's own.
    """

    name: str
    model: str | None = None
    folder: str | None = None
    steps: int | None = None
    prompt: str | None = None

    @property
    def rows(self) -> tuple[str, ...]:
        """Names of the rows: recomposed, then raw; grey is both."""
        return (GREY,) if self.name == GREY else (self.name, self.name + RAW)


def plan_methods(settings: EvaluationSettings) -> list[Method]:
    """Grey passthrough, then every model at each prompt and number of steps, then other tools' results.

    Raises:
        OptionsError: two rows would have one name.
    """
    methods = [Method(GREY)]
    short = {model: Path(model).name or model for model in settings.models}
    for model in settings.models:
        name = short[model] if list(short.values()).count(short[model]) == 1 else model
        for prompt in settings.prompts or (None,):
            for steps in settings.steps or (None,):
                words = [name]
                if prompt is not None and len(settings.prompts) > 1:
                    words.append(f"“{prompt}”")
                if steps is not None:
                    words.append("1 step" if steps == 1 else f"{steps} steps")
                methods.append(Method(", ".join(words), model=model, steps=steps, prompt=prompt))
    methods += [Method(name, folder=folder) for name, folder in settings.results]
    rows = [row for method in methods for row in method.rows]
    for row in rows:
        if rows.count(row) > 1:
            raise OptionsError(f"two rows would be called {row!r}; give the results another name")
    return methods

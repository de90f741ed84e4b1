"""Instructions: the sets a colorizer is trained with, a set it never sees, and words for a photo's own colors."""

from __future__ import annotations

import re

DEFAULT_PROMPT = "colorize the photo"

SINGLE_PROMPT = (DEFAULT_PROMPT,)

# Thirty ways to ask for one thing (the number is the paper's, arXiv 2312.04780; the words are ours).
COLORIZE_PROMPTS = (
    DEFAULT_PROMPT,
    "colorize this image",
    "add color to the photograph",
    "turn the black and white photo into a color photo",
    "make it a color photograph",
    "give this picture natural colors",
    "restore the colors of this photo",
    "bring color to this black and white picture",
    "paint the photo in realistic colors",
    "fill in the missing colors",
    "convert the grayscale image to color",
    "colour the image",
    "colourise the photograph",
    "render this scene in full color",
    "show it as it looked in color",
    "add lifelike colors to the picture",
    "transform the monochrome photo to color",
    "put the color back into this image",
    "make the gray picture colorful and natural",
    "apply realistic color to the photo",
    "tint every part of the photo with its true color",
    "recover the original colors",
    "change this from black and white to color",
    "let this old photo have color",
    "produce a color version of this photograph",
    "color the people and the background naturally",
    "give skin, hair and clothes their natural colors",
    "make the monochrome image look like a modern color photo",
    "infuse this gray photo with color",
    "imagine the colors of this scene and add them",
)

# Never trained on: how well a model understands wording it has not met.
HELD_OUT_PROMPTS = (
    "make this image colorful",
    "I want to see this in color",
    "please add some color here",
    "black and white to color",
    "revive the hues of this old picture",
    "what did this look like in real life? show the colors",
    "grayscale to rgb",
    "hand-color this vintage photo",
    "put realistic tones on this portrait",
    "colorization",
)

# CIELAB hue angle in degrees at the middle of each name, as photographs have it: their blues are skies and jeans,
# far from the screen's pure blue (306°).
HUE_DEGREES = {
    "red": 35.0, "orange": 65.0, "yellow": 97.0, "green": 138.0,
    "cyan": 200.0, "blue": 275.0, "purple": 312.0, "pink": 355.0,
}  # fmt: skip
NAMED_HUES = tuple(HUE_DEGREES)
ATTRIBUTES = ("warm", "cool", "vivid", "muted")
NO_ATTRIBUTE = "natural"  # said in training of photos that have none of these
SKIN_HUE_DEGREES = 55.0  # of all complexions, within about 25

# How an attribute follows the instruction; `{}` takes the word.
ATTRIBUTE_FORMS = (", {} colors", " with {} colors", " in {} tones", ", make it {}")
HUE_FORMS = (", mostly {}", " with a lot of {}", ", {} tones", " with {} in it")


def with_attribute(prompt: str, form: str, word: str) -> str:
    """Return the instruction with an attribute after it.

    `("colorize it", ", {} colors", "warm")` gives "colorize it, warm colors".
    """
    return prompt + form.format(word)


def taught_words() -> tuple[str, ...]:
    """Return the words, in order, of all instructions that the small colorizer is trained with."""
    forms = (form.format("") for form in (*ATTRIBUTE_FORMS, *HUE_FORMS))
    text = " ".join([*COLORIZE_PROMPTS, *forms, *ATTRIBUTES, NO_ATTRIBUTE, *NAMED_HUES])
    return tuple(sorted(set(re.findall(r"\w+", text))))

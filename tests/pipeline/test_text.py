"""Prompts: cut, and said so; masked where the model was trained with a mask; those of a frozen encoder read once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from chromatune.errors import ModelError
from chromatune.pipeline import load_pipeline
from chromatune.pipeline.text import TextEmbedder, tokenize
from chromatune.pipeline.truncation import PromptTokenizer, truncated_prompts_warning


@pytest.fixture
def pipeline(tiny_pipeline):
    return load_pipeline(str(tiny_pipeline()), device="cpu")


def test_tokens_are_padded_and_cut_to_77(pipeline):
    tokens = tokenize(pipeline.tokenizer, ["red", "b " * 200])
    assert tokens.ids.shape == tokens.mask.shape == (2, 77)
    assert tokens.mask.sum(dim=1).tolist() == [5, 77]  # start, three letters, end
    second = tokens.rows(torch.tensor([1]))
    assert torch.equal(second.ids[0], tokens.ids[1]) and torch.equal(second.mask[0], tokens.mask[1])


def test_padding_is_masked_only_where_the_model_says_so(pipeline):
    """The stock pipeline does the same: a mask a model was not trained with changes every embedding."""
    tokens = tokenize(pipeline.tokenizer, ["red"])
    plain = pipeline.text_encoder(tokens.ids)[0]
    masked = pipeline.text_encoder(tokens.ids, attention_mask=tokens.mask)[0]
    assert (plain - masked).abs().max() > 1e-4
    assert torch.equal(TextEmbedder(pipeline.tokenizer, pipeline.text_encoder)("red"), plain)
    pipeline.text_encoder.config.use_attention_mask = True
    assert torch.equal(TextEmbedder(pipeline.tokenizer, pipeline.text_encoder)("red"), masked)


def test_a_text_encoder_that_is_trained_is_read_anew_with_gradients(pipeline):
    embed = TextEmbedder(pipeline.tokenizer, pipeline.text_encoder)
    frozen = embed("red", "blue")
    assert frozen.shape == (2, 77, 16) and not frozen.requires_grad
    pipeline.text_encoder.requires_grad_(True)
    assert embed("red", "blue").requires_grad
    with torch.no_grad():
        next(pipeline.text_encoder.parameters()).add_(1)
    assert not torch.allclose(embed("red", "blue"), frozen)


def test_a_frozen_text_encoder_keeps_the_last_prompts_alone(pipeline, monkeypatch):
    reads: list[int] = []
    forward = type(pipeline.text_encoder).forward

    def counted(self, ids, *args, **kwargs):
        reads.append(len(ids))
        return forward(self, ids, *args, **kwargs)

    monkeypatch.setattr(type(pipeline.text_encoder), "forward", counted)
    embed = TextEmbedder(pipeline.tokenizer, pipeline.text_encoder, most_kept=2)
    first = embed("a")
    for prompt in ("b", "a", "c", "a", "b"):  # b goes when c comes
        embed(prompt)
    assert torch.equal(embed("a"), first)
    assert sum(reads) == 4


@pytest.mark.parametrize(
    ("prompt", "rest"),
    [("", ""), ("red", ""), ("a" * 75, ""), ("a" * 74 + " bc", "c"), ("a" * 100, "a" * 25), ("a " * 80, "a a a a a")],
)
def test_what_is_cut_off_a_prompt_is_known(pipeline, prompt, rest):
    """A token a letter: 75 fit between the marks of start and end."""
    assert PromptTokenizer.of(pipeline.tokenizer).truncated_part(prompt) == rest
    kept = prompt[: len(prompt.rstrip()) - len(rest)]
    # But for the last of them, which is another one where it now ends a word
    assert torch.equal(*(tokenize(pipeline.tokenizer, [text]).ids[:, :75] for text in (prompt, kept)))


def test_a_prompt_that_is_cut_is_said_in_one_line(pipeline):
    from chromatune import Colorizer, make_options
    from chromatune.pipeline.torch_backend import TorchBackend

    colorizer, gray = Colorizer(TorchBackend(pipeline)), np.zeros((8, 8), np.uint8)
    assert colorizer.colorize(gray, make_options(steps=1, prompt="red")).warnings == ()
    long = {"prompt": "a" * 75 + "\n\x1bz", "negative_prompt": "b" * 500}
    first, second = colorizer.colorize(gray, make_options(steps=1, **long)).warnings
    assert first.startswith("the prompt is longer than 77 tokens, and is not read from ") and first.isprintable()
    assert second.startswith("the negative prompt is") and len(second) < 120


def test_of_many_prompts_those_that_are_cut_are_counted_once(pipeline):
    """A token a letter: 75 fit, and neither 74 nor 75 are too many."""
    tokenizer = pipeline.tokenizer
    fits, long = ["", "red", "a" * 74, "a" * 75, "é " * 30], ["b" * 70 + "\n\x1bcutoff", "a " * 400, "z" * 77]
    assert truncated_prompts_warning(tokenizer, []) == truncated_prompts_warning(tokenizer, fits) == ""
    truncated_part = PromptTokenizer.of(tokenizer).truncated_part
    assert [bool(truncated_part(prompt)) for prompt in fits + long] == [False] * 5 + [True] * 3
    line = truncated_prompts_warning(tokenizer, fits + long + long)
    assert line.startswith(f"3 of 8 prompts are longer than 77 tokens: one, {'b' * 30!r}…, is not read from ")
    assert line.isprintable() and len(line) < 200
    assert truncated_prompts_warning(tokenizer, ["z" * 77]).startswith("the prompt is longer than 77")


def test_prompts_that_are_cut_are_counted_beyond_the_first_of_many(pipeline, monkeypatch):
    monkeypatch.setattr("chromatune.pipeline.truncation.PROMPTS_AT_ONCE", 3)
    prompts = [f"{number} " + "a" * number for number in range(70, 80)]
    assert truncated_prompts_warning(pipeline.tokenizer, prompts).startswith("6 of 10 prompts")


def test_a_panic_of_the_library_is_one_line(pipeline):
    """It is no `Exception`: it would pass every handler, and end a server's thread."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    backend = Tokenizer(models.BPE({"a": 0, "b": 1}, []))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("(a+)+$"), "removed")
    reader = PromptTokenizer(backend, 77, 0)
    for read in (lambda: reader.ids(["a" * 60 + "b"]), lambda: reader.truncated_part("a" * 60 + "b")):
        with pytest.raises(ModelError, match="tokenizer cannot read the prompt") as caught:
            read()
        assert str(caught.value).isprintable()

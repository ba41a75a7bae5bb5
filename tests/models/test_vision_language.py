from __future__ import annotations

import re

import pytest
import tiny
import torch

from vlm.conversation.packing import IMAGE_SLOT
from vlm.errors import BadInput
from vlm.models.config import ModelConfig
from vlm.models.vision_language import cast_parameters


def test_pictures_are_spliced_in_reading_order() -> None:
    model = tiny.vision_language()
    pictures = tiny.patches(3)
    tokens = torch.tensor(
        [[5, *[IMAGE_SLOT] * 4, 6, *[IMAGE_SLOT] * 4, 7], [8, 9, *[IMAGE_SLOT] * 4, 10, 11, 12, 13, 14]]
    )
    with torch.no_grad():
        visual = [model.project(picture[None], (1, 1)) for picture in pictures]
        x = model.embed(tokens, visual)
        assert torch.equal(x[0, 1:5], visual[0])
        assert torch.equal(x[0, 6:10], visual[1])
        assert torch.equal(x[1, 2:6], visual[2])
        words = tokens != IMAGE_SLOT
        assert torch.equal(x[words], model.language.embedding(tokens[words]))


@pytest.mark.parametrize(("slots", "pictures"), [(3, 1), (4, 2), (8, 1), (4, 0), (0, 1)])
def test_a_wrong_number_of_slots_names_both_counts(slots: int, pictures: int) -> None:
    model = tiny.vision_language()
    seen = [model.project(picture[None], (1, 1)) for picture in tiny.patches(pictures)]
    needed = " + ".join(["4"] * pictures) or "0"
    with pytest.raises(
        BadInput, match=re.escape(f"expected {needed} image slots for {pictures} pictures, got {slots}")
    ):
        model.embed(torch.tensor([[1, *[IMAGE_SLOT] * slots, 2]]), seen)


@torch.no_grad()
def test_logits_without_a_picture_are_the_language_models() -> None:
    model = tiny.vision_language()
    tokens = torch.randint(300, (2, 6))
    torch.testing.assert_close(model(tokens), model.language(tokens), rtol=0, atol=0)


@torch.no_grad()
def test_the_picture_is_seen() -> None:
    model = tiny.vision_language()
    tokens = torch.tensor([[1, *[IMAGE_SLOT] * 4, 2, 3]])
    one, other = (tiny.logits(model, tokens, tiny.patches(1, seed=seed)) for seed in (0, 1))
    assert (one - other)[0, -1].abs().max() > 1e-2
    torch.testing.assert_close(one[0, 0], other[0, 0])


def test_configs_that_do_not_fit_together() -> None:
    data = tiny.MODEL.model_dump()
    with pytest.raises(ValueError, match="text_width 31 is not the language width 32"):
        ModelConfig.model_validate({**data, "text_width": 31})
    with pytest.raises(ValueError, match="factor 3 does not divide the tower's grid of 4"):
        ModelConfig.model_validate({**data, "projector": {"factor": 3, "hidden": 8}})


def test_casting_weights_leaves_routing_biases_in_float32() -> None:
    model = tiny.vision_language()
    cast_parameters(model, torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert {router.bias_E.dtype for router in model.language.routers()} == {torch.float32}
    assert model.language.lm_head.weight is model.language.embedding.weight

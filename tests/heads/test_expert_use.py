"""Which experts pictures and words call: counted a token at a time."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch
from PIL import Image

from vlm.conversation.messages import question
from vlm.conversation.packing import IMAGE_SLOT
from vlm.conversation.template import CAPTION_PROMPT, CLIP_PROMPT
from vlm.errors import BadInput
from vlm.facade import Model
from vlm.heads.experts import expert_use
from vlm.heads.writer import Writer
from vlm.media.open import Media, open_media
from vlm.models.assemble import assemble
from vlm.models.assembled import Assembled
from vlm.models.card import load_card


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Assembled:
    monkeypatch.setenv("VLM_CACHE", str(tmp_path / "cache"))
    return assemble(load_card(str(tiny.write_card(tmp_path / "model"))), offline=True)


@torch.no_grad()
def test_calls_are_those_of_each_token(parts: Assembled) -> None:
    picture, clip = (Image.effect_noise((70, 50), 90).convert("RGB"), Image.new("RGB", (64, 64), "red"))
    media = [open_media(picture), Media((picture, clip), (0.0, 1.0))]
    found = expert_use(Writer(parts), media, ["A red square.", "A square."])
    processor, model = parts.processor, parts.model
    for one, item, prompt, said in zip(
        found, media, (CAPTION_PROMPT, CLIP_PROMPT), ("A red square.", "A square."), strict=True
    ):
        built = processor.prompt(question(prompt, item.is_clip), [item])
        tokens = built.ids + processor.reply(said)
        states: list[torch.Tensor] = []
        handles = [
            router.register_forward_pre_hook(lambda _, x, states=states: states.append(x[0][0]))
            for router in model.language.routers()
        ]
        inputs = processor.inputs(built)
        model(torch.tensor([tokens]), inputs.pixels, inputs.grids)
        for handle in handles:
            handle.remove()
        assert one.tokens == len(tokens)
        for layer, (router, x_TD) in enumerate(zip(model.language.routers(), states, strict=True)):
            calls = {"image": [0] * 4, "text": [0] * 4}
            for token, x in zip(tokens, x_TD, strict=True):
                for e in router(x[None])[1][0].tolist():
                    calls["image" if token == IMAGE_SLOT else "text"][e] += 1
            assert {kind: calls_LE[layer].tolist() for kind, calls_LE in one.kinds.items()} == calls
        assert one.kinds["image"].sum().item() == 2 * 2 * 4 * len(item.frames)  # layers, experts, tokens


def test_a_dense_model_has_no_experts(parts: Assembled) -> None:
    parts.model.language = tiny.language(moe=None)
    with pytest.raises(BadInput, match="model tiny: no mixture layers, so no experts"):
        Model("tiny", "a card's model", writer=Writer(parts), parts=parts).expert_use([Image.new("RGB", (8, 8))])

from __future__ import annotations

from pathlib import Path

import published
import pytest
import tiny
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

import vlm.language
from vlm.assets import cards
from vlm.errors import BadInput
from vlm.models import parts
from vlm.models.assemble import assemble
from vlm.models.card import load_card


@pytest.fixture
def card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A card of random parts on this machine, and an empty cache."""
    monkeypatch.setenv("VLM_CACHE", str(tmp_path / "cache"))
    return tiny.write_card(tmp_path / "model")


def edit(card: Path, **changes: object) -> str:
    card.write_text(yaml.safe_dump({**yaml.safe_load(card.read_text()), **changes}))
    return str(card)


@pytest.mark.parametrize("name", cards("configs/models"))
def test_every_model_card_loads(name: str) -> None:
    card = load_card(name)
    assert card.name == name
    assert card.licence
    assert {"tower", "language"} <= card.parts.keys()
    assert ("text" in card.parts) == (card.model.alignment.text == "encoder")
    assert all(part.licence for part in card.parts.values())


def test_a_card_of_ones_own_becomes_a_model(card: Path) -> None:
    assembled = assemble(load_card(str(card)), offline=True)
    model = assembled.model
    assert not model.training
    assert model.language.embedding.weight.dtype == torch.float32
    tokens = torch.tensor([assembled.tokenizer.encode("A red square.")])
    dense = tiny.language(moe=None)
    with torch.no_grad():
        torch.testing.assert_close(model.language(tokens), dense(tokens), rtol=1e-4, atol=1e-5)
    again = assemble(load_card(str(card)), offline=True).model
    for (name, one), other in zip(model.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other), name  # an untrained model is the same everywhere


def test_parts_are_converted_once(card: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    convert = parts.CONVERTERS["hf"]

    def counted(files: dict[str, Path], folder: Path) -> None:
        made.append(folder)
        convert(files, folder)

    monkeypatch.setattr(parts, "CONVERTERS", {**parts.CONVERTERS, "hf": counted})
    first = parts.pull(load_card(str(card)), offline=True)
    assert parts.pull(load_card(str(card)), offline=True) == first
    assert len(made) == 2


def test_a_conversion_that_was_cut_short_is_made_again(card: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    convert = parts.CONVERTERS["hf"]

    def cut(files: dict[str, Path], folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(parts, "CONVERTERS", {**parts.CONVERTERS, "hf": cut})
    with pytest.raises(KeyboardInterrupt):
        parts.pull(load_card(str(card)), offline=True)
    monkeypatch.setattr(parts, "CONVERTERS", {**parts.CONVERTERS, "hf": convert})
    folders = parts.pull(load_card(str(card)), offline=True)
    assert (folders["tower"] / "model.safetensors").stat().st_size > 10_000


def test_an_unknown_format_is_named(card: Path) -> None:
    data = yaml.safe_load(card.read_text())["parts"]
    data["tower"]["sources"][0]["format"] = "dinov2_onx"
    with pytest.raises(BadInput, match="unknown weight format 'dinov2_onx'; did you mean 'dinov2_onnx'"):
        assemble(load_card(edit(card, parts=data)), offline=True)


@pytest.mark.parametrize("where", ["top", "tower"])
def test_an_unknown_key_is_one_line(card: Path, where: str) -> None:
    model = yaml.safe_load(card.read_text())["model"]
    model["tower"]["colour"] = 3
    name = edit(card, colour=3) if where == "top" else edit(card, model=model)
    with pytest.raises(BadInput) as caught:
        load_card(name)
    message = str(caught.value)
    assert "tiny.yaml" in message
    assert ("model.tower.colour" if where == "tower" else "colour") in message
    assert "\n" not in message


def test_trained_weights_are_put_on_top(card: Path, tmp_path: Path) -> None:
    home = tmp_path / "trained"
    with pytest.raises(BadInput, match="no trained weights at"):
        assemble(load_card(edit(card, trained=str(home))), offline=True)
    home.mkdir()
    weight = torch.full((32, 32), 0.25)
    save_file({"projector.mlp.3.weight": weight}, home / "model.safetensors")
    name = edit(card, trained=str(home))
    assert torch.equal(assemble(load_card(name), offline=True).model.projector.mlp[3].weight, weight)
    untrained = assemble(load_card(name), offline=True, trained=False).model
    assert not torch.equal(untrained.projector.mlp[3].weight, weight)


def test_a_model_name_that_does_not_exist() -> None:
    with pytest.raises(BadInput, match="unknown model 'nanoo'; did you mean 'nano'"):
        load_card("nanoo")


MIXTURE = {
    "q_lora_rank": None, "kv_lora_rank": 16, "qk_nope_head_dim": 12, "qk_rope_head_dim": 4, "v_head_dim": 8,
    "num_key_value_heads": 4, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1,
    "moe_intermediate_size": 16, "n_shared_experts": 1,
}  # fmt: skip


@pytest.mark.parametrize("family", ["qwen2", "deepseek_v3"])
def test_a_card_takes_any_language_model_that_we_read(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dense or a mixture, in its authors' own folder."""
    monkeypatch.setenv("VLM_CACHE", str(tmp_path / "cache"))
    path = tiny.write_card(tmp_path / "model")
    folder = tmp_path / "model" / "language"
    options = {} if family == "qwen2" else MIXTURE
    (folder / "model.safetensors").unlink()
    theirs = published.write(published.theirs(family, vocab_size=320, max_position_embeddings=256, **options), folder)
    card = yaml.safe_load(path.read_text())
    card["model"]["language"] = vlm.language.load(theirs).cfg.model_dump(mode="json")
    path.write_text(yaml.safe_dump(card))
    model = vlm.load(path, offline=True)
    assert len(model.caption([Image.new("RGB", (40, 40), "red")], max_tokens=3)) == 1
    ids = torch.tensor([[5, 6, 7]])
    with torch.inference_mode():
        # An engine may have laid the weights out in another order.
        torch.testing.assert_close(model.logits(ids), vlm.language.load(theirs)(ids))

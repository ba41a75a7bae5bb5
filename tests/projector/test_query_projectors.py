"""Projectors of learned queries: against transformers' modules, in a card, trained, saved and read back."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch
import yaml
from safetensors.torch import save_file
from torch import nn
from transformers import Blip2QFormerConfig, Blip2QFormerModel, IdeficsConfig
from transformers.models.idefics.perceiver import IdeficsPerceiverResampler

from vlm.config import Config
from vlm.errors import BadInput
from vlm.models.assemble import assemble
from vlm.models.card import load_card
from vlm.models.trained import release
from vlm.projector import PerceiverConfig, QFormerConfig
from vlm.projector.checkpoints import from_blip2
from vlm.training.loop import train
from vlm.training.recipe import Recipe
from vlm.training.stages import build_stage

PERCEIVER = PerceiverConfig(latents=5, layers=2, heads=2, head_width=6, ratio=4)
Q_FORMER = QFormerConfig(queries=5, width=24, layers=3, heads=3, ffn_width=40)
KINDS = [PERCEIVER, Q_FORMER]


def random_(module: nn.Module) -> None:
    """Weights that all matter, norms too."""
    for parameter in module.parameters():
        parameter.data = torch.randn_like(parameter) * 0.3 + (parameter.ndim == 1)


def blip2(width: int) -> tuple[Blip2QFormerModel, dict[str, torch.Tensor]]:
    """transformers' Q-Former of `Q_FORMER`'s sizes for a tower of this width, and a checkpoint with it."""
    torch.manual_seed(0)
    cfg = Blip2QFormerConfig(
        hidden_size=24, num_hidden_layers=3, num_attention_heads=3, intermediate_size=40, encoder_hidden_size=width,
        use_qformer_text_input=True,
    )  # fmt: skip
    theirs = Blip2QFormerModel(cfg).eval()
    random_(theirs)
    state = {f"qformer.{name}": tensor for name, tensor in theirs.state_dict().items()}
    return theirs, state | {"query_tokens": torch.randn(1, 5, 24), "language_projection.weight": torch.randn(7, 24)}


@torch.no_grad()
def test_the_q_former_is_transformers() -> None:
    theirs, state = blip2(width=14)
    ours = Q_FORMER.build(14, 9).eval()
    ours.load_state_dict({**from_blip2(state), "proj.weight": torch.randn(9, 24), "proj.bias": torch.randn(9)})
    patches = torch.randn(2, 11, 14)
    seen = theirs(query_embeds=state["query_tokens"].expand(2, -1, -1), encoder_hidden_states=patches)
    assert seen.last_hidden_state.std() > 0.1
    torch.testing.assert_close(ours(patches), ours.proj(seen.last_hidden_state), rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("qk_norm", [False, True])
def test_the_perceiver_is_idefics(qk_norm: bool) -> None:
    torch.manual_seed(0)
    cfg = IdeficsConfig(
        vision_config={"embed_dim": 14},
        perceiver_config={"qk_layer_norms_perceiver": qk_norm},
    )
    theirs = IdeficsPerceiverResampler(cfg, 14, depth=2, n_heads=2, head_dim=6, n_latents=5).eval()
    random_(theirs)
    ours = PERCEIVER.model_copy(update={"activation": "relu", "qk_norm": qk_norm}).build(14, 9).eval()
    names = {
        "latents": "latents_MD", "layer_norm": "norm", "0.context_layer_norm": "tokens_norm",
        "0.latents_layer_norm": "latents_norm", "0.q_layer_norm": "attention.q_norm",
        "0.k_layer_norm": "attention.k_norm", "0.output_proj": "attention.o_proj", "0.q_proj": "attention.q_proj",
        "0.k_proj": "attention.k_proj", "0.v_proj": "attention.v_proj", "1.ln": "ffn_norm", "1.fc": "up",
        "1.c_proj": "down",
    }  # fmt: skip
    state = {f"proj.{kind}": tensor for kind, tensor in ours.proj.state_dict().items()}
    for name, tensor in theirs.state_dict().items():
        if name.startswith("blocks."):
            _, number, rest = name.split(".", 2)
            module, kind = rest.rsplit(".", 1)
            state[f"layers.{number}.{names[module]}.{kind}"] = tensor
        else:
            module, _, kind = name.partition(".")
            state[f"{names[module]}.{kind}".rstrip(".")] = tensor
    ours.load_state_dict(state)
    patches = torch.randn(2, 11, 14)
    seen = theirs(patches)
    assert seen.std() > 0.1
    torch.testing.assert_close(ours(patches), ours.proj(seen), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_flamingos_layers_as_its_paper_has_them() -> None:
    """arXiv:2204.14198, figure 5: x = x + attention(q=x, kv=[x_f, x]); x = x + ffw(x), with a squared ReLU."""
    torch.manual_seed(0)
    module = PerceiverConfig(latents=3, layers=2, heads=1, head_width=4, ratio=2).build(6, 5).eval()
    random_(module)
    (picture,) = torch.randn(1, 7, 6)
    x = module.latents_MD
    for layer in module.layers:
        q, seen = layer.latents_norm(x), torch.cat([layer.tokens_norm(picture), layer.latents_norm(x)])
        attention = layer.attention
        scores = attention.q_proj(q) @ attention.k_proj(seen).T / 4**0.5
        x = x + attention.o_proj(scores.softmax(-1) @ attention.v_proj(seen))
        x = x + layer.down(layer.up(layer.ffn_norm(x)).clamp(min=0) ** 2)
    torch.testing.assert_close(module(picture[None])[0], module.proj(module.norm(x)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("cfg", KINDS, ids=lambda cfg: cfg.kind)
def test_every_weight_learns_and_every_picture_has_as_many_tokens(cfg: PerceiverConfig | QFormerConfig) -> None:
    torch.manual_seed(0)
    module = cfg.build(14, 9)
    for patches in (4, 49):
        assert module(torch.randn(2, patches, 14)).shape == (2, cfg.tokens(7), 9)
    pictures = torch.randn(3, 16, 14)
    together = module(pictures)
    torch.testing.assert_close(together[1:2], module(pictures[1:2]), rtol=1e-4, atol=1e-6)
    together.square().sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        # What is added to all keys alike changes no softmax.
        assert name.endswith("k_proj.bias") or parameter.grad.abs().max() > 0, name


def card(folder: Path, cfg: Config, **changes: object) -> Path:
    """The tiny card with this projector."""
    path = tiny.write_card(folder)
    data = yaml.safe_load(path.read_text())
    data["model"]["projector"] = cfg.model_dump(mode="json")
    path.write_text(yaml.safe_dump({**data, **changes}))
    return path


@pytest.mark.parametrize("cfg", KINDS, ids=lambda cfg: cfg.kind)
def test_in_a_card_it_trains_and_comes_back(
    cfg: PerceiverConfig | QFormerConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLM_CACHE", str(tmp_path / "cache"))
    path, squares = card(tmp_path / "model", cfg), tiny.write_data(tmp_path / "data", pictures=28)
    recipe = Recipe.model_validate(
        {
            "model": str(path), "data": str(tmp_path / "data"), "output": "words", "steps": 40, "batch": 8,
            "objective": {"kind": "bag_of_words", "dataset": str(squares)}, "save_every": 40, "validate_every": 40,
            "optimizer": {"lr": 0.01, "lr_of": {"words.": 0.05}}, "log_every": 1,
        }
    )  # fmt: skip
    stage = build_stage(recipe, lambda text: None, offline=True)
    before = stage.task.validate()["words_loss"]
    train(recipe, stage, tmp_path / "words")
    assert stage.task.validate()["words_loss"] < 0.8 * before
    release([tmp_path / "words"], tmp_path / "released")
    named = card(tmp_path / "again", cfg, trained=str(tmp_path / "released"))
    again = assemble(load_card(str(named)), offline=True).model
    assert load_card(str(named)).model.visual_tokens == 5
    patches = tiny.patches(2)
    with torch.no_grad():
        trained, read = stage.task.model.projector(patches), again.projector(patches)
    assert torch.nn.functional.cosine_similarity(trained, read, dim=-1).min() > 0.999  # eight bits a weight
    assert again.embed(torch.full((1, 5), -1), [again.project(patches[:1], (1, 1))]).shape == (1, 5, 32)


def test_a_card_takes_its_q_former_from_blip2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLM_CACHE", str(tmp_path / "cache"))
    _, state = blip2(width=tiny.TOWER.width)
    (tmp_path / "blip2").mkdir()
    save_file(state, tmp_path / "blip2" / "model.safetensors")
    source = {"path": str(tmp_path / "blip2"), "files": {"model.safetensors": {"path": "model.safetensors"}}}
    part = {"licence": "none", "about": "a Q-Former", "sources": [{**source, "format": "blip2_q_former"}]}

    def assembled(cfg: Config, folder: str) -> dict[str, torch.Tensor]:
        path = card(tmp_path / folder, cfg)
        data = yaml.safe_load(path.read_text())
        data["parts"]["projector"] = part
        path.write_text(yaml.safe_dump(data))
        return assemble(load_card(str(path)), offline=True).model.projector.state_dict()

    found = assembled(Q_FORMER, "one")
    for name, tensor in from_blip2(state).items():
        assert torch.equal(found[name], tensor), name
    assert found["proj.weight"].shape == (32, 24)
    with pytest.raises(BadInput, match=r"queries_MQ expected \[6, 24\], got \[5, 24\]"):
        assembled(Q_FORMER.model_copy(update={"queries": 6}), "two")
    save_file({"other": torch.ones(2)}, tmp_path / "blip2" / "model.safetensors")
    with pytest.raises(BadInput, match="no tensor query_tokens"):
        assembled(Q_FORMER, "three")


def test_a_width_that_heads_do_not_share() -> None:
    with pytest.raises(ValueError, match="width 24 is not a multiple of heads 5"):
        QFormerConfig(width=24, heads=5)

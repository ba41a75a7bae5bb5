"""Merging of visual tokens against loops, and in a model: as many tokens as promised, nothing lost, order kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch
import yaml
from torch import Tensor

from vlm.conversation.packing import IMAGE_SLOT
from vlm.engine.greedy import greedy
from vlm.errors import BadInput
from vlm.models.config import ModelConfig
from vlm.models.vision_language import VisionLanguageModel
from vlm.training.recipe import Recipe
from vlm.training.stages import build_stage
from vlm.vision.merging import MergeConfig, Tokens, merge

RATIOS = [(1.0, 0.5), (0.5, 1.0), (0.3, 0.4), (0.9, 0.99), (0.01, 0.01), (1.0, 0.01), (0.07, 1.0), (1 / 3, 2 / 3)]


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


def plainly(visual_FMD: Tensor, cfg: MergeConfig) -> list[list[int]]:
    """Which tokens become one, by the definition: groups of places, each in order, in order of their first."""
    frames, tokens, _ = visual_FMD.shape
    x = visual_FMD.flatten(0, 1)
    groups = [[place] for place in range(frames * tokens)]
    if frames > 1 and cfg.temporal < 1:
        pairs = [(cosine(x[p], x[p - tokens]), p) for p in range(tokens, frames * tokens)]
        left = max(tokens, -int(-cfg.temporal * frames * tokens // 1))
        for _, place in sorted(pairs, key=lambda pair: (-pair[0], pair[1]))[: frames * tokens - left]:
            one = next(group for group in groups if place - tokens in group)
            other = next(group for group in groups if place in group)
            one += other
            groups.remove(other)
        groups = in_space(x, groups, tokens, cfg.tokens(tokens, frames))
    else:
        left, cut = cfg.tokens(tokens), [groups[f * tokens : (f + 1) * tokens] for f in range(frames)]
        groups = [group for frame in cut for group in in_space(x, frame, tokens, left)]
    return [sorted(group) for group in groups]


def in_space(x: Tensor, groups: list[list[int]], tokens: int, left: int) -> list[list[int]]:
    while len(groups) > left:
        groups = sorted(groups, key=min)
        means = [x[group].mean(0) for group in groups]
        pairs = []
        for frame in {min(group) // tokens for group in groups}:
            inside = [i for i, group in enumerate(groups) if min(group) // tokens == frame]
            for i in inside[0::2]:
                if inside[1::2]:
                    pairs.append(max((cosine(means[i], means[j]), i, j) for j in inside[1::2]))
        chosen = sorted(pairs, reverse=True)[: min(max(1, len(groups) // 8), len(groups) - left)]
        for _, i, j in chosen:
            groups[j] = groups[j] + groups[i]
        gone = {i for _, i, _ in chosen}
        groups = [group for i, group in enumerate(groups) if i not in gone]
    return sorted(groups, key=min)


@pytest.mark.parametrize(("spatial", "temporal"), RATIOS)
@pytest.mark.parametrize("shape", [(1, 9), (1, 1), (4, 6), (3, 7), (5, 1)])
def test_against_a_loop(spatial: float, temporal: float, shape: tuple[int, int]) -> None:
    torch.manual_seed(shape[0])
    visual, cfg = torch.randn(*shape, 4), MergeConfig(spatial=spatial, temporal=temporal)
    found = merge(visual, cfg)
    assert len(found.x_TD) == cfg.tokens(shape[1], shape[0])
    groups = plainly(visual, cfg)
    assert found.place_T.tolist() == [group[0] for group in groups], "the order of time, then row by row"
    assert found.size_T.tolist() == [len(group) for group in groups]
    x = visual.flatten(0, 1)
    torch.testing.assert_close(found.x_TD, torch.stack([x[group].mean(0) for group in groups]))
    whole = (found.x_TD * found.size_T[:, None]).sum(0)
    torch.testing.assert_close(whole, x.sum(0), rtol=1e-4, atol=1e-4)


def test_a_ratio_of_one_changes_nothing() -> None:
    visual = torch.randn(3, 5, 4)
    for dtype in (torch.float32, torch.bfloat16):
        assert torch.equal(merge(visual.to(dtype), MergeConfig()).x_TD, visual.to(dtype).flatten(0, 1))


def test_frames_that_are_the_same_are_merged_before_any_other_and_without_loss() -> None:
    torch.manual_seed(0)
    first, second = torch.randn(2, 6, 8)
    clip = torch.stack([first, first, first, second, second])
    found = merge(clip, MergeConfig(temporal=12 / 30))
    torch.testing.assert_close(found.x_TD, torch.cat([first, second]))
    assert found.size_T.tolist() == [3] * 6 + [2] * 6
    assert found.place_T.tolist() == [*range(6), *range(18, 24)]


def test_patches_that_are_the_same_are_merged_first() -> None:
    torch.manual_seed(0)
    kinds = torch.randn(8, 16)
    found = merge(kinds.repeat_interleave(2, 0)[None], MergeConfig(spatial=0.5))
    torch.testing.assert_close(found.x_TD, kinds)
    assert found.place_T.tolist() == [*range(0, 16, 2)]


@pytest.mark.parametrize("ratio", [0.5, 0.25, 1 / 3, 0.1, 0.7, 0.30000000000000004])
def test_shares_are_rounded_up_and_noise_in_the_ratio_is_not(ratio: float) -> None:
    for tokens in (10, 16, 30, 196):
        exact = round(ratio, 12) * tokens
        whole = round(exact) if abs(exact - round(exact)) < 1e-6 else int(exact) + 1
        assert MergeConfig(spatial=ratio).tokens(tokens) == max(1, whole)


def test_gradients_reach_every_token() -> None:
    visual = torch.randn(3, 6, 4, requires_grad=True)
    merge(visual, MergeConfig(spatial=0.5, temporal=0.5)).x_TD.sum().backward()
    assert visual.grad is not None
    assert bool((visual.grad > 0).all())


@pytest.mark.parametrize("wrong", [{"spatial": 0.0}, {"temporal": 1.5}, {"spatial": -1}])
def test_a_ratio_that_is_none(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        MergeConfig(**wrong)


def merging_config(**ratios: float) -> ModelConfig:
    return tiny.MODEL.model_copy(update={"merge": MergeConfig(**ratios)})


def merging(**ratios: float) -> VisionLanguageModel:
    """The tiny model with four tokens a frame before merging."""
    plain = tiny.vision_language()
    model = merging_config(**ratios).build(plain.tower, plain.language).eval()
    model.projector.load_state_dict(plain.projector.state_dict())
    return model


@torch.no_grad()
def test_in_a_model_slots_are_as_many_as_promised() -> None:
    model, cfg = merging(spatial=0.5, temporal=0.5), merging_config(spatial=0.5, temporal=0.5)
    assert cfg.visual_tokens == 2
    assert cfg.lines(3) == (3, 1)
    assert merging_config(spatial=0.5).lines(3) == (2, 3)
    clips = tiny.patches(4).split([3, 1])
    slots = cfg.clip_tokens(3) + cfg.clip_tokens(1)
    seen = [model.project(clip, (len(clip), 1)) for clip in clips]
    x = model.embed(torch.full((1, slots), IMAGE_SLOT), seen)
    expected = [merge(model.projector(clip), cfg.merge) for clip in clips]
    torch.testing.assert_close(x[0], torch.cat([clip.x_TD for clip in expected]))
    with pytest.raises(BadInput, match=r"expected 3 \+ 2 image slots for 2 pictures, got 4"):
        model.embed(torch.full((1, 4), IMAGE_SLOT), seen)


def test_replies_do_not_depend_on_the_batch() -> None:
    ratios = {"spatial": 0.75, "temporal": 0.6}
    model, patches = merging(**ratios), tiny.patches(6)
    tokens = merging_config(**ratios).clip_tokens
    prompts = []
    with torch.inference_mode():
        for clip in patches.split([3, 1, 2]):
            ids = [5, *[IMAGE_SLOT] * tokens(len(clip)), 7]
            prompts.append(model.embed(torch.tensor([ids]), [model.project(clip, (len(clip), 1))])[0])
    together = greedy(model.language, prompts, stop=(), max_tokens=6)
    alone = [greedy(model.language, [prompt], stop=(), max_tokens=6)[0] for prompt in prompts]
    assert together == alone


def test_a_config_that_merges_nothing_says_nothing_of_it() -> None:
    assert "merge" not in tiny.MODEL.model_dump()
    merged = tiny.MODEL.model_copy(update={"merge": MergeConfig(temporal=0.5)})
    assert ModelConfig.model_validate(merged.model_dump()) == merged
    assert isinstance(merge(torch.randn(1, 2, 3), MergeConfig()), Tokens)


def test_a_card_that_merges_is_trained_that_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLM_CACHE", str(tmp_path / "cache"))
    path, squares = tiny.write_card(tmp_path / "model"), tiny.write_data(tmp_path / "data")
    card = yaml.safe_load(path.read_text())
    card["model"]["merge"] = {"spatial": 0.5}
    path.write_text(yaml.safe_dump(card))
    source = {"dataset": str(squares), "use": "captions", "share": 1.0, "branches": 2}
    recipe = Recipe.model_validate(
        {
            "model": str(path), "data": str(tmp_path / "data"), "output": "run", "steps": 2, "batch": 2,
            "objective": {"kind": "instruct", "sources": [source]}, "optimizer": {"lr": 0.01},
        }
    )  # fmt: skip
    task = build_stage(recipe, lambda text: None, offline=True).task
    assert all(item.packed.prefix.count(IMAGE_SLOT) == 2 for item in task.validation)
    task.loss(0).backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in task.model.projector.parameters())

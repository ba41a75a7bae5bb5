"""Models that guess for each other, and engines that are told who guesses."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
import running
import tiny

import vlm
from vlm.engine.drafts.drafter import Drafter
from vlm.engine.drafts.drafting import Drafting
from vlm.engine.drafts.planner import Plan, Planner, total
from vlm.engine.engine import Engine
from vlm.engine.job import Reply
from vlm.engine.request import Request
from vlm.engine.settings import EngineSettings
from vlm.facade import Model
from vlm.language import LanguageModel
from vlm.language.config import LanguageConfig
from vlm.language.config.attention import LatentConfig
from vlm.language.config.mixture import MoEConfig

SMALL = LanguageConfig(
    vocab_size=320, width=16, layers=2, heads=2, kv_heads=1, head_width=8, ffn_width=24, max_positions=256
)
SIZES = (1, 2, 4, 6, 8, 12, 16)


def latent(heads: int) -> LanguageConfig:
    """Of DeepSeek-V3's shape, with so many multi-token heads."""
    return LanguageConfig(
        vocab_size=320, width=32, layers=3, heads=4, kv_heads=4, head_width=20, ffn_width=40, max_positions=256,
        attention=LatentConfig(kind="mla", kv_rank=16, q_rank=12, rope_width=8, value_width=10),
        moe=MoEConfig(experts=8, top_k=3, width=16, first_dense=1, shared_width=16), multi_token=heads,
    )  # fmt: skip


def write(folder: Path, cfg: LanguageConfig, format: str, seed: int = 0) -> Path:
    """A random language model alone, with `tiny`'s tokenizer."""
    torch.manual_seed(seed)
    model = LanguageModel(cfg).eval()
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if tensor.ndim > 1:
                tensor.normal_(std=0.5 if "embedding" in name else 1.5 * tensor.shape[-1] ** -0.5)
    vlm.language.save(model, folder, format=format)
    tiny.write_tokenizer(folder / "tokenizer.json")
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))
    return folder


class Script(Drafter):
    """Guesses what `says` gives of a reply and a number of tokens."""

    name = "draft"

    def __init__(self, says: Callable[[Reply, int], list[int]], most: int = 4):
        self.says, self.most = says, most

    def draft(self, asked: Sequence[tuple[Reply, int]]) -> list[list[int]]:
        return [self.says(reply, most) for reply, most in asked]


class Told(Planner):
    """Plans with chance, whatever was measured."""

    def __init__(self, sizes: tuple[int, ...], drafters: Sequence[tuple[str, int]], seed: int = 0):
        super().__init__(sizes, drafters)
        self.chance = random.Random(seed)

    def plan(self, replies: int) -> Plan:
        least, most = total(replies, self._sizes), total(5 * replies, self._sizes)
        name = self.chance.choice(list(self._drafters) or [""])
        return Plan(name, self.chance.choice([least, min(most, least + 4), most]))


def engine(model: Model, draft: Model | None = None, *, told: bool = True, seed: int = 0, **settings: object) -> Engine:
    """With plans by chance where it is `told`."""
    chosen = EngineSettings.model_validate({"chunk": 16, "waiting": 1000, **settings})
    made = Engine(model.model, model.processor, chosen, None if draft is None else draft.parts)
    drafting = made.drafting
    if told and drafting.most:
        drafting.planner = Told(made.decoding.sizes, [(d.name, d.most) for d in drafting._drafters.values()], seed)
    return made


def scripted(model: Model, drafter: Drafter, **settings: object) -> Engine:
    """With one drafter, whose guesses fill all rows."""
    made = engine(model, told=False, **settings)
    drafting = Drafting([drafter], made.decoding.sizes, frozenset({model.processor.image_token}))
    drafting.planner = Told(made.decoding.sizes, [(drafter.name, drafter.most)])
    made.drafting = made.decoding.drafting = drafting
    return made


def plain(model: Model, requests: Sequence[Request]) -> list[dict[int, running.Answer]]:
    """The replies without any guesses, each alone."""
    return [running.ask(engine(model, guesses=0, keep_prompts=False), [one])[0].answers for one in requests]

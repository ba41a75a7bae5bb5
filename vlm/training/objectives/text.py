"""Next-token training of a language model alone, on plain text; the routing of its mixtures goes into the log.

N blocks, B blocks of a batch, T tokens of a block, V vocabulary.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import vlm.language
from vlm.conversation.tokenizer import END_OF_TEXT, TextTokenizer, learn_tokenizer
from vlm.datasets import examples as data
from vlm.datasets.texts import blocks, documents
from vlm.devices import device_of
from vlm.errors import BadInput
from vlm.files import atomic_write
from vlm.language import LanguageModel
from vlm.language.checkpoints.families import find
from vlm.language.config.mixture import MoEConfig
from vlm.language.mixture.experts import RoutedExperts
from vlm.language.mixture.statistics import RoutingStatistics, draw, recorded, routing_statistics, step_statistics
from vlm.language.multi_token import multi_token_losses
from vlm.models.vision_language import cast_parameters
from vlm.training.objectives.config import BalanceConfig, TextObjective
from vlm.training.schedule import batches, mixture
from vlm.training.task import Figures, Log, Task

if TYPE_CHECKING:
    from vlm.training.recipe import Recipe

VALIDATION_BLOCKS = 128


class TextTask(Task):
    def __init__(
        self,
        model: LanguageModel,
        train_NT: Tensor,
        held_out_NT: Tensor,
        tokenizer: Path,
        end: int,
        objective: TextObjective,
        recipe: Recipe,
    ):
        self.model, self.train_NT, self.held_out_NT = model, train_NT, held_out_NT[:VALIDATION_BLOCKS]
        self.tokenizer, self.end, self.objective, self.batch = tokenizer, end, objective, recipe.batch
        self.steps = batches(mixture([len(train_NT)], [1.0], recipe.steps * recipe.batch, recipe.seed), recipe.batch)
        self._figures: Figures = {}

    def trainable(self) -> dict[str, nn.Parameter]:
        return dict(self.model.named_parameters())

    def loss(self, step: int) -> Tensor:
        tokens_BT = self.train_NT[[block for _, block, _ in self.steps[step]]].to(self.model.embedding.weight.device)
        losses = self._losses(tokens_BT)
        losses |= {f"{kind.removesuffix('_loss')}_loss": loss for kind, loss in self.model.router_losses().items()}
        self._figures = {name: float(loss.detach()) for name, loss in losses.items()}
        return torch.stack([*losses.values()]).sum()

    def _losses(self, tokens_BT: Tensor) -> dict[str, Tensor]:
        hidden_BTD = self.model.hidden(self.model.embedding(tokens_BT))
        logits_BTV = self.model.logits(hidden_BTD[:, :-1])
        losses = {"next_token_loss": F.cross_entropy(logits_BTV.flatten(0, 1).float(), tokens_BT[:, 1:].flatten())}
        if self.model.multi_token is not None:
            ahead = multi_token_losses(self.model.multi_token_logits(hidden_BTD, tokens_BT), tokens_BT)
            losses["multi_token_loss"] = self.objective.multi_token_weight * ahead.mean()
        return losses

    def after_step(self) -> None:
        routers, moe = self.model.routers(), self.model.cfg.moe
        adaptive = moe is not None and moe.adaptive is not None
        tokens = self.batch * self.train_NT.shape[1] if adaptive else 0
        self._figures |= step_statistics(routers, tokens).figures()
        for router in routers:
            router.balance()

    def figures(self) -> Figures:
        return self._figures

    def validate(self) -> Figures:
        """The mean loss a token on text that is not trained on, and the routing of that text."""
        losses, routing = self._measured()
        means = {f"validation_{name}": sum(values) / len(self.held_out_NT) for name, values in losses.items()}
        return means | {f"validation_{name}": figure for name, figure in routing.figures().items()}

    @torch.no_grad()
    def _measured(self) -> tuple[dict[str, list[float]], RoutingStatistics]:
        self.model.eval()
        routers = self.model.routers()
        losses: dict[str, list[float]] = {}
        with recorded(routers) as seen:
            for tokens_BT in self.held_out_NT.split(self.batch):
                for name, loss in self._losses(tokens_BT.to(self.model.embedding.weight.device)).items():
                    losses.setdefault(name, []).append(float(loss) * len(tokens_BT))
        self.model.train()
        if not routers:
            return losses, step_statistics([])
        chosen_LTk = torch.stack([torch.cat(calls) for calls in seen])
        return losses, routing_statistics(chosen_LTk, routers[0].cfg.experts)

    def buffers(self) -> dict[str, Tensor]:
        kept = self.model.state_dict().keys()
        return {name: buffer for name, buffer in self.model.named_buffers() if name in kept}

    def export(self) -> dict[str, Tensor]:
        return {name: p.detach() for name, p in self.trainable().items()} | self.buffers()

    def finish(self, run: Path) -> None:
        """`model/`: a folder that `vlm.language.load` and transformers read. `routing.png`: who was called."""
        if self.objective.format is not None:
            folder = run / "model"
            vlm.language.save(self.model, folder, self.objective.format)
            described = json.loads((folder / "config.json").read_text()) | {"eos_token_id": self.end}
            atomic_write(folder / "config.json", json.dumps(described, indent=2) + "\n")
            atomic_write(folder / "tokenizer.json", self.tokenizer.read_bytes())
        if self.model.routers():
            draw(self._measured()[1], run / "routing.png")


def text_task(recipe: Recipe, objective: TextObjective, log: Log) -> TextTask:
    """The model of `recipe` and its text. A model from its start gets a vocabulary that is learned from the text and
    kept in the run's folder.

    Raises `BadInput` for a format that cannot hold the model before anything is trained.
    """
    train, held_out = _texts(objective, recipe)
    if objective.language is not None:
        model = LanguageModel(objective.language)
        initialise(model, objective.init_std)
        path = Path(recipe.output) / "tokenizer.json"
        if not path.is_file():
            log(f"learning a vocabulary of {model.cfg.vocab_size} from {len(train)} texts")
            try:
                atomic_write(path, learn_tokenizer(train, model.cfg.vocab_size))
            except ValueError as error:
                raise BadInput(f"{recipe.output}: {error}") from None
        end = TextTokenizer(path).control(END_OF_TEXT)
    else:
        folder = Path(str(recipe.model)).expanduser()
        model, path, end = _continued(folder, objective)
    _rebalance(model, objective.balance)
    if objective.format is not None:
        find(objective.format).write(model.cfg)
    tokenizer = TextTokenizer(path)
    train_NT = blocks(tokenizer.encode_batch(train), end, objective.length)
    if held_out:
        held_out_NT = blocks(tokenizer.encode_batch(held_out), end, objective.length)
    else:
        train_NT, held_out_NT = train_NT.tensor_split([-max(1, len(train_NT) // 20)])
    if not len(train_NT):
        raise BadInput(f"{objective.path}: a text of one block of {objective.length} tokens; expected two or more")
    if (highest := int(train_NT.max())) >= model.cfg.vocab_size:
        raise BadInput(f"{path}: token {highest} is beyond the model's vocabulary of {model.cfg.vocab_size}")
    if recipe.precision == "bfloat16":
        cast_parameters(model, torch.bfloat16)
    parameters = sum(p.numel() for p in model.parameters())
    log(f"training {parameters / 1e6:.1f} M parameters on {train_NT.numel() / 1e6:.2f} M tokens")
    model.to(device_of(recipe.device))
    return TextTask(model.train(), train_NT, held_out_NT, path, end, objective, recipe)


@torch.no_grad()
def initialise(model: LanguageModel, std: float) -> None:
    """Matrices normal with this deviation, biases 0, norms 1 (as GPT-2; DeepSeek-V3 has 0.006)."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding | RoutedExperts):
            for name, parameter in module.named_parameters(recurse=False):
                nn.init.zeros_(parameter) if name == "bias" else nn.init.normal_(parameter, std=std)


def _texts(objective: TextObjective, recipe: Recipe) -> tuple[list[str], list[str]]:
    """The documents to train on and those held out; a path's are not split here."""
    if objective.path is not None:
        return documents(Path(objective.path).expanduser()), []
    card = data.load_card(str(objective.dataset))
    folder = data.data_folder(recipe.data)
    splits = []
    for split in ("train", "val"):
        splits.append(["\n".join(example.captions) for example in card.read(folder, split) if example.captions])
        if not splits[-1]:
            raise BadInput(f"{recipe.output}: dataset {objective.dataset} has no captions in split {split!r}")
    return splits[0], splits[1]


def _continued(folder: Path, objective: TextObjective) -> tuple[LanguageModel, Path, int]:
    """The model of a folder, its `tokenizer.json` and its token for the end of a text."""
    model = vlm.language.load(folder, multi_token=objective.multi_token)
    model.requires_grad_(True)
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise BadInput(f"{path}: no such file")
    end = json.loads((folder / "config.json").read_text()).get("eos_token_id")
    end = end[0] if isinstance(end, list) and end else end
    if not isinstance(end, int) or not 0 <= end < model.cfg.vocab_size:
        raise BadInput(f"{folder / 'config.json'}: key eos_token_id: expected a token that ends a text, got {end!r}")
    return model, path, end


def _rebalance(model: LanguageModel, balance: BalanceConfig) -> None:
    wanted = balance.model_dump(exclude_none=True)
    if not wanted:
        return
    if model.cfg.moe is None:
        raise BadInput("objective.balance: the model has no mixture layers")
    moe = MoEConfig.model_validate(model.cfg.moe.model_dump() | wanted)
    model.cfg = model.cfg.model_copy(update={"moe": moe})
    for router in model.routers():
        router.cfg = moe

"""What a family of published checkpoints calls things: its config's keys and its tensors, in both directions.

A family is data: which key of `config.json` holds which field of ours, what its architecture fixes, and the name of
each tensor. Shapes follow from our own model, so a table has names only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from vlm import config
from vlm.errors import BadInput
from vlm.language.config import LanguageConfig

Fields = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """A piece of a config that is more than a renamed key."""

    read: Callable[[Any], Fields]
    """The family's config -> our fields, nested ones as `moe.groups`."""
    write: Callable[[LanguageConfig], Fields]
    """Our config -> the family's keys."""


@dataclass(frozen=True)
class Family:
    name: str
    """`model_type` in `config.json`."""
    architecture: str
    keys: dict[str, str]
    """Our field -> its key in `config.json`."""
    fixed: Fields
    """Our fields that the architecture decides."""
    parts: tuple[Part, ...]
    tensors: dict[str, str]
    """Our module or tensor -> theirs; below `layers.*` without that prefix, `*` stands for an expert's number."""
    extra: tuple[str, ...] = ()
    """Patterns of tensors that a checkpoint may hold beside the decoder: left out."""
    multi_token: str | None = None
    """Key of the number of multi-token heads: layers after the last, left out unless they are asked for."""
    dense_without_experts: bool = False
    """A config of no experts is one of dense layers alone."""
    leading_axis: tuple[str, ...] = ()
    """Ends of our names whose tensors have an axis of 1 in front in theirs."""
    defaults: Fields | None = None
    """Of a family whose config class transformers does not have: what a missing key means."""

    def parse(self, fields: Fields, where: str) -> Any:
        """The content of `config.json` with the family's defaults filled in."""
        if self.defaults is not None:
            parsed = SimpleNamespace(**{**self.defaults, **fields})
            scaling = fields.get("rope_parameters") or fields.get("rope_scaling") or {}
            kind = scaling.get("rope_type", scaling.get("type", "default"))
            parsed.rope_parameters = {"rope_theta": parsed.rope_theta, **scaling, "rope_type": kind}
            if parsed.num_key_value_heads is None:
                parsed.num_key_value_heads = parsed.num_attention_heads
            return parsed
        from huggingface_hub.errors import StrictDataclassError
        from transformers import AutoConfig

        try:
            return AutoConfig.for_model(self.name, **{k: v for k, v in fields.items() if k != "model_type"})
        except (ValueError, TypeError, KeyError, AttributeError, StrictDataclassError) as error:
            raise BadInput(f"{where}: not a config of {self.name}: {' '.join(str(error).split())}") from None

    def read(self, parsed: Any, where: str, multi_token: bool = False) -> LanguageConfig:
        """Our config, with multi-token heads where they are wished for and the config has any.

        Raises `BadInput` where the family's config asks for what the decoder does not do.
        """
        if parsed.hidden_act not in ("silu", "swish"):
            raise BadInput(f"{where}: key hidden_act: expected silu, got {parsed.hidden_act!r}")
        try:
            flat = {ours: getattr(parsed, theirs) for ours, theirs in self.keys.items()} | self.fixed
            for part in self.parts:
                flat |= part.read(parsed)
            if self.dense_without_experts and not flat["moe.experts"]:
                flat = {ours: value for ours, value in flat.items() if not ours.startswith("moe.")}
            if multi_token and self.multi_token is not None:
                flat["multi_token"] = getattr(parsed, self.multi_token, 0)
        except (AttributeError, KeyError, TypeError) as error:
            raise BadInput(f"{where}: not a config of {self.name}: {error}") from None
        except ValueError as error:
            raise BadInput(f"{where}: {error}") from None
        nested: Fields = {}
        for name, value in flat.items():
            *parents, last = name.split(".")
            target = nested
            for parent in parents:
                target = target.setdefault(parent, {})
            target[last] = value
        return config.parse(LanguageConfig, nested, where)

    def write(self, cfg: LanguageConfig) -> Fields:
        """The family's keys. Raises `BadInput` naming what of `cfg` the family cannot say."""
        fields: Fields = {"hidden_act": "silu"}
        for ours, theirs in self.keys.items():
            value: Any = cfg
            for attribute in ours.split("."):
                value = getattr(value, attribute, None)
            if not ours.startswith("moe.") or cfg.moe is not None:
                fields[theirs] = value
        if self.dense_without_experts and cfg.moe is None:
            fields[self.keys["moe.experts"]] = 0
        if self.multi_token is not None:
            fields[self.multi_token] = cfg.multi_token
        for part in self.parts:
            try:
                fields |= part.write(cfg)
            except AttributeError:  # a part about latent attention or a mixture, of a model without
                raise BadInput(f"the model is not of a kind that format {self.name} can hold") from None
        said, wanted = _essence(self.read(self.parse(fields, self.name), self.name, multi_token=True)), _essence(cfg)
        if lost := [key for key in sorted(said.keys() | wanted.keys()) if said.get(key) != wanted.get(key)]:
            text = ", ".join(f"{key} {wanted.get(key)} (it would be {said.get(key)})" for key in lost)
            raise BadInput(f"format {self.name} cannot hold this model's {text}")
        return fields

    def tensor(self, ours: str, layers: int) -> str:
        """Their name of our tensor of a model with so many layers. Raises `BadInput` where the family has none."""
        first, *rest = ours.split(".")
        prefix, name = "", ours
        if first == "layers":
            prefix, name = f"model.layers.{rest[0]}.", ".".join(rest[1:])
        elif first == "multi_token":  # multi_token.heads.0.block.attention...
            prefix, name = f"model.layers.{layers + int(rest[1])}.", ".".join(rest[2:]).removeprefix("block.")
        module, _, kind = name.rpartition(".")
        if name in self.tensors:
            return prefix + self.tensors[name]
        if module in self.tensors:
            return f"{prefix}{self.tensors[module]}.{kind}"
        raise BadInput(f"format {self.name} has no place for tensor {ours!r}")


_PLACES = ("layers", "first_dense", "every")
_TRAINING = ("bias_update_rate", "sequence_balance", "batch_balance", "z_loss", "start")


def _essence(cfg: LanguageConfig) -> Fields:
    """What decides the function: two configs that say the same in other words are equal here."""
    layers = range(cfg.layers)
    flat: Fields = {}
    for name, value in cfg.model_dump().items():
        flat |= {f"{name}.{key}": v for key, v in value.items()} if isinstance(value, dict) else {name: value}
    for redundant in ("window", "window_layers", *(f"moe.{name}" for name in (*_PLACES, *_TRAINING))):
        flat.pop(redundant, None)
    flat["windows"] = [cfg.window_of(layer) for layer in layers]
    if cfg.moe is not None:
        flat["mixture layers"] = [layer for layer in layers if cfg.is_mixture(layer)]
        flat["moe.shared_width"] = cfg.shared_width()
        if cfg.moe.groups == 1:
            del flat["moe.group_score"], flat["moe.groups_kept"]
        if len(flat["mixture layers"]) == cfg.layers:
            del flat["ffn_width"]
    return flat

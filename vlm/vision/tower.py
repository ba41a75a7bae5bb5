"""The vision tower: pixels in, patch tokens and one pooled vector out, whatever library the model is of.

B images, N patches, D width, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

import torch
from PIL import Image
from pydantic import Field, PositiveInt, SerializerFunctionWrapHandler, model_serializer
from torch import Tensor, nn
from torch.nn import functional as F

from vlm.config import Config
from vlm.errors import BadInput
from vlm.registry import Named
from vlm.vision.library import LIBRARIES
from vlm.vision.native_resolution import Patches, PatchShape, to_patches
from vlm.vision.transforms import SQUASH, Framing, Interpolation, Kernel, to_pixels

Activation = Literal["gelu", "quick_gelu", "gelu_tanh", "silu", "relu"]
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "silu": F.silu,
    "relu": F.relu,
}
LATER = ("framing", "layer", "budget", "options")
"""Keys that came after features were kept by a config's JSON: left out of it where they say nothing."""

TowerInput: TypeAlias = Tensor | Patches


class TowerConfig(Config):
    """A ViT of one of `LIBRARIES`. The activation is stated, because checkpoints with the wrong one load without
    complaint; `build` compares it with the one the library's model has.
    """

    library: Annotated[str, Named(LIBRARIES)]
    name: str
    """The library's: a model of timm or torchvision, a configuration of open_clip, a model type of transformers."""
    image_size: PositiveInt
    patch: PositiveInt
    width: PositiveInt
    activation: Activation
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Interpolation = "bicubic"
    framing: Framing = SQUASH
    layer: int = Field(-1, lt=0)
    """Whose tokens: the last layer's as the library gives them, or those of a block before it, not normalised."""
    budget: PositiveInt | None = None
    """The most patches of a picture of any aspect ratio; without one every picture becomes a square."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The architecture in the library's own words, where the name does not say all of it."""

    @property
    def grid(self) -> int:
        """Patches along one side of a square picture. Raises `ValueError` where pictures keep their shapes."""
        if self.budget is not None:
            raise ValueError(f"tower {self.name}: with a budget of patches every picture has a grid of its own")
        return self.image_size // self.patch

    @property
    def squashed(self) -> tuple[int, str] | None:
        """The side and Pillow's filter by which every picture becomes a square before anything else, where it does."""
        framing = self.framing
        if self.budget is not None or framing.resize != "squash" or framing.kernel != "pillow":
            return None
        return framing.side or self.image_size, self.interpolation

    def build(self) -> VisionTower:
        """The tower with random weights. Raises `BadInput` where the library's model is not what is stated."""
        tower = LIBRARIES[self.library].build(self)
        tower.check()
        return tower

    @model_serializer(mode="wrap")
    def _without_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        silent = {key for key in LATER if getattr(self, key) == fields[key].get_default(call_default_factory=True)}
        return {key: value for key, value in handler(self).items() if key not in silent}


class TowerOutput(NamedTuple):
    tokens_BND: Tensor
    """Patch tokens row by row, as `VisionTower.grids` says; CLS and register tokens are dropped."""
    pooled_BD: Tensor
    """The vector the library pools, before any projection or classifier."""


class VisionTower(nn.Module):
    """One library's model behind one interface; `vlm/vision/towers/` has a class for each of ours."""

    square, native = True, False
    """Whether the model takes pixels `[B, 3, H, W]`, and whether it takes `Patches`."""

    def __init__(self, cfg: TowerConfig):
        super().__init__()
        self.cfg = cfg

    def forward(self, pixels: TowerInput) -> TowerOutput:
        raise NotImplementedError

    def load_published(self, state: Mapping[str, Tensor]) -> None:
        """Load the library's own names. Raises `BadInput` for a key or a shape that does not match."""
        raise NotImplementedError

    def found(self) -> tuple[int, int]:
        """Width and patch of the library's model."""
        raise NotImplementedError

    def activations(self) -> Iterable[Callable[[Tensor], Tensor]]:
        """Every activation function of the library's model."""
        raise NotImplementedError

    def preprocess(self, images: Sequence[Image.Image], kernel: Kernel | None = None) -> TowerInput:
        """RGB pictures as float32 `[B, 3, H, W]`, or as `Patches` where there is a budget.

        Equal to the library's own preprocessing; `kernel="torchvision"` is faster and not always equal (`Framing`).
        """
        cfg, framing = self.cfg, self.cfg.framing
        if kernel is not None:
            framing = framing.model_copy(update={"kernel": kernel})
        if cfg.budget is not None:
            return to_patches(images, cfg.patch, cfg.budget, cfg.mean, cfg.std, cfg.interpolation, framing.kernel)
        return to_pixels(images, cfg.image_size, cfg.mean, cfg.std, cfg.interpolation, framing)

    def grids(self, pixels: TowerInput) -> tuple[PatchShape, ...]:
        """Rows and columns of patches of each picture: how `tokens_BND` is laid out. Nothing is computed."""
        if isinstance(pixels, Patches):
            return pixels.grids
        return ((pixels.shape[-2] // self.cfg.patch, pixels.shape[-1] // self.cfg.patch),) * len(pixels)

    def check(self) -> None:
        """Raise `BadInput` where the library's model is not what the config states."""
        cfg = self.cfg
        if not (self.square if cfg.budget is None else self.native):
            takes = "needs a budget of patches" if cfg.budget is None else "has no use for a budget: it takes squares"
            raise BadInput(f"tower {cfg.name}: key budget: this model of {cfg.library} {takes}")
        if (cfg.width, cfg.patch) != self.found():
            width, patch = self.found()
            raise BadInput(
                f"tower {cfg.name}: expected width {cfg.width}, patch {cfg.patch}; "
                f"{cfg.library} has width {width}, patch {patch}"
            )
        names = {activation_name(activation) for activation in self.activations()}
        if names != {cfg.activation}:
            got = " and ".join(sorted(names)) or "none"
            raise BadInput(
                f"tower {cfg.name}: expected the activation {cfg.activation}, {cfg.library}'s model has {got}"
            )


def activation_name(function: Callable[[Tensor], Tensor]) -> str:
    """Which of `ACTIVATIONS` a function computes, told by its values, since classes have many names."""
    probe = torch.linspace(-4, 4, 65)
    values = function(probe.clone())
    near = [name for name, known in ACTIVATIONS.items() if torch.allclose(values, known(probe), rtol=0, atol=1e-6)]
    return near[0] if near else f"an unknown one ({type(function).__name__})"


def unfit(name: str) -> str:
    """How an error about a tower's tensors begins."""
    return f"tower {name}: the checkpoint's tensors do not fit"

"""The contrastive objective as data: which loss, over which batch, and what is learned beside it."""

from __future__ import annotations

from typing import Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from vlm.alignment.dual_encoder import AlignmentConfig
from vlm.config import Config
from vlm.training.recipe import Objective


class HardNegatives(Config):
    """What stands in a picture's way on purpose."""

    nearest: NonNegativeInt = 0
    """Pictures mined for each one drawn: those that look most like it to the tower as it is published. They do not
    depend on what is being learned, so a resumed run mines the same."""
    swapped: bool = False
    """Each caption brings one with two of its words exchanged, which describes no picture (arXiv:2210.01936)."""


class Distillation(Config):
    """Learn a teacher's similarities (arXiv:2309.12314): `teacher` is the folder of a published dual encoder."""

    teacher: str
    weight: PositiveFloat = 1.0


class Writing(Config):
    """Write the captions as well, through projector and language model (CoCa, arXiv:2205.01917, equation 3).

    The language model stays as it is; the projector learns.
    """

    weight: PositiveFloat = 1.0
    pictures: PositiveInt = 16
    """Of a batch: a caption costs more than a vector."""


class Clips(Config):
    """Examples are clips, as files or as lists of frames; a transformer layer puts the frames in their order."""

    frames: PositiveInt = 8
    """Spread evenly over the clip."""
    order: NonNegativeFloat = 0.0
    """Weight of preferring a clip to its own frames in another order."""


class ContrastiveObjective(Objective):
    """Match pictures, or clips, with their captions in the shared space."""

    kind: Literal["contrastive"]
    dataset: str
    loss: Literal["clip", "siglip"] = "clip"
    chunk: PositiveInt | None = None
    """Texts whose logits are held at a time; `None` makes the whole matrix."""
    captions: PositiveInt = 5
    """Captions of a picture in one batch, at most; all of them are its own."""
    text: Literal["encoder", "language"] | None = None
    """Whose states the text head reads, where it is not what the model card says."""
    space: AlignmentConfig | None = None
    """Two heads to begin with, on a model that has no shared space yet: a published one's."""
    locked: Literal["both", "image", "none"] = "both"
    """Towers that stay as they are: with `image` the text encoder learns and the vision tower does not (LiT,
    arXiv:2111.07991). The states of a locked tower are computed once."""
    widths: tuple[PositiveInt, ...] = ()
    """Learn vectors whose first numbers are vectors too (Matryoshka, arXiv:2205.13147), of these widths."""
    hard: HardNegatives = HardNegatives()
    distill: Distillation | None = None
    write: Writing | None = None
    clips: Clips | None = None
    cached: PositiveInt | None = None
    """Pictures, or texts, encoded at a time, for batches that do not fit (GradCache, arXiv:2101.06983); the gradients
    are the whole batch's."""

    @model_validator(mode="after")
    def _fits(self) -> ContrastiveObjective:
        if self.locked != "both" and self.text == "language":
            raise ValueError("the language model also writes captions and stays as it is; expected text: encoder")
        return self

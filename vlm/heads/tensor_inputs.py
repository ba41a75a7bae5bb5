"""Logits and generation from tensors that a caller built: ids, pixels and grids, checked before they reach the model.

B sequences, T tokens, V vocabulary.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from vlm.engine.greedy import greedy
from vlm.errors import BadInput
from vlm.heads.writer import Writer


class TensorInputs(NamedTuple):
    tokens_BT: Tensor
    pixels: Tensor | None
    grids: Tensor | None
    real_BT: Tensor


@torch.inference_mode()
def logits(writer: Writer, input_ids: Any, pixels: Any, grids: Any, mask: Any) -> Tensor:
    """float32 `[B, T, V]`. Raises `BadInput` where ids, pixels and grids do not fit together."""
    return writer.model(*check_inputs(writer, input_ids, pixels, grids, mask)).float()


@torch.inference_mode()
def generate(writer: Writer, input_ids: Any, pixels: Any, grids: Any, mask: Any, max_tokens: int) -> list[list[int]]:
    """The most likely tokens after each row of a batch that is padded on the left."""
    tokens_BT, pixels, grids, real_BT = check_inputs(writer, input_ids, pixels, grids, mask)
    model = writer.model
    x_BTD = model.embed(tokens_BT, model.visual(pixels, grids))
    prompts = [row_TD[real_T] for row_TD, real_T in zip(x_BTD, real_BT, strict=True)]
    return greedy(model.language, prompts, stop=writer.processor.stop_tokens, max_tokens=max_tokens)


def check_inputs(writer: Writer, input_ids: Any, pixels: Any, grids: Any, mask: Any) -> TensorInputs:
    model = writer.model
    tokens_BT = torch.as_tensor(input_ids, device=model.device).long()
    if tokens_BT.ndim != 2 or tokens_BT.numel() == 0:
        raise BadInput(f"input_ids: expected [B, T], got {list(tokens_BT.shape)}")
    vocabulary, words = model.language.cfg.vocab_size, tokens_BT[~model.slots(tokens_BT)]
    if words.numel() and (words.min() < 0 or words.max() >= vocabulary):
        low, high = words.min().item(), words.max().item()
        raise BadInput(f"input_ids: expected ids of 0 to {vocabulary - 1}, got {low} to {high}")
    if (pixels is None) != (grids is None):
        raise BadInput("pixels and grids: expected both or neither")
    if grids is not None:
        pixels, grids = torch.as_tensor(pixels), torch.as_tensor(grids).long()
        own_shape = model.tower is not None and model.tower.cfg.budget is not None
        if pixels.ndim < (3 if own_shape else 4):
            raise BadInput(f"pixels: expected [tiles, 3, H, W], got {list(pixels.shape)}")
        if grids.shape[-1:] != (2,):
            raise BadInput(f"grids: expected [pictures, 2], got {list(grids.shape)}")
        # A batch's axis before them does no harm.
        pixels, grids = pixels if own_shape else pixels.flatten(0, -4), grids.reshape(-1, 2)
    if mask is None:  # where a sequence begins with padding
        real_BT = (tokens_BT != writer.processor.pad_token).cumsum(1) > 0
    else:
        real_BT = torch.as_tensor(mask, device=model.device).bool()
    if real_BT.shape != tokens_BT.shape:
        raise BadInput(f"mask: expected {list(tokens_BT.shape)}, got {list(real_BT.shape)}")
    return TensorInputs(tokens_BT, pixels, grids, real_BT)

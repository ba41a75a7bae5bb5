"""Which routed experts pictures and words call while a model captions.

T tokens, L mixture layers, k chosen experts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from vlm.heads.writer import Writer, caption_prompts
from vlm.language.mixture.statistics import RoutingStatistics, recorded, routing_statistics
from vlm.media.open import Media


@torch.inference_mode()
def expert_use(writer: Writer, media: Sequence[Media], captions: Sequence[str]) -> list[RoutingStatistics]:
    """Of each picture or clip with its caption, read as one sequence; kinds of tokens are `image` and `text`."""
    model, routers = writer.model, writer.model.language.routers()
    found = []
    for prompt, caption in zip(writer.prompts(media, caption_prompts(media)), captions, strict=True):
        tokens_BT = torch.tensor([prompt.ids + writer.processor.reply(caption)], device=model.device)
        (item,), (layout,) = prompt.media, prompt.layouts
        x_BTD = model.embed(tokens_BT, writer.visual(item, layout))
        with recorded(routers) as seen:
            model.language.hidden(x_BTD)
        image_T = model.slots(tokens_BT)[0].cpu()
        chosen_LTk = torch.stack([torch.cat(calls) for calls in seen]).cpu()
        kinds = {"image": image_T, "text": ~image_T}
        found.append(routing_statistics(chosen_LTk, routers[0].cfg.experts, kinds))
    return found

"""Which routed experts pictures and words call while a model captions.

T tokens, L mixture layers, k chosen experts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from vlm.conversation.packing import IMAGE_SLOT
from vlm.conversation.template import CAPTION_PROMPT, CLIP_PROMPT, Template
from vlm.errors import BadInput
from vlm.heads.vqa import tower_patches
from vlm.language.mixture.statistics import RoutingStatistics, recorded, routing_statistics
from vlm.media.open import Media
from vlm.models.assemble import Assembled


@torch.inference_mode()
def expert_use(parts: Assembled, media: Sequence[Media], captions: Sequence[str]) -> list[RoutingStatistics]:
    """Of each picture or clip with its caption, read as one sequence; kinds of tokens are `image` and `text`.

    Raises `BadInput` where the model has no mixture layers.
    """
    language, template = parts.model.language, Template(parts.tokenizer)
    if not (routers := language.routers()):
        raise BadInput(f"model {parts.card.name}: no mixture layers, so no experts")
    found = []
    for item, caption, patches in zip(media, captions, tower_patches(parts.model, media), strict=True):
        prompt = template.prefix(*parts.model.cfg.lines(len(item.frames)))
        prompt += template.context(CLIP_PROMPT if item.is_clip else CAPTION_PROMPT) + template.reply(caption)
        tokens_BT = torch.tensor([prompt])
        with recorded(routers) as seen:
            parts.model(tokens_BT, patches.to(language.embedding.weight.dtype), [len(item.frames)])
        image_T = tokens_BT[0] == IMAGE_SLOT
        chosen_LTk = torch.stack([torch.cat(calls) for calls in seen])
        kinds = {"image": image_T, "text": ~image_T}
        found.append(routing_statistics(chosen_LTk, routers[0].cfg.experts, kinds))
    return found

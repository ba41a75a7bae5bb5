"""How likely replies are: the log-probability of every token of a reply behind its pictures and its question.

B sequences, T tokens, R reply tokens, I pictures, N patches, D tower width, W language width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from vlm.conversation.packing import IGNORE, Packed, pack
from vlm.models.vision_language import VisionLanguageModel


def log_likelihoods(
    model: VisionLanguageModel, sequences: Sequence[Packed], patches_IND: Tensor | None
) -> list[Tensor]:
    """For each sequence the log-probabilities `[R]` of its reply tokens, the end of the reply among them.

    `patches_IND` are the pictures of all sequences in reading order. Only the replies' rows of the logits are made.
    """
    batch = pack(list(sequences), multiple=16)
    weight = model.language.lm_head.weight
    x_BTW = model.embed(batch.tokens_BT, None if patches_IND is None else patches_IND.to(weight.dtype))
    hidden_BTW = model.language.hidden(x_BTW, positions_BT=batch.positions_BT, mask_BTS=batch.mask_BTT)
    said_BT = batch.labels_BT != IGNORE
    logits_RV = model.language.logits(hidden_BTW[said_BT]).float()
    chances_R = logits_RV.log_softmax(dim=-1).gather(1, batch.labels_BT[said_BT][:, None])[:, 0]
    return list(chances_R.split(said_BT.sum(dim=1).tolist()))

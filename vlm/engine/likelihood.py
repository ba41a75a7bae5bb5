"""How likely replies are: the log-probability of every token of a reply behind its pictures and its question.

B sequences, T tokens, R reply tokens, D language width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from vlm.conversation.packing import IGNORE, Packed, pack
from vlm.models.vision_language import VisionLanguageModel


def log_likelihoods(model: VisionLanguageModel, sequences: Sequence[Packed], seen: Sequence[Tensor]) -> list[Tensor]:
    """For each sequence the log-probabilities `[R]` of its reply tokens, the end of the reply among them.

    `seen` are the visual tokens of all sequences' pictures in reading order. Only the replies' rows of the logits are
    made.
    """
    batch = pack(list(sequences), multiple=16).to(model.device)
    x_BTD = model.embed(batch.tokens_BT, seen)
    hidden_BTD = model.language.hidden(x_BTD, positions_BT=batch.positions_BT, mask_BTS=batch.mask_BTT)
    said_BT = batch.labels_BT != IGNORE
    logits_RV = model.language.logits(hidden_BTD[said_BT]).float()
    chances_R = logits_RV.log_softmax(dim=-1).gather(1, batch.labels_BT[said_BT][:, None])[:, 0]
    return list(chances_R.split(said_BT.sum(dim=1).tolist()))

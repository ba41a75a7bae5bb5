"""How far what a model says is from what its teacher says, in pieces, so that not all logits are there at once.

R tokens that are learned, D width of the student's states, E of the teacher's, V vocabulary, r tokens of a piece.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from vlm.training.losses import PIECE

Kind = Literal["forward", "reverse", "skewed", "skewed_reverse"]


def divergence(
    student_RV: Tensor, teacher_RV: Tensor, kind: Kind, skew: float = 0.1, temperature: float = 1.0
) -> Tensor:
    """The sum over tokens, of logits, in float32.

    With p the teacher's chances and q the student's: `forward` is KL(p, q), `reverse` KL(q, p) (arXiv:2306.08543),
    `skewed` KL(p, skew * p + (1 - skew) * q), `skewed_reverse` KL(q, (1 - skew) * p + skew * q) (arXiv:2402.03898,
    equations 5 and 6). Times the temperature's square (arXiv:1503.02531, section 2).
    """
    student = (student_RV.float() / temperature).log_softmax(-1)
    teacher = (teacher_RV.float() / temperature).log_softmax(-1)
    if kind == "forward":
        first, second = teacher, student
    elif kind == "reverse":
        first, second = student, teacher
    elif kind == "skewed":
        first, second = teacher, _mixed(teacher, student, skew)
    else:
        first, second = student, _mixed(student, teacher, skew)
    return F.kl_div(second, first, reduction="sum", log_target=True) * temperature**2


def head_divergence(
    student_RD: Tensor,
    head_VD: Tensor,
    bias_V: Tensor | None,
    teacher_RE: Tensor,
    teacher_head_VE: Tensor,
    teacher_bias_V: Tensor | None,
    *,
    kind: Kind,
    skew: float,
    temperature: float,
    piece: int = PIECE,
) -> Tensor:
    """The divergence of the student's logits, `student_RD @ head_VD.T + bias_V`, from the teacher's; both are made a
    piece at a time, and again for the gradients. Of heads that have more rows than there are tokens the rest is cut."""
    words = min(len(head_VD), len(teacher_head_VE))

    def part(student_rD: Tensor, head_VD: Tensor, teacher_rE: Tensor) -> Tensor:
        student_rV = F.linear(student_rD, head_VD[:words], None if bias_V is None else bias_V[:words])
        own_bias_V = None if teacher_bias_V is None else teacher_bias_V[:words]
        with torch.no_grad():
            teacher_rV = F.linear(teacher_rE, teacher_head_VE[:words], own_bias_V)
        return divergence(student_rV, teacher_rV, kind, skew, temperature)

    pieces = zip(student_RD.split(piece), teacher_RE.split(piece), strict=True)
    parts = [checkpoint(part, own_rD, head_VD, teacher_rE, use_reentrant=False) for own_rD, teacher_rE in pieces]
    return torch.stack(parts).sum() if parts else student_RD.new_zeros((), dtype=torch.float32)


def _mixed(one_RV: Tensor, other_RV: Tensor, share: float) -> Tensor:
    """log(share * exp(one) + (1 - share) * exp(other))."""
    weights = torch.tensor([share, 1 - share], device=one_RV.device).log()
    return torch.logaddexp(one_RV + weights[0], other_RV + weights[1])

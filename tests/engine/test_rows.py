"""Weights are laid out for decoding steps without becoming others."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch
from torch import nn

from vlm.api import load
from vlm.engine import rows
from vlm.engine.rows import arranged, inputs_outermost


def test_inputs_outermost_copies_once() -> None:
    weight_END = torch.randn(3, 5, 7)
    laid = inputs_outermost(weight_END)
    assert torch.equal(laid, weight_END)
    assert laid.stride() == (35, 1, 5)
    assert inputs_outermost(laid).data_ptr() == laid.data_ptr()


@pytest.mark.parametrize("columns", [False, True])
def test_the_weights_are_the_same_in_any_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: bool) -> None:
    model = load(str(tiny.write_card(tmp_path)))
    language, before = model.model.language, model.weights_hash()

    def agreeing(_: object, lay: object, sizes: tuple[int, ...], *rest: object, head: bool) -> tuple[int, ...]:
        return sizes if (lay is inputs_outermost) is columns else sizes[:3]

    monkeypatch.setattr(rows, "_agreeing", agreeing)
    tied = language.lm_head.weight is language.embedding.weight
    for _ in range(2):
        assert arranged(language) == (rows.SIZES, rows.CHUNKS)
    assert model.weights_hash() == before
    assert (language.lm_head.weight is language.embedding.weight) is tied
    linear = next(module for module in language.layers.modules() if isinstance(module, nn.Linear))
    assert linear.weight.is_contiguous() is not columns
    model.save(tmp_path / "saved")
    assert load(str(tmp_path / "saved")).weights_hash() == before

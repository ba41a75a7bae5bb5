from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
import torch
from torch import Tensor

from vlm.errors import BadInput
from vlm.language.config.mixture import MoEConfig
from vlm.language.decoder import LanguageModel
from vlm.language.mixture.moe import MixtureOfExperts
from vlm.language.upcycle import STARTS, upcycle, upcycle_by_copy, upcycle_by_split
from vlm.models.assemble import load_language

WIDTH = tiny.LANGUAGE.ffn_width  # 48


def copies(**options: object) -> MoEConfig:
    return MoEConfig.model_validate(
        {"experts": 4, "top_k": 2, "width": WIDTH, "shared_width": 0, "first_dense": 1, "every": 2} | options
    )


def slices(**options: object) -> MoEConfig:
    return copies(**({"experts": 6, "top_k": 6, "width": 8} | options))


@pytest.fixture(scope="module")
def tokens() -> Tensor:
    return torch.randint(tiny.LANGUAGE.vocab_size, (2, 12), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def dense() -> LanguageModel:
    return tiny.language(moe=None)


def mixtures(model: LanguageModel) -> Iterator[tuple[int, MixtureOfExperts]]:
    return ((n, layer.ffn) for n, layer in enumerate(model.layers) if isinstance(layer.ffn, MixtureOfExperts))


@torch.no_grad()
@pytest.mark.parametrize("scoring", ["sigmoid", "softmax"])
@pytest.mark.parametrize("top_k", [1, 2, 4])
def test_copies_keep_the_function_where_gates_sum_to_one(
    dense: LanguageModel, tokens: Tensor, scoring: str, top_k: int
) -> None:
    model = upcycle_by_copy(dense, copies(scoring=scoring, top_k=top_k)).eval()
    assert len(model.routers()) == 2
    torch.testing.assert_close(model(tokens), dense(tokens), rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("options", [{"normalise": False}, {"scale": 2.5}, {"normalise": False, "scoring": "softmax"}])
def test_copies_give_the_dense_output_times_the_sum_of_gates(
    dense: LanguageModel, tokens: Tensor, options: dict[str, object]
) -> None:
    model = upcycle_by_copy(dense, copies(**options)).eval()
    x = torch.randn(1, 9, 32)
    for number, ffn in mixtures(model):
        gates, _ = ffn.router(x[0])
        expected = dense.layers[number].ffn(x) * gates.sum(1)[None, :, None]
        torch.testing.assert_close(ffn(x), expected, rtol=1e-4, atol=1e-5)
    assert (model(tokens) - dense(tokens)).abs().max() > 1e-2


def test_copies_are_their_own_and_learn_apart(dense: LanguageModel, tokens: Tensor) -> None:
    model = upcycle_by_copy(dense, copies(top_k=1))
    before = dense.layers[1].ffn.up_proj.weight.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(tokens).square().mean().backward()
    optimizer.step()
    up = model.layers[1].ffn.routed.up_EFD
    assert (up[0] - up[1]).abs().max() > 0
    assert torch.equal(dense.layers[1].ffn.up_proj.weight, before)


@torch.no_grad()
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scoring": "softmax"},
        {"scale": 6.0},
        {"normalise": False},
        {"normalise": False, "scoring": "softmax", "scale": 3.0},
        {"experts": 4, "top_k": 4, "width": 10, "shared_width": 8},
    ],
)
def test_all_slices_together_are_the_dense_model(
    dense: LanguageModel, tokens: Tensor, options: dict[str, object]
) -> None:
    """Exactly with a router that prefers none; nearly with the default one."""
    expected = dense(tokens)
    exact = upcycle_by_split(dense, slices(**options), spread=0).eval()
    torch.testing.assert_close(exact(tokens), expected, rtol=1e-4, atol=1e-5)
    near = upcycle_by_split(dense, slices(**options)).eval()
    assert (near(tokens) - expected).norm() / expected.norm() < 0.01


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"normalise": False}, {"experts": 4, "width": 10, "shared_width": 8}])
def test_few_slices_are_the_dense_output_in_the_mean_over_choices(
    dense: LanguageModel, options: dict[str, object]
) -> None:
    moe = slices(**(options | {"top_k": 2}))
    model = upcycle_by_split(dense, moe, spread=0).eval()
    x = torch.randn(1, 7, 32)
    for number, ffn in mixtures(model):
        outs = []
        for chosen in torch.combinations(torch.arange(moe.experts), 2):
            ffn.router.bias_E.zero_()
            ffn.router.bias_E[chosen] = 1.0  # the router chooses these two, with even gates
            outs.append(ffn(x))
        expected = dense.layers[number].ffn(x)
        torch.testing.assert_close(torch.stack(outs).mean(0), expected, rtol=1e-4, atol=1e-5)
        assert (outs[0] - expected).abs().max() > 1e-2


@torch.no_grad()
def test_more_slices_come_closer(dense: LanguageModel) -> None:
    x, errors = torch.randn(4, 64, 32), []
    expected = dense.layers[1].ffn(x)
    for top_k in (1, 2, 4, 6):
        torch.manual_seed(0)
        out = upcycle_by_split(dense, slices(top_k=top_k)).eval().layers[1].ffn(x)
        errors.append(((out - expected).norm() / expected.norm()).item())
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.02


@torch.no_grad()
def test_the_default_router_sends_tokens_to_different_slices(dense: LanguageModel) -> None:
    model = upcycle_by_split(dense, slices(top_k=2))
    _, chosen = model.layers[1].ffn.router(torch.randn(400, 32))
    assert torch.bincount(chosen.flatten(), minlength=6).min() > 400 * 2 / 6 / 3


@pytest.mark.parametrize("way", [upcycle_by_copy, upcycle_by_split])
def test_the_rest_is_shared_and_nothing_stays_empty(dense: LanguageModel, way: object) -> None:
    dense = dense.to(torch.bfloat16)
    moe = copies() if way is upcycle_by_copy else slices(experts=4, top_k=2, width=10, shared_width=8)
    model = way(dense, moe)  # type: ignore[operator]
    assert model.embedding.weight is dense.embedding.weight
    assert model.lm_head.weight is model.embedding.weight
    assert model.layers[0].ffn.up_proj.weight is dense.layers[0].ffn.up_proj.weight
    assert model.layers[1].attention.q_proj.weight is dense.layers[1].attention.q_proj.weight
    assert all(p.dtype == torch.bfloat16 and not p.is_meta and p.requires_grad for p in model.parameters())
    assert model.layers[1].ffn.router.bias_E.dtype == torch.float32
    with pytest.raises(ValueError, match="already is a mixture"):
        way(model, moe)  # type: ignore[operator]


def test_widths_that_do_not_fit_are_refused(dense: LanguageModel) -> None:
    with pytest.raises(ValueError, match=r"copying needs shared_width 0 and width 48, got None and 48"):
        upcycle_by_copy(dense, copies(shared_width=None))
    with pytest.raises(ValueError, match=r"copying needs shared_width 0 and width 48, got 0 and 8"):
        upcycle_by_copy(dense, slices())
    with pytest.raises(ValueError, match=r"shared_width \+ experts \* width = 48, got 8 \+ 6 \* 8"):
        upcycle_by_split(dense, slices(shared_width=8))
    with pytest.raises(ValueError, match=r"shared_width 8: adding experts needs the dense width 48"):
        upcycle(dense, slices(shared_width=8))
    with pytest.raises(ValueError, match="an untrained gate"):
        upcycle(dense, slices(shared_width=None, shared_gate=True))
    biased = LanguageModel(tiny.LANGUAGE.model_copy(update={"moe": None, "ffn_bias": True}))
    for way, moe in ((upcycle_by_copy, copies()), (upcycle_by_split, slices())):
        with pytest.raises(ValueError, match="biases"):
            way(biased, moe)


@torch.no_grad()
@pytest.mark.parametrize(
    ("moe", "near"),
    [
        (copies(shared_width=None, width=8), 1e-6),
        (copies(start="copy"), 1e-5),
        (slices(start="split"), 0.01),  # the router's spread tells tokens apart: see `upcycle_by_split`
    ],
    ids=list(STARTS),
)
def test_a_card_s_start_keeps_the_dense_function(tmp_path: Path, tokens: Tensor, moe: MoEConfig, near: float) -> None:
    tiny.write_card(tmp_path)
    dense = load_language(tiny.LANGUAGE.model_copy(update={"moe": None}), tmp_path / "language").eval()
    model, again = (
        load_language(tiny.LANGUAGE.model_copy(update={"moe": moe}), tmp_path / "language").eval() for _ in range(2)
    )
    assert len(model.routers()) == 2
    assert (model(tokens) - dense(tokens)).norm() / dense(tokens).norm() < near
    same = zip(model.state_dict().values(), again.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in same), "a card gives the same untrained model everywhere"


def test_a_start_that_does_not_fit_is_one_line(tmp_path: Path) -> None:
    tiny.write_card(tmp_path)
    wrong = tiny.LANGUAGE.model_copy(update={"moe": copies(start="copy", width=8)})
    with pytest.raises(BadInput, match=r"^language\.moe, start copy: copying needs shared_width 0 and width 48, got"):
        load_language(wrong, tmp_path / "language")


def test_the_usual_start_is_not_part_of_a_space_s_name() -> None:
    assert "start" not in copies().model_dump_json()
    assert "start" not in tiny.LANGUAGE.model_dump_json()
    copied = copies(start="copy")
    assert MoEConfig.model_validate_json(copied.model_dump_json()) == copied


@torch.no_grad()
def test_adding_experts_keeps_biases(tokens: Tensor) -> None:
    torch.manual_seed(0)
    biased = LanguageModel(tiny.LANGUAGE.model_copy(update={"moe": None, "ffn_bias": True})).eval()
    torch.testing.assert_close(upcycle(biased, tiny.MOE).eval()(tokens), biased(tokens), rtol=0, atol=1e-5)

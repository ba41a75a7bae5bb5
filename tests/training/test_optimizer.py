from __future__ import annotations

import pytest
import torch
from torch import nn

from vlm.training.optimizer import MasterAdamW
from vlm.training.recipe import OptimizerConfig

CFG = OptimizerConfig(lr=0.02, weight_decay=0.1, warmup=3, clip=0.5, lr_of={"head.": 0.1, "head.inner.": 0.003})
NAMES = {"body.weight": (4, 3), "body.bias": (4,), "head.weight": (2, 4), "head.inner.weight": (3, 3)}


def parameters(dtype: torch.dtype = torch.float32) -> dict[str, nn.Parameter]:
    torch.manual_seed(0)
    return {name: nn.Parameter(torch.randn(shape).to(dtype)) for name, shape in NAMES.items()}


def gradients(step: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    return {name: torch.randn(shape, generator=generator) for name, shape in NAMES.items()}


def run(optimizer: MasterAdamW, steps: range) -> list[float]:
    norms = []
    for step in steps:
        for name, gradient in gradients(step).items():
            parameter = optimizer.parameters[name]
            parameter.grad = gradient.to(parameter.dtype)
        norms.append(optimizer.step(step))
    return norms


def test_float32_steps_are_torchs_own() -> None:
    mine, theirs = MasterAdamW(CFG, parameters(), steps=10), parameters()
    rates = {"body.weight": 0.02, "body.bias": 0.02, "head.weight": 0.1, "head.inner.weight": 0.003}
    adam = torch.optim.AdamW(
        [{"params": [p], "lr": rates[name], "weight_decay": 0.1 if p.ndim > 1 else 0.0} for name, p in theirs.items()],
        betas=CFG.betas,
        fused=False,
        foreach=False,
    )
    norms = run(mine, range(10))
    for step in range(10):
        for name, gradient in gradients(step).items():
            theirs[name].grad = gradient
        for group, name in zip(adam.param_groups, NAMES, strict=True):
            group["lr"] = rates[name] * mine.rate(step)
        norm = nn.utils.clip_grad_norm_(list(theirs.values()), 0.5)
        assert norms[step] == pytest.approx(float(norm), rel=1e-5)
        adam.step()
    for name, parameter in theirs.items():
        torch.testing.assert_close(mine.parameters[name], parameter, rtol=1e-5, atol=1e-6)


def test_the_rate_warms_up_and_falls_to_nothing() -> None:
    optimizer = MasterAdamW(CFG, parameters(), steps=103)
    rates = [optimizer.rate(step) for step in range(103)]
    assert rates[:4] == pytest.approx([1 / 3, 2 / 3, 1.0, 1.0])
    assert rates[53] == pytest.approx(0.5)
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert 0 < rates[-1] < 1e-3
    assert MasterAdamW(CFG.model_copy(update={"warmup": 0}), parameters(), 5).rate(0) == 1.0


def test_bfloat16_parameters_follow_their_float32_master() -> None:
    slow = CFG.model_copy(update={"lr": 1e-4, "lr_of": {}, "weight_decay": 0.0, "warmup": 0})
    optimizer = MasterAdamW(slow, parameters(torch.bfloat16), steps=1000)
    start = {name: copy.clone() for name, copy in optimizer.master.items()}
    for step in range(50):
        for parameter in optimizer.parameters.values():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step(step)
    for name, parameter in optimizer.parameters.items():
        assert parameter.dtype == torch.bfloat16
        assert torch.equal(parameter, optimizer.master[name].bfloat16())
        # Each step is far below a bfloat16's; together they count.
        torch.testing.assert_close(
            start[name] - optimizer.master[name], torch.full(NAMES[name], 5e-3), rtol=0.05, atol=0
        )


def test_state_round_trip_is_exact() -> None:
    whole = MasterAdamW(CFG, parameters(torch.bfloat16), steps=10)
    run(whole, range(4))
    state = {name: tensor.clone() for name, tensor in whole.state().items()}
    resumed = MasterAdamW(CFG, {n: nn.Parameter(torch.zeros_like(p)) for n, p in whole.parameters.items()}, steps=10)
    resumed.load_state(state)
    run(whole, range(4, 10))
    run(resumed, range(4, 10))
    for name, tensor in whole.state().items():
        assert torch.equal(resumed.state()[name], tensor), name
    for name, parameter in whole.parameters.items():
        assert torch.equal(resumed.parameters[name], parameter)


def test_a_parameter_without_a_gradient_is_left_alone_but_for_decay() -> None:
    optimizer = MasterAdamW(CFG.model_copy(update={"weight_decay": 0.0}), parameters(), steps=10)
    before = optimizer.parameters["head.weight"].detach().clone()
    optimizer.parameters["body.weight"].grad = torch.ones(4, 3)
    optimizer.step(5)
    assert torch.equal(optimizer.parameters["head.weight"], before)
    assert optimizer.parameters["body.weight"].grad is None


def test_another_set_of_parameters_is_refused() -> None:
    optimizer = MasterAdamW(CFG, parameters(), steps=10)
    run(optimizer, range(1))
    fewer = {name: p for name, p in parameters().items() if name != "body.bias"}
    with pytest.raises(ValueError, match=r"train different parameters, such as \['body\.bias'\]"):
        MasterAdamW(CFG, fewer, steps=10).load_state(optimizer.state())

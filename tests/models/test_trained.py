from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from vlm.errors import BadInput
from vlm.models.trained import apply_trained, combine, compress, read_trained


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(6, 4), nn.Linear(4, 3)
        self.experts = nn.Parameter(torch.randn(2, 5, 6))
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.register_buffer("bias_E", torch.zeros(2))


def pair(name: str, seed: int, rank: int = 2, shape: tuple[int, int] = (4, 6)) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        f"{name}.lora_A": torch.randn(rank, shape[1], generator=generator),
        f"{name}.lora_B": torch.randn(shape[0], rank, generator=generator),
    }


def product(state: dict[str, Tensor], name: str) -> Tensor:
    return state[f"{name}.lora_B"] @ state[f"{name}.lora_A"]


def test_compressed_weights_come_back_within_half_a_step(tmp_path: Path) -> None:
    torch.manual_seed(1)
    state = {
        "a.weight": torch.randn(4, 6) * torch.tensor([[100.0], [1.0], [1e-3], [0.0]]),
        "experts": torch.randn(2, 5, 6),
        "a.bias": torch.randn(4),
        "scale": torch.tensor(2.7182817),
        "bias_E": torch.tensor([0.001, -0.0013]),
    }
    small = compress(state)
    assert small["a.weight"].dtype == small["experts"].dtype == torch.int8
    assert small["a.weight.scale"].shape == (4, 1)
    assert small["experts.scale"].shape == (2, 5, 1)
    assert small["a.bias"].dtype == torch.bfloat16
    save_file(small, tmp_path / "a.safetensors")
    back = read_trained(tmp_path / "a.safetensors")
    assert back.keys() == state.keys()
    for name in ("a.weight", "experts"):
        step = state[name].abs().amax(dim=-1, keepdim=True) / 127
        assert bool(((back[name] - state[name]).abs() <= step * 0.501 + 1e-12).all()), name
        # The largest of a row is exact, so a row keeps its size.
        torch.testing.assert_close(back[name].abs().amax(-1), state[name].abs().amax(-1), rtol=1e-5, atol=1e-10)
    assert torch.equal(back["scale"], state["scale"])
    assert torch.equal(back["bias_E"], state["bias_E"])


@pytest.mark.parametrize("reverse", [False, True])
def test_low_rank_pairs_are_added_to_the_value_whatever_the_order(reverse: bool) -> None:
    before, model = Model(), Model()
    state = {**pair("a.weight", 1), "b.weight": torch.ones(3, 4), **pair("b.weight", 2, shape=(3, 4))}
    state["bias_E"] = torch.tensor([1.0, -1.0])
    items = list(state.items())
    apply_trained(model, dict(items[::-1] if reverse else items), "file")
    torch.testing.assert_close(model.a.weight, before.a.weight + product(state, "a.weight"))
    torch.testing.assert_close(model.b.weight, 1 + product(state, "b.weight"))
    assert model.bias_E.tolist() == [1.0, -1.0]
    assert torch.equal(model.a.bias, before.a.bias)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"c.weight": torch.ones(2)}, "trained tensor 'c.weight' has no place"),
        ({"a.bias": torch.ones(5)}, r"a\.bias: expected shape \(4,\), got \(5,\)"),
        (pair("c.weight", 0), "trained tensor 'c.weight' has no place"),
        (pair("a.weight", 0, shape=(4, 5)), r"a\.weight: expected shape \(4, 6\), got \(4, 5\)"),
        ({"a.weight.lora_A": torch.ones(2, 6)}, r"a\.weight: expected lora_A \[r, in\] and lora_B"),
        ({"a.weight.lora_B": torch.ones(4, 2)}, r"a\.weight: expected lora_A \[r, in\] and lora_B"),
        ({"a.weight.lora_A": torch.ones(2, 6), "a.weight.lora_B": torch.ones(4, 3)}, "of one rank"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_changed(state: dict[str, Tensor], words: str) -> None:
    model = Model()
    with pytest.raises(BadInput, match=words) as caught:
        apply_trained(model, {"b.weight": torch.ones(3, 4), **state}, "weights.safetensors")
    assert "weights.safetensors" in str(caught.value)
    assert torch.equal(model.b.weight, Model().b.weight)


def test_two_stages_combined_equal_one_after_the_other() -> None:
    earlier = {**pair("a.weight", 1), "b.weight": torch.ones(3, 4), "a.bias": torch.ones(4)}
    later = {**pair("a.weight", 2, rank=3), "b.weight": 2 * torch.ones(3, 4)}
    one_by_one, at_once = Model(), Model()
    apply_trained(one_by_one, earlier, "earlier")
    apply_trained(one_by_one, later, "later")
    both = combine(earlier, later)
    assert both["a.weight.lora_A"].shape == (5, 6)
    apply_trained(at_once, both, "both")
    for ours, theirs in zip(at_once.parameters(), one_by_one.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_later_whole_value_replaces_an_earlier_addition() -> None:
    earlier = pair("a.weight", 1)
    one_by_one, at_once = Model(), Model()
    apply_trained(one_by_one, earlier, "earlier")
    later = {"a.weight": one_by_one.a.weight.detach() * 2}
    apply_trained(at_once, combine(earlier, later), "both")
    assert torch.equal(at_once.a.weight, later["a.weight"])


def test_an_addition_to_an_earlier_value_stays_one() -> None:
    earlier = {"a.weight": torch.ones(4, 6)}
    later = pair("a.weight", 1)
    model = Model()
    apply_trained(model, combine(earlier, later), "both")
    torch.testing.assert_close(model.a.weight, 1 + product(later, "a.weight"))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"no tensors here")
    with pytest.raises(BadInput, match=r"a\.safetensors: not a safetensors file"):
        read_trained(path)
    save_file({"a.weight": torch.ones(2, 2, dtype=torch.int8)}, path)
    with pytest.raises(BadInput, match=r"int8 tensor 'a\.weight' comes without a\.weight\.scale"):
        read_trained(path)

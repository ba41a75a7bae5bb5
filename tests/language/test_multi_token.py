from __future__ import annotations

import pytest
import tiny
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vlm.language.attention.masks import padded
from vlm.language.decoder import LanguageModel
from vlm.language.multi_token import MultiTokenHead, MultiTokenPrediction, later, multi_token_losses

B, T, D, V, N = 2, 9, 12, 17, 3


class Block(nn.Module):
    """A causal layer whose every output depends on all inputs up to it, and on the context it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(D, D)

    def forward(self, x_BTD: Tensor, positions_T1: Tensor) -> Tensor:
        return x_BTD + torch.tanh(self.mix(x_BTD.cumsum(1) / positions_T1))


class Trunk(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.block = nn.Embedding(V, D), Block()
        self.lm_head = nn.Linear(D, V, bias=False)
        self.mtp = MultiTokenPrediction(D, [Block() for _ in range(N)])
        for head in self.mtp.heads:
            for norm in (head.embedding_norm, head.hidden_norm, head.output_norm):
                nn.init.uniform_(norm.weight, 0.5, 1.5)

    def forward(self, tokens: Tensor) -> tuple[Tensor, list[Tensor]]:
        context = torch.arange(1, tokens.shape[1] + 1)[:, None]
        hidden = self.block(self.embedding(tokens), context)
        return hidden, self.mtp(hidden, tokens, self.embedding, self.lm_head, context)


@pytest.fixture
def tokens() -> Tensor:
    return torch.randint(V, (B, T), generator=torch.Generator().manual_seed(1))


def rms(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.square().mean() + 1e-6).sqrt() * weight


@torch.no_grad()
def test_states_and_losses_equal_the_paper_on_shortened_sequences(tokens: Tensor) -> None:
    """The paper cuts the last d tokens off at depth d; ours keeps them and must not notice."""
    model = Trunk()
    hidden, logits = model(tokens)
    losses = multi_token_losses(logits, tokens)
    for b in range(B):
        state = hidden[b]
        for depth, head in enumerate(model.mtp.heads, start=1):
            rows = []
            for t in range(T - depth):
                embedded = rms(model.embedding.weight[tokens[b, t + depth]], head.embedding_norm.weight)
                rows.append(head.projection.weight @ torch.cat([embedded, rms(state[t], head.hidden_norm.weight)]))
            state = head.block(torch.stack(rows)[None], torch.arange(1, T - depth + 1)[:, None])[0]
            state = torch.stack([rms(row, head.output_norm.weight) for row in state])
            out = model.lm_head(state)
            torch.testing.assert_close(logits[depth - 1][b, : T - depth], out, rtol=1e-4, atol=1e-5)
    for depth in range(1, N + 1):
        pairs = [(b, t) for b in range(B) for t in range(T - 1 - depth)]
        expected = [-logits[depth - 1][b, t].log_softmax(0)[tokens[b, t + 1 + depth]] for b, t in pairs]
        torch.testing.assert_close(losses[depth - 1], torch.stack(expected).mean())


@torch.no_grad()
def test_depth_d_sees_d_tokens_ahead_and_no_further(tokens: Tensor) -> None:
    """What it predicts, token t + 1 + d, must not reach its logits at t."""
    model = Trunk()
    _, before = model(tokens)
    changed = tokens.clone()
    changed[:, 6] = (changed[:, 6] + 1) % V
    _, after = model(changed)
    for depth in range(1, N + 1):
        moved = (after[depth - 1] - before[depth - 1]).abs().amax(dim=(0, 2)) > 1e-6
        assert moved.tolist() == [t + depth >= 6 for t in range(T)]


def test_gradients_reach_trunk_and_the_shared_ends(tokens: Tensor) -> None:
    model = Trunk()
    multi_token_losses(model(tokens)[1], tokens).mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_embedding_and_output_layer_are_not_held_twice() -> None:
    names = set(MultiTokenPrediction(D, [Block()]).state_dict())
    assert names == {
        f"heads.0.{name}"
        for name in (
            "embedding_norm.weight", "hidden_norm.weight", "projection.weight", "output_norm.weight",
            "block.mix.weight", "block.mix.bias",
        )
    }  # fmt: skip


@torch.no_grad()
def test_only_learned_tokens_count(tokens: Tensor) -> None:
    model = Trunk()
    _, logits = model(tokens)
    learned = torch.zeros(B, T, dtype=torch.bool)
    learned[0, 5] = learned[1, 2] = learned[1, 8] = True
    losses = multi_token_losses(logits, tokens, learned)
    for depth in range(1, N + 1):
        where = [(b, t) for b, t in ((0, 5), (1, 2), (1, 8)) if t - 1 - depth >= 0]
        rows = torch.stack([logits[depth - 1][b, t - 1 - depth] for b, t in where])
        expected = F.cross_entropy(rows, torch.stack([tokens[b, t] for b, t in where]))
        torch.testing.assert_close(losses[depth - 1], expected)
    assert multi_token_losses(logits, tokens, torch.zeros_like(learned)).tolist() == [0.0] * N


@torch.no_grad()
def test_sequences_shorter_than_the_depth_have_no_loss() -> None:
    model, tokens = Trunk(), torch.tensor([[3, 5]])
    _, logits = model(tokens)
    assert multi_token_losses(logits, tokens).tolist() == [0.0] * N
    assert later(tokens, 1).tolist() == [[5, 0]]
    assert later(tokens, 5).tolist() == [[0, 0]]


def test_heads_learn_a_sequence_that_counts() -> None:
    """Token t + 2 is the second after t: a head can know it exactly."""
    torch.manual_seed(0)
    model = Trunk()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    tokens = (torch.arange(T)[None] + torch.randint(V, (32, 1))) % V
    losses = torch.zeros(N)
    for _ in range(60):
        losses = multi_token_losses(model(tokens)[1], tokens)
        optimizer.zero_grad()
        losses.mean().backward()
        optimizer.step()
    assert losses.max() < 0.2


def test_the_block_is_handed_all_context() -> None:
    class Named(nn.Module):
        def forward(self, x: Tensor, *context: object) -> Tensor:
            assert context == ("rotary", None)
            return x

    head = MultiTokenHead(D, Named())
    assert head(torch.randn(1, 4, D), torch.randn(1, 4, D), "rotary", None).shape == (1, 4, D)


@torch.no_grad()
def test_a_models_heads_work_on_padded_batches_and_in_a_window(tokens: Tensor) -> None:
    cfg = tiny.LANGUAGE.model_copy(update={"multi_token": 2, "window": 4})
    torch.manual_seed(0)
    model = LanguageModel(cfg).eval()

    def logits(tokens_BT: Tensor, mask_BTS: Tensor | None, positions_BT: Tensor | None) -> Tensor:
        hidden = model.hidden(model.embedding(tokens_BT), positions_BT=positions_BT, mask_BTS=mask_BTS)
        return torch.stack(model.multi_token_logits(hidden, tokens_BT, positions_BT=positions_BT, mask_BTS=mask_BTS))

    whole = logits(tokens, None, None)
    assert whole.shape == (2, B, T, tiny.LANGUAGE.vocab_size)
    positions, mask = padded(F.pad(torch.ones(B, T), (3, 0)), T + 3)
    behind = logits(F.pad(tokens, (3, 0)), mask, positions)[:, :, 3:]
    torch.testing.assert_close(behind, whole, rtol=1e-4, atol=1e-4)


def test_a_model_has_as_many_heads_as_its_config_says() -> None:
    """Their layers are mixtures where the model has any, whatever its last layer is."""
    plain = tiny.language()
    assert plain.multi_token is None
    assert plain.multi_token_logits(torch.zeros(1, 3, 32), torch.zeros(1, 3, dtype=torch.long)) == []
    moe = tiny.MOE.model_copy(update={"layers": (0,)})
    model = LanguageModel(tiny.LANGUAGE.model_copy(update={"multi_token": 2, "moe": moe}))
    assert [type(head.block.ffn).__name__ for head in model.multi_token.heads] == ["MixtureOfExperts"] * 2
    assert len(model.routers()) == 3

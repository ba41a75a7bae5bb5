"""Beam search against transformers' own."""

from __future__ import annotations

import pytest
import tiny
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import vlm.language
from vlm.engine.beams import beam_search
from vlm.engine.greedy import greedy
from vlm.errors import BadInput
from vlm.language.decoder import LanguageModel

STOP = 7


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[LlamaForCausalLM, LanguageModel]:
    """A peaked model: a flat one ends when it is told to, and beams hardly matter."""
    torch.manual_seed(0)
    cfg = LlamaConfig(
        vocab_size=24, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, initializer_range=0.5, eos_token_id=STOP, pad_token_id=0,
    )  # fmt: skip
    theirs = LlamaForCausalLM(cfg).eval()
    folder = tmp_path_factory.mktemp("llama")
    theirs.save_pretrained(folder)
    return theirs, vlm.language.load(folder)


@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.0, 2.0])
@pytest.mark.parametrize("beams", [1, 2, 3, 5])
def test_the_replies_are_those_of_transformers(
    both: tuple[LlamaForCausalLM, LanguageModel], beams: int, penalty: float
) -> None:
    theirs, ours = both
    stopped = differs = 0
    for seed in range(25):
        ids_1T = torch.randint(8, 24, (1, 3 + seed % 5), generator=torch.Generator().manual_seed(seed))
        settings = {"num_beams": beams, "length_penalty": penalty, "do_sample": False, "max_new_tokens": 12}
        whole = theirs.generate(ids_1T, attention_mask=torch.ones_like(ids_1T), **settings)[0].tolist()
        expected = whole[ids_1T.shape[1] :]
        expected = expected[: expected.index(STOP)] if STOP in expected else expected
        x_TD = ours.embedding(ids_1T)[0]
        found = beam_search(ours, x_TD, beams=beams, stop=(STOP,), max_tokens=12, length_penalty=penalty)
        assert found == expected, seed
        stopped += len(found) < 12
        differs += found != greedy(ours, [x_TD], stop=(STOP,), max_tokens=12)[0]
    assert stopped > 2
    assert differs > 2 or beams == 1


def test_beams_for_every_token_find_the_likeliest_reply(both: tuple[LlamaForCausalLM, LanguageModel]) -> None:
    """24 words and two places: all 576 replies."""
    _, language = both
    prompt = torch.tensor([9, 11, 20])
    pairs = torch.cartesian_prod(torch.arange(24), torch.arange(24))
    with torch.inference_mode():
        x_BTD = language.embedding(torch.cat([prompt.expand(len(pairs), 3), pairs], dim=1))
        logprobs_BTV = language.logits(language.hidden(x_BTD)).log_softmax(-1)
    scores_B = logprobs_BTV[:, 2:4].gather(2, pairs[:, :, None]).sum((1, 2))
    found = beam_search(language, language.embedding(prompt), beams=24, stop=(), max_tokens=2)
    assert found == pairs[scores_B.argmax()].tolist()


@pytest.mark.parametrize("beams", [0, 33])
def test_a_number_of_beams_that_cannot_be(beams: int) -> None:
    language = tiny.language()
    with pytest.raises(BadInput, match=f"beams: expected 1 to 32, got {beams}"):
        beam_search(language, language.embedding(torch.tensor([1])), beams=beams, stop=(), max_tokens=3)


def test_what_is_too_long() -> None:
    language = tiny.language()
    with pytest.raises(BadInput, match="reads at most"):
        beam_search(language, language.embedding(torch.tensor([1])), beams=2, stop=(), max_tokens=language.cfg.context)

from __future__ import annotations

import pytest
import tiny
import torch

from vlm.conversation.packing import IMAGE_SLOT
from vlm.engine import greedy as engine
from vlm.errors import BadInput
from vlm.models.vision_language import VisionLanguageModel

PICTURE = [IMAGE_SLOT] * 4
PROMPTS = [[1, *PICTURE, 7, 8], [2, 3, *PICTURE, 9, 10, 11, 12, 13, 14], [4, *PICTURE, 5], [6, *PICTURE, *PICTURE, 15]]
NEVER = tiny.LANGUAGE.vocab_size  # no token has this number, so nothing stops


@pytest.fixture(scope="module")
def model() -> VisionLanguageModel:
    return tiny.vision_language(seed=3)


def greedy(
    model: VisionLanguageModel, ids: list[list[int]], patches: torch.Tensor | None, *, stop: int, **settings: int
) -> list[list[int]]:
    """Replies to prompts whose pictures' patches come in reading order, four slots a picture."""
    counts = [row.count(IMAGE_SLOT) // 4 for row in ids]
    split = torch.zeros(0, 0, 0).split([0] * len(ids)) if patches is None else patches.split(counts)
    return engine.greedy(model.language, tiny.prompts(model, ids, split), stop=(stop,), **settings)


def one_by_one(model: VisionLanguageModel, stop: int, max_tokens: int) -> list[list[int]]:
    pictures = tiny.patches(5).split([1, 1, 1, 2])
    return [
        greedy(model, [prompt], rows, stop=stop, max_tokens=max_tokens)[0]
        for prompt, rows in zip(PROMPTS, pictures, strict=True)
    ]


@torch.no_grad()
def slow(model: VisionLanguageModel, prompt: list[int], pictures: torch.Tensor, count: int) -> list[int]:
    """Greedy decoding without a cache: the whole sequence again for each token."""
    ids = list(prompt)
    for _ in range(count):
        (x_TD,) = tiny.prompts(model, [ids], [pictures])
        ids.append(int(model.language.logits(model.language.hidden(x_TD[None]))[0, -1].argmax()))
    return ids[len(prompt) :]


def test_a_reply_is_the_argmax_of_the_full_forward(model: VisionLanguageModel) -> None:
    pictures = tiny.patches(5).split([1, 1, 1, 2])
    expected = [slow(model, prompt, rows, 8) for prompt, rows in zip(PROMPTS, pictures, strict=True)]
    assert one_by_one(model, NEVER, 8) == expected


def test_a_batch_gives_what_single_calls_give(model: VisionLanguageModel) -> None:
    expected = one_by_one(model, NEVER, 12)
    assert greedy(model, PROMPTS, tiny.patches(5), stop=NEVER, max_tokens=12) == expected
    assert len({tuple(reply) for reply in expected}) > 1


def test_each_reply_ends_before_its_own_stop(model: VisionLanguageModel) -> None:
    """One prompt stops early and drops out; the others go on as they would alone."""
    free = one_by_one(model, NEVER, 10)
    stop = free[1][3]
    cut = [reply[: reply.index(stop)] if stop in reply else reply for reply in free]
    assert len({len(reply) for reply in cut}) > 1
    assert one_by_one(model, stop, 10) == cut
    assert greedy(model, PROMPTS, tiny.patches(5), stop=stop, max_tokens=10) == cut


def test_a_first_token_that_stops_gives_an_empty_reply(model: VisionLanguageModel) -> None:
    first = one_by_one(model, NEVER, 1)[0][0]
    assert greedy(model, PROMPTS[:1], tiny.patches(1), stop=first, max_tokens=5) == [[]]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_max_tokens(model: VisionLanguageModel, count: int) -> None:
    replies = greedy(model, PROMPTS, tiny.patches(5), stop=NEVER, max_tokens=count)
    assert [len(reply) for reply in replies] == [count] * 4


def test_a_prompt_is_read_in_chunks_of_any_size(model: VisionLanguageModel) -> None:
    expected = one_by_one(model, NEVER, 8)
    for chunk in (1, 3, 1000):
        assert greedy(model, PROMPTS, tiny.patches(5), stop=NEVER, max_tokens=8, prefill_chunk=chunk) == expected


def test_what_does_not_fit_the_positions_is_refused(model: VisionLanguageModel) -> None:
    longest = tiny.LANGUAGE.max_positions
    assert len(greedy(model, [[1] * (longest - 3)], None, stop=NEVER, max_tokens=3)[0]) == 3
    with pytest.raises(BadInput) as caught:
        greedy(model, [[1], [1] * (longest - 3)], None, stop=NEVER, max_tokens=4)
    assert str(caught.value) == (
        "a prompt of 253 tokens and a reply of up to 4 are 257 tokens; the language model reads at most 256"
    )


def test_the_last_token_is_not_read_again(model: VisionLanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []
    monkeypatch.setattr(model.language.norm, "forward", lambda x: lengths.append(x.shape[1]) or x)
    monkeypatch.setattr(engine, "NEAR_TIE", -1.0)
    greedy(model, [[1, 2, 3]], None, stop=NEVER, max_tokens=4)
    assert lengths == [3, 1, 1, 1]


def test_nothing_asked(model: VisionLanguageModel) -> None:
    assert greedy(model, [], None, stop=NEVER, max_tokens=3) == []


def test_another_picture_gives_another_reply(model: VisionLanguageModel) -> None:
    prompts = [PROMPTS[0]] * 4
    replies = greedy(model, prompts, 3 * tiny.patches(4, seed=5), stop=NEVER, max_tokens=12)
    assert len({tuple(reply) for reply in replies}) > 1
    swapped = greedy(model, prompts, 3 * tiny.patches(4, seed=5).flip(0), stop=NEVER, max_tokens=12)
    assert swapped == replies[::-1]


def test_what_decides_alone_is_the_same_argmax(model: VisionLanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """With every step taken for a near tie, each token comes of its own sequence, unpadded and without a cache."""
    expected = one_by_one(model, NEVER, 8)
    monkeypatch.setattr(engine, "NEAR_TIE", float("inf"))
    assert greedy(model, PROMPTS, tiny.patches(5), stop=NEVER, max_tokens=8) == expected


def test_an_exact_tie_is_decided_alike_in_every_batch() -> None:
    """Two words the head cannot tell apart: noise of a batch must not choose between them."""
    model = tiny.vision_language(seed=3)
    with torch.no_grad():
        rows = model.language.lm_head.weight
        model.language.lm_head.weight = torch.nn.Parameter(torch.cat([rows[: len(rows) // 2]] * 2))
    assert greedy(model, PROMPTS, tiny.patches(5), stop=NEVER, max_tokens=8) == one_by_one(model, NEVER, 8)

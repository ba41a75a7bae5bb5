"""Contrastive objectives: against their formulas, and each fast or frugal way against the plain one."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
import torch
from open_clip.loss import ClipLoss, SigLipLoss
from torch import Tensor, nn
from torch.nn import functional as F

from vlm.alignment.cached_gradients import backward_in_chunks
from vlm.alignment.chunked import chunked_clip_loss, chunked_siglip_loss
from vlm.alignment.losses import clip_loss, distillation_loss, frame_order_loss, siglip_loss
from vlm.alignment.matryoshka import matryoshka_loss, truncated
from vlm.alignment.negatives import hardest, swapped_words
from vlm.alignment.temporal import TemporalPool, shuffled_orders
from vlm.errors import BadInput

OWNERS = {
    "one text a picture": [0, 1, 2, 3, 4, 5],
    "several": [0, 0, 1, 3, 2, 4, 5, 5, 5],
    "texts of no picture": [0, -1, 1, 2, -1, 3, 4, 5],
}


def batch(owners: list[int], images: int = 6) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    image_ID = F.normalize(torch.randn(images, 8, dtype=torch.float64), dim=-1).requires_grad_()
    text_TD = F.normalize(torch.randn(len(owners), 8, dtype=torch.float64), dim=-1).requires_grad_()
    scale = torch.tensor(7.0, dtype=torch.float64, requires_grad=True)
    bias = torch.tensor(-3.0, dtype=torch.float64, requires_grad=True)
    return image_ID, text_TD, torch.tensor(owners), scale, bias


@pytest.mark.parametrize("owners", OWNERS.values(), ids=OWNERS)
def test_clip_is_cross_entropy_both_ways(owners: list[int]) -> None:
    image_ID, text_TD, owner_T, scale, _ = batch(owners)
    logits = (scale * text_TD @ image_ID.T).tolist()
    to_image = [math.log(sum(map(math.exp, row))) - row[o] for row, o in zip(logits, owners, strict=True) if o >= 0]
    to_text = []
    for i in range(6):
        everything = math.log(sum(math.exp(row[i]) for row in logits))
        own = [row[i] for row, o in zip(logits, owners, strict=True) if o == i]
        to_text.append(everything - sum(own) / len(own))
    wanted = (sum(to_image) / len(to_image) + sum(to_text) / 6) / 2
    assert clip_loss(image_ID, text_TD, owner_T, scale).item() == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("owners", OWNERS.values(), ids=OWNERS)
def test_siglip_is_a_yes_or_no_for_every_pair(owners: list[int]) -> None:
    image_ID, text_TD, owner_T, scale, bias = batch(owners)
    logits = (scale * text_TD @ image_ID.T + bias).tolist()
    pairs = [(z if o == i else -z) for row, o in zip(logits, owners, strict=True) for i, z in enumerate(row)]
    wanted = sum(math.log1p(math.exp(-z)) for z in pairs) / len(owners)
    assert siglip_loss(image_ID, text_TD, owner_T, scale, bias).item() == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_one_text_a_picture_is_open_clips_loss(kind: str) -> None:
    mine, theirs = batch(OWNERS["one text a picture"]), batch(OWNERS["one text a picture"])
    value = clip_loss(*mine[:4]) if kind == "clip" else siglip_loss(*mine)
    reference = ClipLoss() if kind == "clip" else SigLipLoss()
    inputs = theirs[:2] + theirs[3:] if kind == "siglip" else (*theirs[:2], theirs[3])
    wanted = reference(*inputs)
    value.backward()
    wanted.backward()
    torch.testing.assert_close(value, wanted, atol=1e-12, rtol=1e-12)
    for a, b in zip(mine, theirs, strict=True):
        if b.grad is not None:
            torch.testing.assert_close(a.grad, b.grad, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("chunk", [1, 4, 100])
@pytest.mark.parametrize("owners", OWNERS.values(), ids=OWNERS)
def test_chunked_losses_equal_the_plain_ones_in_value_and_gradient(owners: list[int], chunk: int) -> None:
    pairs: list[tuple[Callable[..., Tensor], Callable[..., Tensor], int]] = [
        (clip_loss, chunked_clip_loss, 4),
        (siglip_loss, chunked_siglip_loss, 5),
    ]
    for plain, chunked, inputs in pairs:
        mine, theirs = batch(owners)[:inputs], batch(owners)[:inputs]
        value, wanted = chunked(*mine, chunk=chunk), plain(*theirs)
        (3 * value).backward()
        (3 * wanted).backward()
        assert value.item() == pytest.approx(wanted.item(), abs=1e-12)
        for a, b in zip(mine, theirs, strict=True):
            if b.requires_grad:
                torch.testing.assert_close(a.grad, b.grad, atol=1e-12, rtol=1e-9)


def test_a_chunked_loss_of_vectors_that_are_far_apart_stays_finite() -> None:
    image = torch.eye(4)
    value = chunked_clip_loss(image, -image, torch.arange(4), torch.tensor(100.0), chunk=2)
    assert value.item() == pytest.approx(clip_loss(image, -image, torch.arange(4), torch.tensor(100.0)).item())


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradients_in_chunks_equal_those_of_the_whole_batch(dropout: float) -> None:
    torch.manual_seed(0)
    tower = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Dropout(dropout), nn.Linear(7, 4)).double()
    text = nn.Linear(3, 4).double()
    scale = nn.Parameter(torch.tensor(5.0, dtype=torch.float64))
    pixels, words, owners = torch.randn(6, 5).double(), torch.randn(6, 3).double(), torch.arange(6)
    parameters = [*tower.parameters(), *text.parameters(), scale]

    def loss(image: Tensor, texts: Tensor) -> Tensor:
        return clip_loss(F.normalize(image, dim=-1), F.normalize(texts, dim=-1), owners, scale)

    def gradients() -> list[Tensor]:
        found = [p.grad.clone() for p in parameters if p.grad is not None]
        for p in parameters:
            p.grad = None
        return found

    chunks = pixels.split(2), words.split(3)
    torch.manual_seed(1)
    # What dropout draws depends on the shape it is asked for, so the whole batch is made of the same chunks.
    whole = loss(torch.cat([tower(c) for c in chunks[0]]), torch.cat([text(c) for c in chunks[1]]))
    whole.backward()
    wanted = gradients()
    torch.manual_seed(1)
    value = backward_in_chunks([(tower, chunks[0]), (text, chunks[1])], loss)
    assert value.item() == pytest.approx(whole.item(), abs=1e-12)
    for a, b in zip(gradients(), wanted, strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-9)


def test_a_locked_side_learns_nothing_and_the_other_does() -> None:
    torch.manual_seed(0)
    tower, text = nn.Linear(3, 4).requires_grad_(False), nn.Linear(3, 4)
    rows = torch.randn(4, 3).split(2)
    backward_in_chunks([(tower, rows), (text, rows)], lambda i, t: clip_loss(i, t, torch.arange(4), torch.tensor(1.0)))
    assert tower.weight.grad is None
    assert text.weight.grad is not None
    assert text.weight.grad.abs().sum() > 0


def test_distillation_is_the_cross_entropy_of_two_softmaxes_both_ways() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 4, 3, dtype=torch.float64)

    def crossed(mine: list[list[float]], theirs: list[list[float]]) -> float:
        total = 0.0
        for own, other in zip(mine, theirs, strict=True):
            shares = [math.exp(x) / sum(map(math.exp, other)) for x in other]
            total -= sum(p * math.log(math.exp(x) / sum(map(math.exp, own))) for p, x in zip(shares, own, strict=True))
        return total / len(mine)

    wanted = (crossed(student.tolist(), teacher.tolist()) + crossed(student.T.tolist(), teacher.T.tolist())) / 2
    assert distillation_loss(student, teacher).item() == pytest.approx(wanted, abs=1e-12)


def test_frame_order_is_infonce_between_a_clip_and_its_shuffled_self() -> None:
    torch.manual_seed(0)
    clips, shuffled, texts = F.normalize(torch.randn(3, 5, 8, dtype=torch.float64), dim=-1)
    both = [
        (7 * float(text @ clip), 7 * float(text @ other))
        for clip, other, text in zip(clips, shuffled, texts, strict=True)
    ]
    wanted = -sum(math.log(math.exp(a) / (math.exp(a) + math.exp(b))) for a, b in both) / 5
    scale = torch.tensor(7.0, dtype=torch.float64)
    assert frame_order_loss(clips, shuffled, texts, scale).item() == pytest.approx(wanted, abs=1e-12)


def test_distillation_is_least_where_student_and_teacher_agree() -> None:
    torch.manual_seed(0)
    teacher = torch.randn(5, 4, requires_grad=True)
    student = teacher.detach().clone().requires_grad_()
    distillation_loss(student, teacher).backward()
    assert student.grad is not None
    assert student.grad.abs().max() < 1e-7
    assert teacher.grad is None
    assert distillation_loss(torch.randn(5, 4), teacher) > distillation_loss(teacher.detach(), teacher)


def test_swapped_words_keep_all_words_and_change_their_order() -> None:
    rng = random.Random(0)
    assert {swapped_words("A dog chases the cat", rng) for _ in range(50)} == {
        "A chases dog the cat",
        "A cat chases the dog",
        "A dog cat the chases",
    }
    assert swapped_words("Dogs chase cats.", random.Random(1)) in (
        "Chase dogs cats.",
        "Cats chase dogs.",
        "Dogs cats chase.",
    )
    assert swapped_words("a dog and the Dog", rng) is None
    assert swapped_words("", rng) is None


def test_hardest_are_the_nearest_wrong_pictures() -> None:
    image = F.normalize(torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]), dim=-1)
    text = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert hardest(text, image, torch.tensor([0, 2]), 2).tolist() == [[1, 2], [1, 0]]


def test_temporal_pool_begins_as_the_mean_and_can_learn_the_order() -> None:
    torch.manual_seed(0)
    pool = TemporalPool(8, 5)
    frames = F.normalize(torch.randn(16, 5, 8), dim=-1)
    torch.testing.assert_close(pool(frames), F.normalize(frames.mean(dim=1), dim=-1))
    orders = shuffled_orders(16, 5, torch.Generator().manual_seed(0))
    shuffled = frames.gather(1, orders[..., None].expand_as(frames))
    assert (frames.sum(1) - shuffled.sum(1)).abs().max() < 1e-5
    assert not (frames == shuffled).all(dim=-1).any()
    texts = F.normalize(torch.randn(16, 8), dim=-1)
    scale = torch.tensor(10.0)
    first = frame_order_loss(pool(frames), pool(shuffled), texts, scale)
    assert first.item() == pytest.approx(math.log(2), abs=1e-4)
    optimizer = torch.optim.Adam(pool.parameters(), lr=3e-3)
    for _ in range(60):
        loss = frame_order_loss(pool(frames), pool(shuffled), texts, scale)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1


def test_truncated_vectors_have_unit_length_and_a_loss_over_widths_is_their_mean() -> None:
    image_ID, text_TD, owner_T, scale, _ = batch(OWNERS["several"])
    assert torch.allclose(truncated(image_ID, 3).norm(dim=-1), torch.ones(6, dtype=torch.float64))
    one = [clip_loss(truncated(image_ID, w), truncated(text_TD, w), owner_T, scale) for w in (2, 8)]
    both = matryoshka_loss(lambda i, t: clip_loss(i, t, owner_T, scale), image_ID, text_TD, [2, 8])
    assert both.item() == pytest.approx(sum(v.item() for v in one) / 2)
    with pytest.raises(BadInput, match="width 9: expected 1 to 8"):
        truncated(image_ID, 9)


def test_temperature_and_bias_are_clamped_and_can_come_back() -> None:
    from vlm.alignment.dual_encoder import AlignmentConfig

    heads = AlignmentConfig(width=4, text="encoder", image_queries=1, text_queries=1, hidden=4).build(4, 4)
    with torch.no_grad():
        heads.log_scale.fill_(9.0)
        heads.bias.fill_(-50.0)
    assert heads.scale.item() == pytest.approx(100.0)
    assert heads.shift.item() == -30.0
    (-heads.scale).backward()  # wants a larger scale still
    assert heads.log_scale.grad is not None
    assert heads.log_scale.grad.item() == 0
    heads.scale.backward()
    assert heads.log_scale.grad.item() == pytest.approx(100.0)
    heads.shift.backward()  # a step against this gradient leads further out
    assert heads.bias.grad is not None
    assert heads.bias.grad.item() == 0
    (-heads.shift).backward()
    assert heads.bias.grad.item() == -1

"""`vlm bench vision`: the tower and what leads to it, against the libraries' own.

The tower is `nano`'s with its trained weights, on photographs; the peer is open_clip's ViT of the same shape in
float32. Ranges for INT8 are measured on every other photograph, agreement on the rest. Reading is from a JPEG's bytes
to normalised pixels, against Pillow and torchvision's first transforms. On the threads that torch was given.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torchvision import transforms

from vlm import assets
from vlm.bench.timing import Missing, Ratio, Result, Say, alternate
from vlm.errors import VlmError
from vlm.media.images import load_image
from vlm.models.card import load_card
from vlm.models.parts import pull
from vlm.vision.jpeg import Way, read_pixels
from vlm.vision.precision import Bfloat16, int8
from vlm.vision.tower import TowerConfig, VisionTower
from vlm.vision.towers import load_into
from vlm.vision.transforms import Framing

PICTURES = 16
"""In a batch of the tower."""
LARGE, FEW = 1920, 6
"""The long side of large photographs, made by enlarging the samples, and how many of them are read."""
LEAST_COSINE = 0.99


def run(rounds: int = 5, say: Say = lambda text: None) -> Iterator[Result]:
    """The tower in three precisions, then reading in two ways."""
    paths = sorted((assets.root() / "data" / "samples").glob("*.jpg"))
    try:
        tower = _tower()
    except VlmError as error:
        yield Missing("tower", "open_clip, float32", str(error))
    else:
        yield from _towers(tower, [load_image(path) for path in paths], rounds, say)
    yield from _reading([path.read_bytes() for path in paths], rounds, say)


def _tower() -> VisionTower:
    card = load_card("nano")
    part = card.model_copy(update={"parts": {"tower": card.parts["tower"]}})
    return load_into(card.model.tower, pull(part)["tower"])


def _towers(tower: VisionTower, photographs: list[Image.Image], rounds: int, say: Say) -> Iterator[Result]:
    cfg, peer = tower.cfg, _peer(tower)
    shape = f"ViT of width {cfg.width} at {cfg.image_size} px, {PICTURES} pictures"
    with torch.inference_mode():
        checked = tower.preprocess(photographs[1::2])
        expected = tower(checked)
        pixels = tower.preprocess((photographs * PICTURES)[:PICTURES])
        for name, make in (
            ("float32", lambda: tower),
            ("bfloat16", lambda: Bfloat16(tower)),
            ("INT8", lambda: int8(tower, photographs[::2])),
        ):
            what = f"{shape}, {name}"
            say(what)
            try:
                fast = make()
            except VlmError as error:
                yield Missing(what, "open_clip, float32", str(error))
                continue
            got = fast(checked)
            pooled = F.cosine_similarity(got.pooled_BD, expected.pooled_BD, dim=-1).min()
            patches = F.cosine_similarity(got.tokens_BND, expected.tokens_BND, dim=-1).mean()
            if not min(pooled, patches) >= LEAST_COSINE:
                raise AssertionError(f"{what}: cosine to float32 {pooled:.4f} pooled, {patches:.4f} a patch")
            ratio = alternate(what, "open_clip, float32", partial(fast, pixels), partial(peer, pixels), rounds)
            said = f"{PICTURES / ratio.ours_seconds:.3g} a second; cosine to float32: pooled at least {pooled:.4f}"
            way: Any = getattr(fast, "product", None)
            if way is not None:
                said = f"{way.__name__}, the faster way on this CPU; {said}"
            yield replace(ratio, note=f"{said}, patches {patches:.4f} on average")


def _peer(tower: Any) -> Any:
    """open_clip's ViT of the same shape, with random weights: the time is the same."""
    import open_clip

    blocks, cfg = tower.vit.blocks, tower.cfg
    vision = {
        "image_size": cfg.image_size,
        "patch_size": cfg.patch,
        "width": cfg.width,
        "layers": len(blocks),
        "head_width": cfg.width // blocks[0].attn.num_heads,
        "mlp_ratio": blocks[0].mlp.fc1.out_features / cfg.width,
    }
    text = {"context_length": 1, "vocab_size": 1, "width": 1, "heads": 1, "layers": 1}
    return open_clip.CLIP(cfg.width, vision, text).visual.eval()


def _reading(samples: list[bytes], rounds: int, say: Say) -> Iterator[Ratio]:
    cfg = load_card("nano").model.tower.model_copy(update={"framing": Framing(resize="shortest")})
    large = [_enlarged(sample) for sample in samples[:FEW]]
    cases: list[tuple[str, list[bytes], Way]] = [
        ("photographs of about 500 px", samples, "fast"),
        (f"photographs of {LARGE} px", large, "fast"),
        (f"photographs of {LARGE} px", large, "scaled"),
    ]
    for name, pictures, way in cases:
        what = f"{len(pictures)} {name} to {cfg.image_size} px, {way}"
        say(what)
        mine, other = partial(read_pixels, pictures, cfg, way), partial(_by_pillow, pictures, cfg)
        if not torch.allclose(read_pixels(pictures, cfg), other(), atol=1e-5):
            raise AssertionError(f"{what}: the plain way and the peer differ")
        levels = (mine() - other()).abs() * torch.tensor(cfg.std)[:, None, None] * 255
        note = f"{levels.mean():.3f} of 255 levels off on average, {levels.max():.0f} at most"
        yield alternate(what, "Pillow and torchvision's first transforms", mine, other, rounds, note)


def _by_pillow(pictures: list[bytes], cfg: TowerConfig) -> Tensor:
    transform = transforms.Compose(
        [
            transforms.Resize(cfg.image_size, transforms.InterpolationMode(cfg.interpolation)),
            transforms.CenterCrop(cfg.image_size),
            transforms.ToTensor(),
            transforms.Normalize(cfg.mean, cfg.std),
        ]
    )
    return torch.stack([transform(Image.open(io.BytesIO(picture)).convert("RGB")) for picture in pictures])


def _enlarged(picture: bytes) -> bytes:
    image, stream = load_image(picture), io.BytesIO()
    scale = LARGE / max(image.size)
    size = (round(image.width * scale), round(image.height * scale))
    image.resize(size, Image.Resampling.BICUBIC).save(stream, "JPEG", quality=90)
    return stream.getvalue()

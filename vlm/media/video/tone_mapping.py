"""High dynamic range as people see it on an ordinary screen: PQ and HLG frames become sRGB.

Light is counted in units of reference white, 203 cd/m2 (ITU-R BT.2408, 3.1). A frame that has nothing brighter keeps
its colours. Highlights are rolled off by the curve of BT.2390 (5.4.1) from the frame's own peak, on the largest of the
three channels, so that no hue turns; what is well below white stays as it is.
"""

from __future__ import annotations

from functools import cache
from types import MappingProxyType

import numpy as np

WHITE = 203.0
"""Reference white, cd/m2."""
_PEAK_SHARE = 0.999
"""A frame's peak is what this share of it is not brighter than: a spark does not darken all else."""
_HLG_PEAK, _HLG_GAMMA = 1000.0, 1.2
"""The display that HLG is mastered on (BT.2100, table 5)."""
_LUMINANCE = np.array([0.2627, 0.6780, 0.0593], np.float32)
"""Of the primaries of BT.2020."""
TRANSFERS = MappingProxyType({16: "PQ", 18: "HLG"})
"""`color_trc` (ITU-T H.273, 8.2) of what is mapped."""
_TO_BT709 = MappingProxyType(
    {
        1: np.eye(3, dtype=np.float32),
        9: np.array(  # BT.2087, 2.2
            [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
        ),
        12: np.array(  # P3 with the white of D65 (SMPTE EG 432-1)
            [[1.2249, -0.2247, 0.0], [-0.0420, 1.0419, 0.0], [-0.0197, -0.0786, 1.0979]], np.float32
        ),
    }
)
"""Linear light of `color_primaries` (H.273, 8.1) to that of BT.709, which sRGB shares."""


def to_srgb(coded_HW3: np.ndarray, transfer: int, primaries: int) -> np.ndarray:
    """uint16 [H, W, 3] of R'G'B' in the whole range -> uint8 [H, W, 3] of sRGB. Unknown primaries are BT.2020's."""
    light_HW3 = _light(transfer)[coded_HW3]
    if transfer == 18:  # from the scene's light to the display's (BT.2100, table 5)
        light_HW3 *= (light_HW3 @ _LUMINANCE)[..., None] ** (_HLG_GAMMA - 1)
        light_HW3 *= _HLG_PEAK / WHITE
    light_HW3 = light_HW3 @ _TO_BT709.get(primaries, _TO_BT709[9]).T
    largest_HW = light_HW3.max(axis=-1)
    place = int(_PEAK_SHARE * (largest_HW.size - 1))
    peak = float(np.partition(largest_HW, place, axis=None)[place])
    if peak > 1:
        held_HW = np.clip(largest_HW, 1e-6, peak)
        gain_HW = np.interp(held_HW, *_gains(peak)) * held_HW / np.maximum(largest_HW, 1e-6)
        light_HW3 *= gain_HW.astype(np.float32)[..., None]
    levels_HW3 = np.clip(light_HW3 * 65535 + 0.5, 0, 65535).astype(np.uint16)
    return _srgb()[levels_HW3]


def _gains(peak: float) -> tuple[np.ndarray, np.ndarray]:
    """Of a value up to `peak` the factor that brings `peak` to 1 and leaves what is well below 1 as it is (BT.2390)."""
    most, target = _pq(np.array([peak, 1.0]))
    top = target / most
    knee = 1.5 * top - 0.5
    coded = np.linspace(0, 1, 1024)
    t = np.clip((coded - knee) / (1 - knee), 0, 1)
    curve = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * top
    light, mapped = _pq_light(coded * most), _pq_light(np.where(coded < knee, coded, curve) * most)
    return light, np.divide(mapped, light, out=np.ones_like(light), where=light > 0)


@cache
def _light(transfer: int) -> np.ndarray:
    """Linear light, float32, of each of 65536 codes: the display's for PQ, the scene's in 0..1 for HLG."""
    coded = np.arange(65536) / 65535
    if transfer == 16:
        return _pq_light(coded).astype(np.float32)
    a, b, c = 0.17883277, 0.28466892, 0.55991073  # BT.2100, table 5
    return np.where(coded <= 0.5, coded**2 / 3, (np.exp((coded - c) / a) + b) / 12).astype(np.float32)


@cache
def _srgb() -> np.ndarray:
    """uint8 [65536]: IEC 61966-2-1."""
    light = np.arange(65536) / 65535
    coded = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.round(coded * 255).astype(np.uint8)


_M1, _M2, _C1, _C2, _C3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128  # BT.2100, table 4


def _pq_light(coded: np.ndarray) -> np.ndarray:
    root = coded ** (1 / _M2)
    return (np.maximum(root - _C1, 0) / (_C2 - _C3 * root)) ** (1 / _M1) * (10000 / WHITE)


def _pq(light: np.ndarray) -> np.ndarray:
    root = (light * (WHITE / 10000)) ** _M1
    return ((_C1 + _C2 * root) / (1 + _C3 * root)) ** _M2

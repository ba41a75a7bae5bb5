"""What a container says of its video, read without decoding: which frames there are, when, and where to begin.

A demuxer gives a file's packets in the order they are decoded in. Where each is one frame with a time of its own, the
packets are the timeline; elsewhere only decoding the file tells, once, in order.

Letters: N frames in the order they are shown, P packets in the order they are decoded.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.sidedata.sidedata import Type
from av.video.stream import VideoStream

from vlm.errors import BadInput
from vlm.media.video.clock import ORDER_ALONE, Clock, in_order
from vlm.media.video.container import Alive, decode, line, open_container, packets_of
from vlm.media.video.sei import tells_orientation
from vlm.media.video.streams import chosen_stream
from vlm.media.video.transport import only_joined
from vlm.media.video.whole import check_whole

# Codecs of which a packet is one frame.
_FRAME_A_PACKET = frozenset(
    "h264 hevc av1 vp8 vp9 mpeg4 mpeg2video mpeg1video mjpeg png prores dnxhd ffv1 gif apng".split()
)
_EMPTY_MPEG4 = 8
"""Bytes up to which a packet of MPEG-4 says that there is no frame, or that it came with the one before it."""


@dataclass(frozen=True)
class Packets:
    """`pts` (unique), `dts` and `key`: whether a decoder can begin there, of each of P packets."""

    pts: list[int]
    dts: list[int | None]
    key: list[bool]


@dataclass(frozen=True)
class Timeline:
    """When each of N frames is shown.

    `times_N` is float64 [N], seconds, ascending; `duration` goes from the first frame's start to the last one's end;
    `keyframes` are the frames that were coded alone; `notes` say what was changed. `steady` files have a constant rate,
    no edit list, as many frames as they promise, no frame shown before the keyframe that it follows, and a codec every
    decoder knows. In `seekable` ones stamps are the same wherever reading begins. `first_tells` where frame 0 has to be
    seen to know how all are turned. `pts_N` are the frames' own stamps, and `packets` are there where packets tell it
    all.
    """

    times_N: np.ndarray
    duration: float
    keyframes: list[int]
    steady: bool = False
    seekable: bool = True
    first_tells: bool = False
    pts_N: list[int | None] = field(default_factory=list)
    packets: Packets | None = None
    notes: tuple[str, ...] = ()


def read_timeline(container: InputContainer, stream: VideoStream, path: Path, alive: Alive) -> Timeline:
    """The timeline of a container just opened; it is read to its end. Raises `BadInput` for a damaged file."""
    packets = Packets([], [], [])
    shown: list[tuple[int, bool, int]] = []  # its stamp, whether it was coded alone, how long it is said to be shown
    codec, ordered = stream.codec.canonical_name, container.format.name in ORDER_ALONE
    delay, clock = int(getattr(stream.codec_context, "reorder_depth", 1)), Clock(container, stream)
    # Where stamps are guessed, those of H.264 are before it is known which frame comes when.
    listed = codec in _FRAME_A_PACKET and not (ordered and delay and codec == "h264")
    same, first_tells, corrupt, hidden, open_groups, last_key = delay > 0, False, False, False, False, -(1 << 63)
    try:
        for packet in packets_of(container, stream, alive):
            pts = packet.pts
            if pts is None:
                listed &= packet.size == 0  # the flush at the end
                continue
            first_tells |= not packets.pts and tells_orientation(bytes(packet), codec)
            same &= pts == packet.dts
            corrupt |= packet.is_corrupt
            listed &= not (ordered and codec == "mpeg4" and packet.size < _EMPTY_MPEG4)
            listed &= not clock.began_again(packets.dts[-1] if packets.dts else None, packet.dts, pts)
            packets.pts.append(pts)
            packets.dts.append(packet.dts)
            packets.key.append(packet.is_keyframe)
            last_key = pts if packet.is_keyframe else last_key
            open_groups |= pts < last_key
            if packet.is_discard or _only_serves(packet, codec):  # an edit list cuts it
                hidden = True
            else:
                shown.append((pts, packet.is_keyframe, packet.duration or 0))
    except av.FFmpegError as error:
        raise BadInput(f"{path}: expected a whole video, got a damaged one ({line(error)})") from None
    if corrupt and not (container.format.name == "mpegts" and only_joined(path, stream.id, alive)):
        raise BadInput(f"{path}: expected a whole video, got one that is cut short or damaged")
    check_whole(stream, path, len(packets.pts))
    same &= not all(packets.key)
    if same:  # either no frame is shown before one that is decoded first, or the times of decoding stand for all
        listed, ordered = False, True
    listed &= bool(shown) and packets.key[0] and len(set(packets.pts)) == len(packets.pts)
    order = in_order([dts for dts in packets.dts if dts is not None], delay) if ordered else []
    if not listed:
        return _decoded_timeline(path, stream.index, order, same, alive)
    tick = float(stream.time_base or 0)
    shown.sort()
    places = order if len(order) == len(shown) else [clock(pts) for pts, _, _ in shown]
    times_N = np.array(places, dtype=np.float64) * tick
    steps = np.diff(times_N)
    constant = len(times_N) < 3 or float(np.ptp(steps)) <= 2.5 * tick
    known = codec in ("h264", "mpeg4")
    last = 0.0 if ordered else shown[-1][2] * tick
    return Timeline(
        times_N=times_N,
        duration=_duration(times_N, last, float(stream.average_rate or 0)),
        keyframes=[index for index, (_, key, _) in enumerate(shown) if key],
        steady=constant and not hidden and not open_groups and stream.frames == len(times_N) and known,
        seekable=container.format.name != "mpeg",  # a program stream says the time of some frames; others are guessed
        first_tells=first_tells,
        pts_N=[pts for pts, _, _ in shown],
        packets=packets,
        notes=clock.notes,
    )


def _only_serves(packet: Packet, codec: str) -> bool:
    """Whether it is a frame for others only (VP8's show_frame bit, RFC 6386, 9.1)."""
    return codec == "vp8" and packet.size > 0 and not memoryview(packet)[0] & 0x10


def _decoded_timeline(path: Path, index: int, order: list[int], perhaps: bool, alive: Alive) -> Timeline:
    """By decoding the file: the k-th frame is shown at the k-th time of `order` where that is given.

    `perhaps` stamps are right: they are where they ascend.
    """
    with open_container(path) as container:
        stream = chosen_stream(container, path, alive, index)
        rate, tick = float(stream.average_rate or 0), float(stream.time_base or 0)
        clock = Clock(container, stream)
        times, stamps, keyframes, first_tells, since = [], [], [], False, 0
        for count, frame in enumerate(decode(container, stream, path, alive)):
            if count < len(order):
                times.append(order[count] * tick)
            elif frame.pts is not None:
                times.append(clock(frame.pts) * tick)
                since = count
            else:  # it comes as many frames after the last one whose time is known
                times.append((times[since] if times else 0.0) + (count - since) / (rate or 25.0))
            stamps.append(frame.pts)
            first_tells |= count == 0 and Type.DISPLAYMATRIX in frame.side_data
            if frame.key_frame:
                keyframes.append(count)
        said = [stamp for stamp in stamps if stamp is not None]
        if perhaps and len(said) == len(times) and all(one < other for one, other in pairwise(said)):
            times = [clock(stamp) * tick for stamp in said]
    if not times:
        raise BadInput(f"{path}: expected a video, got no frame that decodes")
    times_N = np.array(times, dtype=np.float64)
    duration = _duration(times_N, 0.0, rate)
    return Timeline(times_N, duration, keyframes, first_tells=first_tells, pts_N=stamps, notes=clock.notes)


def _duration(times_N: np.ndarray, last: float, rate: float) -> float:
    """`last` is how long the last frame is said to be shown, in seconds; 0 where that is not said."""
    last = last or (float(np.median(np.diff(times_N))) if len(times_N) > 1 else 1 / rate if rate else 0.0)
    return float(times_N[-1] - times_N[0] + last)

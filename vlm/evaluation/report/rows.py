"""The samples as the page's script reads them."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from vlm.evaluation.direction import direction
from vlm.evaluation.report.pictures import Album
from vlm.evaluation.report.samples import choose, default_score, score_names, value, verdict
from vlm.evaluation.results import Sample, TaskResult
from vlm.media.kinds import kind_of_name

FRAMES = 6
"""The most frames of a clip's strip."""
CANDIDATES = 5
LONGEST = 2000
"""Characters of a text that the page keeps."""


@dataclass(frozen=True)
class Rows:
    """What the page's sample browser is given, as JSON, and what it says of it."""

    text: str
    shown: int
    pictured: int
    total: int
    common_prompt: str


def rows(result: TaskResult, samples: Sequence[Sample], album: Album, top: int, most_bytes: int) -> Rows:
    """The samples as the page's script reads them, with thumbnails for `top` of them."""
    score, names = default_score(result, samples), score_names(samples)
    prompts = {sample.prompt for sample in samples}
    common = next(iter(prompts)) if len(prompts) == 1 and len(samples) > 1 else ""
    maker = _Maker(result, album, score, names, bool(common), _known(samples))
    made, pictured = {}, 0
    for i in choose(samples, score, top):
        row = maker.row(i, samples[i], pictures=True)
        pictured += any(n is not None for n in row.get("pictures", ())) or _has_picture(row.get("candidates", ()))
        made[i] = _json(row)
    # The rest is text alone: all of it if there is room, else what `choose` would take of it.
    texts = {i: _json(maker.row(i, sample, pictures=False)) for i, sample in enumerate(samples) if i not in made}
    left = most_bytes - sum(len(text) for text in made.values())
    size = sum(len(text) for text in texts.values())
    if size > left:
        room = max(0, left) * len(texts) // size
        within = [i for i in choose(samples, score, room) if i in texts] if room else []
        texts = {i: texts[i] for i in within[:room]}
    made |= texts
    head = {
        "scores": [{"name": name, "direction": direction(name)} for name in names],
        "sort": names.index(score) if score in names else -1,
        "confidence": names.index("confidence") if "confidence" in names else -1,
    }
    # A row a line: the file can be read and compared.
    text = f'{_json(head)[:-1]},"rows":[\n' + ",\n".join(made[i] for i in sorted(made)) + "\n]}"
    return Rows(text, len(made), pictured, len(samples), common)


def _json(data: Any) -> str:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


class _Maker:
    """Makes the rows of one task."""

    def __init__(
        self, result: TaskResult, album: Album, score: str | None, names: list[str], common: bool, known: dict[str, str]
    ) -> None:
        self.result, self.album, self.score, self.names, self.common = result, album, score, names, common
        self.known = known

    def row(self, at: int, sample: Sample, *, pictures: bool) -> dict[str, Any]:
        """The sample at a place of the data, without what is empty.

        Pictures are numbers in the album, null for one that is not there; `pictures` says whether to add any.
        """
        found = [value(sample, name) for name in self.names]
        candidates = _candidates(sample)
        output = "" if candidates or sample.output is None else _text(sample.output)
        references = Counter(sample.references)
        # What a query should find is shown as a target, never as the query.
        named = [name for name in _paths(sample) if name not in references]
        row: dict[str, Any] = {
            "at": at,
            "id": sample.id,
            "name": _file_name(sample.cluster or named[0]) if named else "",
            "prompt": "" if self.common else _clip(sample.prompt),
            "answer": "" if candidates else _clip(sample.prediction or ""),
            "output": _clip(output) if output != sample.prediction else "",
            "references": [[_clip(text), count] for text, count in references.most_common()],
            "scores": [None if v is None else round(v, 5) for v in found],
            "category": sample.category or "",
            "verdict": verdict(self.result, sample, self.score),
            "candidates": [self._candidate(item, score, references, pictures) for item, score in candidates],
        }
        if pictures and named:
            row["pictures"] = [self.album.add(name) for name in named]
        if candidates:
            row |= self._targets(sample, [item for item, _ in candidates], pictures)
        return {key: v for key, v in row.items() if v not in ("", None, [])}

    def _candidate(self, item: str, score: Any, right: Counter[str], pictures: bool) -> dict[str, Any]:
        made: dict[str, Any] = {"text": _clip(_label(item))}
        if item in right:
            made["right"] = True
        if isinstance(score, int | float) and math.isfinite(score):
            made["score"] = round(float(score), 4)
        return made | self._picture(item, pictures)

    def _picture(self, item: str, pictures: bool) -> dict[str, int]:
        path = item if _is_media(item) else self.known.get(item)
        number = self.album.add(path) if pictures and path is not None else None
        return {} if number is None else {"picture": number}

    def _targets(self, sample: Sample, items: list[str], pictures: bool) -> dict[str, Any]:
        """The picture that a text query should have found and did not; references that are paths by their name."""
        targets = [r for r in dict.fromkeys(sample.references) if _is_media(r) or r in self.known]
        if not targets:
            return {}
        missed = [] if any(r in items for r in targets) else targets[:1]
        made = [{"text": _label(r), "right": True, **self._picture(r, pictures)} for r in missed]
        return {"references": [[_label(r), 1] for r in targets], "targets": made}


def _known(samples: Sequence[Sample]) -> dict[str, str]:
    """The picture that a cluster's name stands for: a clip's first frame, where the clip goes by a name of its own."""
    known: dict[str, str] = {}
    for sample in samples:
        for path in _paths(sample)[:1]:
            known.setdefault(sample.cluster or path, path)
    return known


def _has_picture(entries: Sequence[dict[str, Any]]) -> bool:
    return any("picture" in entry for entry in entries)


def _candidates(sample: Sample) -> list[tuple[str, Any]]:
    """The best candidates of a retrieval, at most `CANDIDATES`; none for any other output."""
    if not isinstance(sample.output, list):
        return []
    good = [entry for entry in sample.output if isinstance(entry, dict) and "item" in entry]
    return [(str(entry["item"]), entry.get("score")) for entry in good[:CANDIDATES]]


def _paths(sample: Sample) -> list[str]:
    """The pictures of a sample: its image, its frames spread evenly, or its clip."""
    frames = sample.inputs.get("frames")
    if isinstance(frames, list | tuple) and frames:
        step = max(1.0, len(frames) / FRAMES)
        return [str(frames[int(i * step)]) for i in range(min(FRAMES, len(frames)))]
    single = sample.inputs.get("image") or sample.inputs.get("video")
    return [str(single)] if single else []


@lru_cache(maxsize=1 << 16)
def _is_media(item: str) -> bool:
    kind = kind_of_name(item)
    return kind is not None and kind.medium is not None


def _label(item: str) -> str:
    """A picture's or clip's file name; else the candidate's own words."""
    return _file_name(item) if _is_media(item) else item


def _file_name(path: str) -> str:
    return path.rpartition("/")[2]


def _text(output: Any) -> str:
    return output if isinstance(output, str) else json.dumps(output, ensure_ascii=False)


def _clip(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text) - LONGEST:,} more characters)"

"""MVBench (Li et al. 2024): a list of questions for each of twenty tasks, clips in a folder for each source."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

from vlm.datasets.readers.jsonfiles import Records
from vlm.datasets.readers.rows import Row
from vlm.errors import BadInput

FOLDERS = {
    "action_antonym": "ssv2_video",
    "action_count": "perception/videos",
    "character_order": "perception/videos",
    "counterfactual_inference": "clevrer/video_validation",
    "egocentric_navigation": "vlnqa",
    "fine_grained_action": "Moments_in_Time_Raw/videos",
    "fine_grained_pose": "nturgbd",
    "moving_attribute": "clevrer/video_validation",
    "moving_count": "clevrer/video_validation",
    "moving_direction": "clevrer/video_validation",
    "object_existence": "clevrer/video_validation",
    "object_shuffle": "perception/videos",
    "scene_transition": "scene_qa/video",
    "state_change": "perception/videos",
    "unexpected_action": "FunQA_test/test",
}
"""Task -> folder of its clips below `video/`, as the authors' archives unpack."""
CUT = ("action_localization", "action_prediction", "action_sequence", "episodic_reasoning", "object_interaction")
"""Tasks about a part of a clip, from `start` to `end`: the rest of it would change their questions."""


class MVBench(Records):
    """Adds the clip's folder and the task; the tasks of `CUT` give no records."""

    defaults: ClassVar[dict[str, Any]] = {
        "video": "{folder}/{video}",
        "question": "question",
        "options": "candidates",
        "answers": "answer",
        "answer_is": "option",
        "meta": {"task": "task"},
    }

    name: Literal["mvbench"] = "mvbench"

    def file_rows(self, path: Path, split: str) -> Iterator[Row]:
        if path.stem in CUT:
            return
        if path.stem not in FOLDERS:
            raise BadInput(f"{path}: expected a task of MVBench, {', '.join(sorted(FOLDERS))}")
        for row in super().file_rows(path, split):
            values = {"task": path.stem.replace("_", " "), "folder": FOLDERS[path.stem], **row.values}
            yield Row(values, row.where, row.id, row.folder)

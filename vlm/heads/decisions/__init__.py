"""Typed questions about a text, a picture or a clip, answered by probabilities; nothing is generated."""

from vlm.heads.decisions.questions import Choice as Choice
from vlm.heads.decisions.questions import Decision as Decision
from vlm.heads.decisions.questions import Question as Question
from vlm.heads.decisions.questions import Score as Score
from vlm.heads.decisions.questions import YesNo as YesNo

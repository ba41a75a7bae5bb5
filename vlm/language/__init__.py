"""The language model: one decoder of dense and mixture layers, and the published checkpoints it loads and writes."""

from vlm.language.checkpoints.folder import load, save
from vlm.language.decoder import LanguageModel

__all__ = ["LanguageModel", "load", "save"]

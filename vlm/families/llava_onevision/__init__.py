"""LLaVA-OneVision (arXiv:2408.03326): a SigLIP tower, an MLP, a Qwen2; a picture alone in tiles of any resolution,
several as a whole each, clips as pooled frames."""

from vlm.families.llava_onevision.load import load

__all__ = ["load"]

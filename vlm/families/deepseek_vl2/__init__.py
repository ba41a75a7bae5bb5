"""DeepSeek-VL2 (arXiv:2412.10302): dynamic tiles, a SigLIP tower, a downsampling MLP, a mixture of experts."""

from vlm.families.deepseek_vl2.load import load

__all__ = ["load"]

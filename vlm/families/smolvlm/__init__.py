"""SmolVLM and SmolVLM2 (arXiv:2504.05299), and the Idefics3 (arXiv:2408.12637) they are made like: a SigLIP tower,
pixel shuffle, a Llama; pictures split into tiles, clips told with the times of their frames."""

from vlm.families.smolvlm.load import load

__all__ = ["load"]

"""Where weights come from, and the exact loader that names missing, extra and mis-shaped tensors."""

from vlm.weights.fetching import fetch
from vlm.weights.parts import Fetched, Part, Source, cache_dir, network_is_off

__all__ = ["Fetched", "Part", "Source", "cache_dir", "fetch", "network_is_off"]

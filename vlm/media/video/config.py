"""What a model's card says of clips."""

from __future__ import annotations

from vlm.config import Config
from vlm.media.video.sampling import Sampling
from vlm.media.video.sampling.uniform import Uniform


class VideoConfig(Config):
    sampling: Sampling = Uniform()
    """Which frames the model sees."""
    times: bool = False
    """Whether the prompt says the time of each frame before it (`<0.5s>`), so that questions may be about time."""

"""What a server is started with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, PositiveFloat, PositiveInt

from vlm.config import Config
from vlm.media.images import MAX_PIXELS

MB = 2**20
ENGINES = ("lance", "flat")


class Limits(Config):
    """What one caller may ask for. Sizes in bytes, times in seconds."""

    body_bytes: PositiveInt = 256 * MB
    """Of a request with files; they go to disk as they come."""
    json_bytes: PositiveInt = 24 * MB
    """Of any other request; it is held in memory."""
    json_values: PositiveInt = 300_000
    """In such a request, about: an empty list is two bytes of JSON and forty times that in memory."""
    image_bytes: PositiveInt = 32 * MB
    video_bytes: PositiveInt = 256 * MB
    metadata_bytes: PositiveInt = 16 * 1024
    pixels: PositiveInt = Field(default=MAX_PIXELS, le=MAX_PIXELS)
    """Of a picture, by its header."""
    text: PositiveInt = 8192
    """Characters."""
    batch: PositiveInt = 64
    """Items or queries in a request."""
    inputs: PositiveInt = 2048
    """Of `/v1/embeddings`, as OpenAI takes them; they are embedded a batch at a time, and searches pass them."""
    top: PositiveInt = 1000
    """Hits of a query, with those that paging passes over."""
    rerank: PositiveInt = 50
    """Hits of a search that the language model looks at: tenths of a second each on a CPU."""
    collections: PositiveInt = 1000
    snapshots: PositiveInt = 64
    """Of a collection; each keeps what was deleted since."""

    requests: PositiveInt = 64
    """At the same time; as many uploads beside them, up to `uploads`."""
    uploads: PositiveInt = 64
    bodies_bytes: PositiveInt = 128 * MB
    """Of JSON that is held for all requests together."""
    connections: PositiveInt = 1024
    queue: PositiveInt = 256
    """Pictures, and texts, that wait to be embedded."""
    decoded_bytes: PositiveInt = 768 * MB
    """Of pictures that are being decoded, by their headers and with the copies that takes, that wait to be embedded, or
    that are part of a conversation that is being answered."""

    header_seconds: PositiveFloat = 10.0
    """From a connection, or the end of the last answer on it, to a whole request header."""
    silence_seconds: PositiveFloat = 15.0
    """Between two pieces of a body, or of an answer."""
    body_seconds: PositiveFloat = 300.0
    """A whole body."""
    answer_seconds: PositiveFloat = 60.0
    """A batch of texts or pictures, from when the model begins with it: whoever waits for a turn loses none of it."""
    wait_seconds: PositiveFloat = 120.0
    """What an upload is let wait for its turn; where it would be longer it is refused at once, to come again."""
    decode_seconds: PositiveFloat = 10.0
    """A picture, or the silence of a video's decoder."""
    fetch_seconds: PositiveFloat = 10.0
    """A URL with all its redirects."""


class ServerSettings(Config):
    """Of any server."""

    media: tuple[Path, ...] = ()
    """Folders whose files can be named by path."""
    urls: bool = False
    """Whether URLs are fetched."""
    origins: tuple[str, ...] = ()
    """Of web pages whose scripts may use the API (CORS), `https://app.example`; they send keys, never cookies."""
    access_log: Path | None = None
    """A line of JSON for each request; without a file none is kept."""
    audit_log: Path | None = None
    """A line for each request that changes something, and each login."""
    decoders: PositiveInt = 2
    """Processes that decode pictures."""
    batch: PositiveInt = 16
    """Pictures or texts embedded at once."""
    page: bool = False
    """Whether there is one, which needs Gradio."""
    limits: Limits = Limits()


class Settings(ServerSettings):
    """Of the retrieval server."""

    root: Path
    """Everything the server keeps lies below."""
    opened: Mapping[str, Path] = Field(default_factory=dict)
    """Indexes of `vlm index` that are served as they are, by the name of their collection."""
    originals: bool = False
    """Whether pictures are kept as they came, beside the small ones that are shown."""
    engine: str = "lance"
    """Of collections that are made; those that are there keep theirs."""
    store: str | None = None
    """Where their vectors and metadata are if not below the root: `s3://bucket/prefix` or `http://host:6333`."""

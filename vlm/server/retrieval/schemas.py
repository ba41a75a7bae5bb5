"""What requests and answers look like; the OpenAPI document is made from these."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    Discriminator,
    Field,
    FiniteFloat,
    StringConstraints,
    Tag,
    model_validator,
)

from vlm.server.http.addresses import moves
from vlm.server.http.schemas import Body, Failure, Text, plain

KnownId: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=512)]
"""Of an item that may be there."""
ID_PATTERN = r"^[^\x00-\x1f\x7f-\x9f]+$"


def addressable(id: str) -> str:
    """Raises `ValueError` for an id that no address could name: clients take `.` and `..` for steps."""
    if moves(id):
        raise ValueError("expected no `.` or `..` alone or between slashes")
    return id


Id: TypeAlias = Annotated[
    str, StringConstraints(min_length=1, max_length=512, pattern=ID_PATTERN), AfterValidator(addressable)
]
# A list is refused at its first fault: all of a long one's would take the memory of a thousand such lists.
Vector: TypeAlias = Annotated[list[FiniteFloat], Field(min_length=1, max_length=65_536, fail_fast=True)]
Metadata: TypeAlias = dict[str, Any]


SOURCES = ("path", "url", "image", "video", "text", "vector")


class Item(Body):
    """Exactly one of `path`, `url`, `image`, `video`, `text` and `vector`."""

    id: Id | None = Field(None, description="By default the SHA-256 of the content.")
    path: Text | None = Field(None, description="Of a picture or clip below one of the server's folders.")
    url: Text | None = Field(None, description="Of a picture or clip, where the server fetches URLs.")
    image: str | None = Field(None, description="A picture in base64, or as a data: URL.")
    video: str | None = Field(None, description="A clip in base64, or as a data: URL.")
    text: Text | None = None
    vector: Vector | None = Field(None, description="In the model's space; it is brought to length 1.")
    metadata: Metadata = Field({}, description="Any JSON object; keys that begin with _ are the server's.")

    @model_validator(mode="after")
    def _one(self) -> Item:
        self.exactly_one(SOURCES)
        return self


class Items(Body):
    items: Annotated[list[Item], Field(min_length=1, fail_fast=True)]


def several(key: str) -> Discriminator:
    """Tells a body with a list of things under `key` from one thing, so that an error is about the right one."""
    return Discriminator(lambda body: "many" if isinstance(body, dict) and key in body else "one")


OneOrMany: TypeAlias = Annotated[Annotated[Item, Tag("one")] | Annotated[Items, Tag("many")], several("items")]


class ItemStatus(BaseModel):
    id: str | None
    status: Literal["added", "replaced", "refused"]
    error: Failure | None = None


class ItemsAnswer(BaseModel):
    items: list[ItemStatus]


class ItemAnswer(BaseModel):
    id: str
    metadata: Metadata
    vector: list[float] | None = Field(default=None, description="Where it was asked for; of length 1.")


Filter: TypeAlias = Annotated[dict[str, Any], AfterValidator(plain)]
Ids: TypeAlias = Annotated[list[KnownId], Field(min_length=1, max_length=10_000, fail_fast=True)]


class Scroll(Body):
    limit: int | None = Field(None, ge=1, description="By default 100, or the most that the server gives.")
    after: KnownId | None = Field(None, description="The last id of the page before: its `next`.")
    filter: Filter | None = None
    ids: Ids | None = None
    vectors: bool = False
    snapshot: KnownId | None = Field(None, description="As it was then.")


class ItemsPage(BaseModel):
    items: list[ItemAnswer]
    next: str | None


class Chosen(Body):
    """Exactly one of `ids` and `filter`; the filter `{}` fits all."""

    ids: Ids | None = None
    filter: Filter | None = None

    @model_validator(mode="after")
    def _one(self) -> Chosen:
        self.exactly_one(("ids", "filter"))
        return self


class Patch(Body):
    metadata: Metadata = Field(description="Keys that replace those there are; null removes one.")


class Update(Chosen, Patch):
    """Which, and what."""


class Updated(BaseModel):
    updated: int


class Query(Body):
    """Exactly one of `text`, `image`, `video`, `vector` and `id`; or `image` and `text`, composed."""

    text: Text | None = None
    image: str | None = Field(None, description="A picture in base64, or as a data: URL.")
    video: str | None = Field(None, description="A clip in base64, or as a data: URL.")
    vector: Vector | None = None
    id: KnownId | None = Field(None, description="An item of the collection: more like this.")
    weight: float | None = Field(None, ge=0, le=1, description="Of the words beside an image; by default a half.")

    @model_validator(mode="after")
    def _one(self) -> Query:
        if self.image is not None and self.text is not None:
            self.exactly_one(("image", "video", "vector", "id"))
        else:
            self.exactly_one(("text", "image", "video", "vector", "id"))
            if self.weight is not None:
                raise ValueError("weight: expected an image and a text beside it")
        return self


class Options(Body):
    top: int = Field(10, ge=1)
    offset: int = Field(0, ge=0)
    filter: Filter | None = None
    min_score: FiniteFloat | None = None
    vectors: bool = Field(False, description="Whether hits come with their vectors.")
    hybrid: bool = Field(False, description="By words of the items' texts too; scores are of the joined order then.")
    snapshot: KnownId | None = Field(None, description="Of the collection as it was then.")


class Search(Options, Query):
    """One query."""

    rerank: int | None = Field(None, ge=1, description="So many of the best by words, looked at by the model again.")

    @model_validator(mode="after")
    def _by_words(self) -> Search:
        if self.rerank is not None and (self.text is None or self.image is not None or self.snapshot is not None):
            raise ValueError("rerank: expected a text alone, and no snapshot")
        return self


class Searches(Options):
    """Several queries with the same options."""

    queries: Annotated[list[Query], Field(min_length=1, fail_fast=True)]


OneOrManySearches: TypeAlias = Annotated[
    Annotated[Search, Tag("one")] | Annotated[Searches, Tag("many")], several("queries")
]


class Moment(BaseModel):
    start: float
    end: float


class HitAnswer(BaseModel):
    id: str
    score: float
    metadata: Metadata
    moment: Moment | None = Field(None, description="Of a clip: the seconds that are nearest to the query.")
    vector: list[float] | None = Field(default=None, description="Where it was asked for; of length 1.")
    match: float | None = Field(default=None, description="Of one that was looked at again: nats a token, at most 0.")


class Hits(BaseModel):
    hits: list[HitAnswer]


class ManyHits(BaseModel):
    results: list[Hits]


class NewCollection(Body):
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")
    model: Text | None = Field(None, description="One of `/v1/models`; by default the first.")


class CollectionAnswer(BaseModel):
    name: str
    count: int
    model: str
    width: int


class SetAside(BaseModel):
    """A folder among the collections that could not be opened; it stays as it is."""

    name: str
    reason: str


class CollectionsAnswer(BaseModel):
    collections: list[CollectionAnswer]
    set_aside: list[SetAside] = []


class Deleted(BaseModel):
    deleted: int

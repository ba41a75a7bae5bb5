"""What the page draws of an entry: HTML in which nothing that a caller sent is taken for markup."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from typing import Any

from vlm.server.http.addresses import API, address
from vlm.server.http.signing import Signer
from vlm.server.retrieval.reading import Held
from vlm.server.retrieval.schemas import HitAnswer, Moment


class Cards:
    """Pictures and clips come by addresses that are signed for a while: an `<img>` sends no key."""

    def __init__(self, signer: Signer) -> None:
        self._signer = signer

    def hit(self, collection: Held, hit: HitAnswer) -> str:
        """With its score, and a button to look for more like it."""
        seconds = f", at {hit.moment.start:.1f} s" if hit.moment is not None else ""
        label = f'<span class="score">{hit.score:.3f}</span>{_called(hit.id, hit.metadata)}{seconds}'
        return self._card(collection, hit.id, hit.metadata, label, {"like": "More like this"}, hit.moment)

    def entry(self, collection: Held, id: str, metadata: Mapping[str, Any]) -> str:
        """With buttons to open and to delete it."""
        return self._card(collection, id, metadata, _called(id, metadata), {"open": "Open", "delete": "Delete"})

    def opened(self, collection: Held, id: str, metadata: Mapping[str, Any]) -> str:
        """Large, with all that is known of it."""
        said = html.escape(json.dumps({"id": id, **metadata}, indent=1, ensure_ascii=False))
        return f'<div class="opened">{self._shown(collection, id, metadata, None)}<pre>{said}</pre></div>'

    def _card(
        self, collection: Held, id: str, metadata: Mapping[str, Any], label: str, buttons: dict[str, str],
        moment: Moment | None = None,
    ) -> str:  # fmt: skip
        of = html.escape(id, quote=True)
        row = "".join(f'<button type="button" data-{act}="{of}">{text}</button>' for act, text in buttons.items())
        shown = self._shown(collection, id, metadata, moment)
        row = f'<div class="both">{row}</div>' if len(buttons) > 1 else row
        return f'<figure data-id="{of}">{shown}<figcaption>{label}</figcaption>{row}</figure>'

    def _shown(self, collection: Held, id: str, metadata: Mapping[str, Any], moment: Moment | None) -> str:
        kind, at = collection.kind(id, metadata), (API, "collections", collection.name)
        if kind not in ("image", "video"):
            return f'<div class="words">{html.escape(str(metadata.get("_text", id)))}</div>'
        poster = html.escape(self._signer.signed(address(*at, "thumbnails", id)), quote=True)
        if kind == "image":
            name = html.escape(str(metadata.get("_name", "")), quote=True)
            return f'<img src="{poster}" alt="{name}" loading="lazy">'
        source = html.escape(self._signer.signed(address(*at, "videos", id)), quote=True)
        when = f"#t={moment.start:.2f},{moment.end:.2f}" if moment is not None else ""
        return f'<video controls muted preload="metadata" poster="{poster}" src="{source}{when}"></video>'


def _called(id: str, metadata: Mapping[str, Any]) -> str:
    return html.escape(str(metadata.get("_name") or id))

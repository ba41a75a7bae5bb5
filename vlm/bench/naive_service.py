"""The service that anybody would write in an hour, to measure ours against: FastAPI and faiss over the same model.

It forgets everything when it ends, refuses nothing and bounds nothing. `python -m vlm.bench.naive_service MODEL PORT`.
"""

from __future__ import annotations

import io
import sys

import faiss
import numpy as np
import uvicorn
from fastapi import Body, FastAPI, UploadFile
from PIL import Image

import vlm


def app_of(name: str) -> FastAPI:
    model = vlm.load(name, only=("images", "texts"), offline=True)
    app, ids = FastAPI(), list[str]()
    index = faiss.IndexFlatIP(model.embed_texts(["a"]).shape[1])

    @app.post("/items")
    def add(file: list[UploadFile]) -> dict[str, int]:
        pictures = [np.asarray(Image.open(io.BytesIO(each.file.read())).convert("RGB")) for each in file]
        index.add(model.embed_images(pictures))
        ids.extend(each.filename or "" for each in file)
        return {"count": len(ids)}

    @app.post("/search")
    def search(text: str = Body(embed=True), top: int = Body(10, embed=True)) -> list[tuple[str, float]]:
        scores, rows = index.search(model.embed_texts([text]), top)
        return [(ids[row], float(score)) for score, row in zip(scores[0], rows[0], strict=True) if 0 <= row < len(ids)]

    return app


if __name__ == "__main__":
    uvicorn.run(app_of(sys.argv[1]), port=int(sys.argv[2]), log_level="error")

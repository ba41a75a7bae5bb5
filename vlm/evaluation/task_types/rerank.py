"""Re-ranking: the best of a search by similarity, put in the order of how well the language model's words fit them.

Q queries, I pictures or clips, K of them looked at again, S shared width.
"""

from __future__ import annotations

import numpy as np

from vlm.errors import BadInput
from vlm.evaluation.figures import mean_figure
from vlm.evaluation.results import Sample
from vlm.evaluation.task_types.base import Job, Outcome
from vlm.evaluation.task_types.retrieval import TOP, unit

KS = (1, 5)


def run(job: Job) -> Outcome:
    """Recall in percent before and after, and the gain, whose interval is that of the paired differences.

    The queries are the first captions of `card.queries` examples spread evenly over the data; the candidates are all
    of it. Equal scores stay in the order of the search.
    """
    card, examples = job.card, job.examples
    if bare := next((e for e in examples if not e.captions), None):
        raise BadInput(f"benchmark {card.name}: picture {bare.id} has no captions; nothing could find it")
    rows_Q = np.linspace(0, len(examples) - 1, min(card.queries, len(examples))).round().astype(int).tolist()
    captions = [examples[row].captions[0] for row in rows_Q]
    media_IS = unit(job.model.media_vectors(examples, lambda done: job.progress(done // 2)))
    texts_QS = unit(job.model.text_vectors(captions))
    orders_QI = [
        np.argsort(-similarity_I, kind="stable").tolist()
        for similarity_BI in job.model.similarities(texts_QS, media_IS)
        for similarity_I in similarity_BI
    ]
    # Pairs of one picture next to each other, so that it is looked at once.
    pairs = sorted((row, query) for query, order_I in enumerate(orders_QI) for row in order_I[: card.top])
    half = len(examples) // 2
    matches = job.model.match_scores(
        [(examples[row], captions[query]) for row, query in pairs],
        lambda done: job.progress(half + (len(examples) - half) * done // len(pairs)),
    )
    match_of = dict(zip(pairs, matches, strict=True))

    names = [job.cluster(example) for example in examples]
    samples = []
    for query, (row, order_I) in enumerate(zip(rows_Q, orders_QI, strict=True)):
        first = sorted(order_I[: card.top], key=lambda picture: -match_of[picture, query])
        ranks = {"similarity": order_I.index(row) + 1, "match": [*first, *order_I[card.top :]].index(row) + 1}
        scores = {f"{way}_R@{k}": float(rank <= k) for way, rank in ranks.items() for k in KS}
        gains = {f"gain_R@{k}": scores[f"match_R@{k}"] - scores[f"similarity_R@{k}"] for k in KS}
        samples.append(
            Sample(
                id=f"{examples[row].id}#0",
                inputs={},
                prompt=captions[query],
                output=[{"item": names[i], "score": round(match_of[i, query], 4)} for i in first[:TOP]],
                prediction=names[first[0]],
                references=(names[row],),
                scores={"rank": float(ranks["match"]), **scores, **gains},
                cluster=names[row],
            )
        )
    figures = {
        key: mean_figure(
            samples, key, scale=100.0, bounds=(-1.0, 1.0) if key.startswith("gain") else (0.0, 1.0), joint=True
        )
        for key in samples[0].scores
        if key != "rank"
    }
    note = f"{len(samples)} texts, {len(examples)} pictures or clips, the best {card.top} of each looked at again"
    return Outcome(samples, "match_R@1", figures, notes=(note,))

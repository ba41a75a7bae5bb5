"""Multiple choice: the option a response names, read by the card's rule."""

from __future__ import annotations

from functools import partial
from string import ascii_uppercase

from vlm.datasets.examples import Example
from vlm.errors import BadInput
from vlm.evaluation.figures import by_category, mean_figure
from vlm.evaluation.requests import Turn
from vlm.evaluation.results import Sample
from vlm.evaluation.task_types.base import Job, Outcome
from vlm.metrics.choice import READERS, guess

PROMPT = "{question}\n{options}\nAnswer with the option's letter from the given choices directly."


def run(job: Job) -> Outcome:
    """Accuracy in percent. A circular benchmark counts a question if it is right under every rotation of its options
    (MMBench, Liu et al. 2023, section 4.1); its sample is the question, its output the replies in order.
    """
    for example in job.examples:
        if len(example.options) < 2 or not example.answers:
            raise BadInput(
                f"benchmark {job.card.name}: question {example.id} has {len(example.options)} options and "
                f"{len(example.answers)} answers; expected two or more and one"
            )
    turns = [
        _rotations(bare(e.options)) if job.card.circular else [_lettered(bare(e.options), 0)] for e in job.examples
    ]
    prompts = [[_prompt(job, e, options) for options in t] for e, t in zip(job.examples, turns, strict=True)]
    requests = [
        job.request(e, p, partial(_answered, job))
        for e, texts in zip(job.examples, prompts, strict=True)
        for p in texts
    ]
    read, guessing = READERS[job.card.reader], job.card.unreadable == "guess"
    replies = iter(job.model.answers(requests, job.progress))
    samples = []
    for example, options, texts in zip(job.examples, turns, prompts, strict=True):
        said = [next(replies) for _ in texts]
        letters = [read(reply, named) for reply, named in zip(said, options, strict=True)]
        unreadable = float(None in letters)
        if guessing:
            letters = [found or guess(options[turn], f"{example.id} {turn}") for turn, found in enumerate(letters)]
        # A rotated letter means another option: compare by the option's text.
        texts_of = bare(example.options)
        right = {texts_of[right_option(job, example, answer)] for answer in example.answers}
        hits = [named.get(letter or "") in right for letter, named in zip(letters, options, strict=True)]
        samples.append(
            Sample(
                id=example.id,
                inputs=job.inputs(example),
                prompt=texts[0],
                output=" | ".join(said),
                prediction=letters[0],
                references=example.answers,
                scores={"accuracy": float(all(hits)), "unreadable": unreadable},
                cluster=job.cluster(example),
                category=job.category(example),
            )
        )
    figures = {
        "accuracy": mean_figure(samples, "accuracy", scale=100.0),
        "unreadable": mean_figure(samples, "unreadable", scale=100.0),
    }
    chance = sum(1 / len(e.options) for e in job.examples) / len(job.examples)
    notes: tuple[str, ...] = () if job.card.circular else (f"a guess is right {100 * chance:.1f} % of the time",)
    notes += ("a reply that names no option counts as a guess",) if guessing else ()
    return Outcome(samples, "accuracy", figures, by_category(samples, {"accuracy": 100.0}), notes)


def _answered(job: Job, example: Example) -> Turn:
    """An example with the letter of its right option."""
    if not example.answers:
        raise BadInput(f"benchmark {job.card.name}: question {example.id} has no answer to be shown with it")
    return Turn(example, _prompt(job, example, _lettered(bare(example.options), 0)), example.answers[0])


def bare(options: tuple[str, ...]) -> tuple[str, ...]:
    """Options without the letters that some data sets write before each ("A. red", "(B) blue")."""
    marks = [(f"{letter}.", f"{letter})", f"({letter})", f"{letter}:") for letter in ascii_uppercase]
    own = [next((m for m in mark if o.startswith(m)), "") for o, mark in zip(options, marks, strict=False)]
    if len(own) < len(options) or not all(own):
        return options
    return tuple(option[len(mark) :].strip() or option for option, mark in zip(options, own, strict=True))


def _lettered(options: tuple[str, ...], shift: int) -> dict[str, str]:
    turned = options[shift:] + options[:shift]
    return dict(zip(ascii_uppercase, turned, strict=False))


def _rotations(options: tuple[str, ...]) -> list[dict[str, str]]:
    return [_lettered(options, shift) for shift in range(len(options))]


def _prompt(job: Job, example: Example, options: dict[str, str]) -> str:
    listed = "\n".join(f"{letter}. {text}" for letter, text in options.items())
    return job.fill(job.prompt or PROMPT, question=example.question, options=listed, hint=example.meta.get("hint", ""))


def right_option(job: Job, example: Example, answer: str) -> int:
    """The place of the option whose letter this is."""
    letters = ascii_uppercase[: len(example.options)]
    if len(answer) != 1 or answer not in letters:
        raise BadInput(
            f"benchmark {job.card.name}: question {example.id}: answer {answer!r}; expected one of {letters}"
        )
    return letters.index(answer)

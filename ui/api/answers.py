"""The answers of the endpoints: from checked fields to plain JSON."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing

from ramole_core import (
    AdapterCard,
    Busy,
    Fitting,
    Generation,
    Hit,
    Ramole,
    RamoleError,
    Request,
    Step,
    TokenLogprob,
    effects_record,
    parts_record,
)

from ..model.reading import HEARTBEAT_SECONDS, Reading
from .fields import MAX_PROMPTS, read_ask


def streamed(ramole: Ramole, request: Request, *, address: str = "") -> Iterator[tuple[str, dict]]:
    """(text so far, {}), while it waits ("", its place), and at the end (text, all about it)."""
    reading = Reading(ramole, [request], session=request.owner, address=address)
    with closing(reading.pictures()) as pictures:
        for _ in pictures:
            if not reading.ended.is_set():
                text = "".join(step.text for step in reading.steps[0])
                place, how = reading.places.get(0), reading.fittings.get(0)
                if how is not None and not text and how.step < how.steps:
                    yield text, {"fitting": _fitting(how)}
                else:
                    yield text, {"place": place} if place else {}
    answer = reading.answers[0]
    yield answer.text, how_of(answer, request, reading.steps[0])


def batched(
    ramole: Ramole,
    prompts: object,
    defaults: dict[str, object],
    *,
    owner: str | None,
    address: str = "",
) -> Iterator[list[dict | None]]:
    """The answers so far, in order, None for a running one; the last time they are all there.

    A bad prompt gets its sentence in the place of an answer, as in a file of prompts.
    """
    if not isinstance(prompts, list) or not prompts:
        raise RamoleError("prompts is not a list of prompts; pass a list of strings or objects.")
    if len(prompts) > MAX_PROMPTS:
        raise RamoleError(
            f"{len(prompts)} prompts came, and {MAX_PROMPTS} is the most; split them."
        )
    good: dict[int, Request] = {}
    told: dict[int, dict] = {}
    for place, row in enumerate(prompts):
        said = row if isinstance(row, dict) else {"prompt": row}
        try:
            request = read_ask(ramole, {**defaults, **said}, owner=owner)
            ramole.check(request)
            good[place] = request
        except RamoleError as error:
            told[place] = {"error": str(error)}
    count, said = -1, time.monotonic()
    for _ in _answer(ramole, good, told, owner=owner, address=address):
        if len(told) != count or time.monotonic() - said > HEARTBEAT_SECONDS:
            count, said = len(told), time.monotonic()
            yield [told.get(place) for place in range(len(prompts))]


def _answer(
    ramole: Ramole,
    good: Mapping[int, Request],
    told: dict[int, dict],
    *,
    owner: str | None,
    address: str,
) -> Iterator[None]:
    """Collect each request's events in `told`; yield whenever an update is due.

    `stream_batch` refuses all requests of a call for one that cannot run: such a call is halved
    until that one is found, as in a file of prompts.
    """
    parts = [list(good)] if good else []
    while parts:
        places = parts.pop()
        requests = [good[place] for place in places]
        reading = Reading(ramole, requests, session=owner, address=address)
        try:
            with closing(reading.pictures()) as pictures:
                for _ in pictures:
                    told.update(_ended(reading, places))
                    yield
        except RamoleError as error:
            told.update(_ended(reading, places))
            left = [place for place in places if place not in told]
            half, busy = len(left) // 2, isinstance(error, Busy)
            if busy and left == list(good):
                raise
            if half and not busy:
                parts += [left[half:], left[:half]]
            else:
                told.update(dict.fromkeys(left, {"error": str(error)}))
    yield


def _ended(reading: Reading, places: Sequence[int]) -> dict[int, dict]:
    """Return the finished answers by the index of their requests."""
    return {
        place: {"text": answer.text, **how_of(answer, request, reading.steps[n])}
        for n, (place, request) in enumerate(zip(places, reading.requests, strict=True))
        if (answer := reading.answers.get(n)) is not None
    }


def how_of(answer: Generation, request: Request, steps: Sequence[Step]) -> dict:
    """An answer without its text, as plain JSON."""
    pairs = zip(answer.adapters, answer.scores, strict=True)
    dropped = answer.extra.get("dropped_turns")
    return {
        "adapters": [{"name": name, "score": _finite(score)} for name, score in pairs],
        "method": answer.method or request.method,
        "finish_reason": answer.finish_reason,
        "prompt_tokens": answer.prompt_tokens,
        "new_tokens": answer.new_tokens,
        "token_ids": [*request.prefix_ids, *(step.token for step in steps)],
        **({"dropped_turns": int(dropped)} if dropped else {}),
        "seconds": _finite(answer.seconds),
        "first_token_seconds": _finite(answer.first_token_seconds),
        **({"weights": list(answer.weights)} if answer.weights else {}),
        **({"fitted": _fitting(answer.fitted)} if answer.fitted else {}),
        **effects_record(answer),
        **({"evidence": answer.evidence.record()} if answer.evidence else {}),
        **({"notes": list(answer.notes)} if answer.notes else {}),
        **({"parts": parts_record(answer)} if answer.parts else {}),
        **_logprobs("logprobs", [step.likelihood for step in steps]),
        **_logprobs("prompt_logprobs", answer.prompt_logprobs),
    }


def _logprobs(name: str, found: Sequence[TokenLogprob | None]) -> dict:
    """[token, log probability, [[token, log probability], ...]] each; empty where none were
    requested."""
    told = [[one.token, one.logprob, list(map(list, one.top))] for one in found if one is not None]
    return {name: told} if told else {}


def _fitting(how: Fitting) -> dict:
    """Return a search's progress, or its result."""
    pairs = zip(how.adapters, how.weights, strict=True)
    return {
        "step": how.step,
        "steps": how.steps,
        "weights": [{"name": name, "weight": round(weight, 6)} for name, weight in pairs],
        "loss": round(how.loss, 6),
        "start": round(how.start, 6),
    }


def hit_of(hit: Hit) -> dict:
    """One adapter found."""
    return {"name": hit.name, "score": _finite(hit.score)}


CARD_FIELDS = (
    *("name", "sample", "rank", "modules", "layers", "scale", "dtype", "parameters", "bytes"),
    *("sha256", "base_model", "licence", "description", "notes", "examples", "vector_from"),
    "added",
)


def card_of(card: AdapterCard, *, yours: bool) -> dict:
    """One adapter as JSON, without its folder on the server."""
    values = {name: getattr(card, name) for name in CARD_FIELDS}
    said = {name: list(one) if isinstance(one, tuple) else one for name, one in values.items()}
    return {**said, "yours": yours}


def _finite(number: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(number) else round(number, 4)

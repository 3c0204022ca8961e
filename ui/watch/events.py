"""Events of the page: an answer ended, a call was refused, an upload was added; and their counters.

The counters of prometheus-client always get them, and `/metrics` shows those; the log of requests
where the operator wants one. Of a whole process. Labels have few values, all of them ours: an
outcome, a reason, a method, a class of statuses.
"""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics

from ramole_core import Generation, Request

from .request_record import (
    ANSWERED,
    FAILED,
    REFUSED,
    RequestRecord,
    record_of,
    record_of_error,
)

disable_created_metrics()  # a time beside each number, which nobody reads
REGISTRY = CollectorRegistry()
FAST = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120)
"""Seconds: a first token of an idle server, up to a full one."""

REQUESTS = Counter(
    "ramole_requests",
    "Requests that ended, by how: eos, stop, length, cancelled, refused, failed",
    ["outcome"],
    registry=REGISTRY,
)
REFUSALS = Counter("ramole_refusals", "Refusals, by reason", ["reason"], registry=REGISTRY)
METHODS = Counter(
    "ramole_answers", "Answers that ended, by composition method", ["method"], registry=REGISTRY
)
TOKENS = Counter(
    "ramole_answer_tokens", "Tokens of answers that ended; its rate is tokens/s", registry=REGISTRY
)
PROMPT_TOKENS = Counter(
    "ramole_prompt_tokens", "Prompt tokens of answers that ended", registry=REGISTRY
)
FIRST_TOKEN = Histogram(
    "ramole_first_token_seconds",
    "From the queue to the first token",
    buckets=FAST,
    registry=REGISTRY,
)
WHOLE = Histogram(
    "ramole_answer_seconds",
    "From the queue to the last token",
    buckets=(*FAST, 300, 600),
    registry=REGISTRY,
)
EACH_TOKEN = Histogram(
    "ramole_token_seconds",
    "Between two tokens of an answer, on its average",
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
    registry=REGISTRY,
)
QUEUE = Histogram(
    "ramole_queue_seconds", "Waiting for a row of the batch", buckets=FAST, registry=REGISTRY
)
RETRIEVAL = Histogram(
    "ramole_retrieval_seconds",
    "Finding the adapters of a request and reading its prompt",
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
    registry=REGISTRY,
)
UPLOADS = Counter("ramole_uploads", "Uploads, by verdict", ["verdict"], registry=REGISTRY)
RESPONSES = Counter(
    "ramole_http_responses", "HTTP responses, by class of status", ["status"], registry=REGISTRY
)
CUT = Counter(
    "ramole_connections_cut",
    "Connections that were cut: waiting (said nothing whole), slow (read nothing), crowd",
    ["reason"],
    registry=REGISTRY,
)

for outcome in (*ANSWERED, REFUSED, FAILED):
    REQUESTS.labels(outcome)  # there from the start, at 0
for reason in ("busy", "invalid"):
    REFUSALS.labels(reason)


def count(told: RequestRecord) -> None:
    """Add a request that ended."""
    REQUESTS.labels(told.outcome).inc()
    if told.reason is not None:
        REFUSALS.labels(told.reason).inc()
    if told.method is not None:
        METHODS.labels(told.method).inc()
    TOKENS.inc(told.new_tokens or 0)
    PROMPT_TOKENS.inc(told.prompt_tokens or 0)
    if told.seconds is not None and told.first_token_seconds is not None:
        if (between := (told.new_tokens or 0) - 1) > 0:
            EACH_TOKEN.observe(max(0.0, told.seconds - told.first_token_seconds) / between)
    for histogram, seconds in (
        (FIRST_TOKEN, told.first_token_seconds),
        (WHOLE, told.seconds),
        (QUEUE, told.queue_seconds),
        (RETRIEVAL, told.retrieve_seconds),
    ):
        if seconds is not None:
            histogram.observe(seconds)


def uploaded(verdict: str) -> None:
    UPLOADS.labels(verdict.replace(" ", "_")).inc()


_listeners: list[Callable[[RequestRecord], None]] = [count]
_MARK = "told to the operator"


def listen(listener: Callable[[RequestRecord], None]) -> None:
    """Register `listener`, called in any thread with each request's record."""
    if listener not in _listeners:
        _listeners.append(listener)


def answered(request: Request, answer: Generation) -> None:
    _notify(record_of(request, answer))


def refused(error: BaseException) -> None:
    """Record a call's error, once however often it is reported."""
    if _MARK not in vars(error):
        vars(error)[_MARK] = True
        _notify(record_of_error(error))


def _notify(told: RequestRecord) -> None:
    for listener in list(_listeners):
        listener(told)

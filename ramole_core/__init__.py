"""RAMoLE: a pool of LoRA adapters as one model, retrieved per prompt and mixed per token.

The public names load on first use, so that a page can listen before torch is imported.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ramole_core.adapter_similarity import update_likeness as update_likeness
    from ramole_core.answer import (
        Selection as Selection,
        TokenLogprob as TokenLogprob,
        parts_record as parts_record,
    )
    from ramole_core.api_keys import (
        ApiKey as ApiKey,
        hash_of as hash_of,
        read_keys as read_keys,
        today as today,
    )
    from ramole_core.batch.prompt_file import batch_text as batch_text, read_batch as read_batch
    from ramole_core.batch.rows import (
        BadRow as BadRow,
        Batch as Batch,
        BatchLimits as BatchLimits,
        BatchRow as BatchRow,
    )
    from ramole_core.batch.run import refuse_unfit as refuse_unfit, run_rows as run_rows
    from ramole_core.contribution import (
        mean_contribution as mean_contribution,
        mean_weights as mean_weights,
    )
    from ramole_core.effects import (
        CHANGED as CHANGED,
        MAX_SHAPLEY as MAX_SHAPLEY,
        effect_shares as effect_shares,
        effects_record as effects_record,
    )
    from ramole_core.errors import (
        AdapterRefused as AdapterRefused,
        Busy as Busy,
        RamoleError as RamoleError,
        WrongField as WrongField,
    )
    from ramole_core.evidence import Evidence as Evidence
    from ramole_core.explaining import Explanation as Explanation
    from ramole_core.facts import (
        asked_fields as asked_fields,
        facts_of as facts_of,
        model_notes as model_notes,
        model_words as model_words,
    )
    from ramole_core.hub import Listed as Listed
    from ramole_core.methods import DEFAULT_METHOD as DEFAULT_METHOD
    from ramole_core.mixes import Mix as Mix
    from ramole_core.own_base import (
        MEASURED as MEASURED,
        TRAINING_STEPS as TRAINING_STEPS,
        untrained as untrained,
    )
    from ramole_core.pool import AdapterCard as AdapterCard
    from ramole_core.process_memory import (
        give_back as give_back,
        keep_few_heaps as keep_few_heaps,
        settle as settle,
    )
    from ramole_core.ramole import Ramole as Ramole
    from ramole_core.request import (
        Fitting as Fitting,
        Generation as Generation,
        Request as Request,
        Step as Step,
        Trace as Trace,
        askable_fields as askable_fields,
        read_request as read_request,
    )
    from ramole_core.request_parts import (
        Example as Example,
        read_example_lines as read_example_lines,
    )
    from ramole_core.retrieval import Hit as Hit
    from ramole_core.running_page import (
        announce_page as announce_page,
        withdraw_page as withdraw_page,
    )
    from ramole_core.settings import (
        Settings as Settings,
        load_settings as load_settings,
        shipped as shipped,
    )
    from ramole_core.trace_file import write_trace as write_trace

__version__ = "0.1.0"

_HOMES = {
    "AdapterCard": "pool",
    "AdapterRefused": "errors",
    "ApiKey": "api_keys",
    "BadRow": "batch.rows",
    "Batch": "batch.rows",
    "BatchLimits": "batch.rows",
    "BatchRow": "batch.rows",
    "Busy": "errors",
    "CHANGED": "effects",
    "DEFAULT_METHOD": "methods",
    "Evidence": "evidence",
    "Example": "request_parts",
    "Explanation": "explaining",
    "Fitting": "request",
    "Generation": "request",
    "Hit": "retrieval",
    "Listed": "hub",
    "MAX_SHAPLEY": "effects",
    "MEASURED": "own_base",
    "Mix": "mixes",
    "Ramole": "ramole",
    "RamoleError": "errors",
    "Request": "request",
    "Selection": "answer",
    "Settings": "settings",
    "Step": "request",
    "TRAINING_STEPS": "own_base",
    "TokenLogprob": "answer",
    "Trace": "request",
    "WrongField": "errors",
    "announce_page": "running_page",
    "asked_fields": "facts",
    "batch_text": "batch.prompt_file",
    "effect_shares": "effects",
    "effects_record": "effects",
    "facts_of": "facts",
    "give_back": "process_memory",
    "keep_few_heaps": "process_memory",
    "model_notes": "facts",
    "model_words": "facts",
    "hash_of": "api_keys",
    "load_settings": "settings",
    "mean_contribution": "contribution",
    "mean_weights": "contribution",
    "parts_record": "answer",
    "read_batch": "batch.prompt_file",
    "read_example_lines": "request_parts",
    "read_keys": "api_keys",
    "read_request": "request",
    "askable_fields": "request",
    "refuse_unfit": "batch.run",
    "run_rows": "batch.run",
    "settle": "process_memory",
    "shipped": "settings",
    "today": "api_keys",
    "untrained": "own_base",
    "update_likeness": "adapter_similarity",
    "withdraw_page": "running_page",
    "write_trace": "trace_file",
}
__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'ramole_core' has no attribute {name!r}")
    return getattr(import_module(f"ramole_core.{_HOMES[name]}"), name)

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
    from ramole_core.own_model import (
        MEASURED as MEASURED,
        TRAINING_STEPS as TRAINING_STEPS,
        untrained as untrained,
    )
    from ramole_core.pool import AdapterCard as AdapterCard
    from ramole_core.pool.examples_and_readme import (
        MAX_EXAMPLE as MAX_EXAMPLE,
    )
    from ramole_core.process_memory import (
        give_back as give_back,
        keep_few_heaps as keep_few_heaps,
        postponed_collection as postponed_collection,
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
    from ramole_core.text_file import read_text as read_text
    from ramole_core.trace_file import write_trace as write_trace

__version__ = "0.1.0"

_NAMES = {
    "adapter_similarity": "update_likeness",
    "answer": "Selection TokenLogprob parts_record",
    "api_keys": "ApiKey hash_of read_keys today",
    "batch.prompt_file": "batch_text read_batch",
    "batch.rows": "BadRow Batch BatchLimits BatchRow",
    "batch.run": "refuse_unfit run_rows",
    "contribution": "mean_contribution mean_weights",
    "effects": "CHANGED MAX_SHAPLEY effect_shares effects_record",
    "errors": "AdapterRefused Busy RamoleError WrongField",
    "evidence": "Evidence",
    "explaining": "Explanation",
    "facts": "asked_fields facts_of model_notes model_words",
    "hub": "Listed",
    "methods": "DEFAULT_METHOD",
    "mixes": "Mix",
    "own_model": "MEASURED TRAINING_STEPS untrained",
    "pool": "AdapterCard",
    "pool.examples_and_readme": "MAX_EXAMPLE",
    "process_memory": "give_back keep_few_heaps postponed_collection settle",
    "ramole": "Ramole",
    "request": "Fitting Generation Request Step Trace askable_fields read_request",
    "request_parts": "Example read_example_lines",
    "retrieval": "Hit",
    "running_page": "announce_page withdraw_page",
    "settings": "Settings load_settings shipped",
    "text_file": "read_text",
    "trace_file": "write_trace",
}
"""The public names, by the module that has them."""
_HOMES = {name: home for home, names in _NAMES.items() for name in names.split()}
__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'ramole_core' has no attribute {name!r}")
    return getattr(import_module(f"ramole_core.{_HOMES[name]}"), name)

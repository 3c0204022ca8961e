"""The endpoints over HTTP and MCP; clients read their docstrings.

A client is a session like a browser tab is: its uploads are its own, and go when it leaves. Each
call renews it: without one for `presence.IDLE_SECONDS` its uploads may make room for others', and
after `presence.GONE_SECONDS` they go.
"""

from collections.abc import Iterator, Mapping

import gradio as gr
from gradio.events import api

from ramole_core import DEFAULT_METHOD, AdapterRefused, Ramole, RamoleError

from ..model.spaces import gpu
from ..parts.errors import one_sentence
from ..pool.intake import judge
from ..session.quota import quota_of
from ..watch.events import RETRIEVAL
from .answers import batched, card_of, hit_of, streamed
from .asking import ask_endpoint, usual_length
from .fields import NamedFields, RetrieveFields, UploadFields, checked, read_ask, stored_path


class Endpoints:
    """The endpoints that Gradio calls by name; errors are one sentence.

    A stream's return type is that of one step, from which Gradio takes the number of outputs; type
    checkers expect an iterator there, so they are silenced.
    """

    def __init__(self, ramole: Ramole):
        self.ramole = ramole
        self.quota = quota_of(ramole)
        self.call = self.quota.presence.call

    def ask(self, given: Mapping[str, object], request: gr.Request | None) -> Iterator[tuple]:
        """Answer a prompt; the parameters are the fields of a request (`asking.py`)."""
        with one_sentence(markup=False), self.call(request) as visitor:
            asked = read_ask(self.ramole, given, owner=visitor.owner)
            yield from streamed(self.ramole, asked, address=visitor.address)

    def ask_batch(
        self,
        prompts: list[str | dict],
        method: str = DEFAULT_METHOD,
        k: int = 3,
        max_new_tokens: int | None = None,
        request: gr.Request | None = None,
    ) -> list[dict]:  # pyright: ignore[reportInvalidTypeForm] of one step
        """
        Answer several prompts in one batch, each with its own adapters and method. Streams the
        list of answers so far, null for one on its way. Waits while the model loads.

        Args:
            prompts: Up to 64; each a string, or an object with prompt and other parameters of /ask.
            method: For the prompts that name none: ramole_plus, ramole, mixture, base, ...
            k: How many adapters to retrieve for the prompts that do not say.
            max_new_tokens: The longest answer, in tokens, for the prompts that do not say; unset:
                128, or the server's limit where that is less.
        Returns:
            For each prompt, in order: text, adapters, method, finish_reason, tokens and seconds; or
            error, a sentence, for one that cannot be asked.
        """
        with one_sentence(markup=False), self.call(request) as visitor:
            length = usual_length(self.ramole) if max_new_tokens is None else max_new_tokens
            defaults = {"method": method, "k": k, "max_new_tokens": length}
            answers = batched(
                self.ramole, prompts, defaults, owner=visitor.owner, address=visitor.address
            )
            yield from answers  # pyright: ignore[reportReturnType] as above

    def retrieve(
        self,
        text: str,
        k: int = 3,
        exclude: list[str] | None = None,
        request: gr.Request | None = None,
    ) -> list[dict]:
        """
        Find the adapters of the pool that are nearest to a text, best first. Needs no model.

        Args:
            text: A prompt, or a description of the task.
            k: How many, 1 to 1000; fewer come back where the pool has fewer.
            exclude: Adapters to leave out, by name.
        Returns:
            A list of objects with name and score (cosine similarity, at most 1).
        """
        with one_sentence(markup=False), self.call(request) as visitor:
            said = checked(RetrieveFields, text=text, k=k, exclude=exclude)
            if not said.text.strip():
                raise RamoleError("The text is empty; give a prompt.")
            with RETRIEVAL.time():
                hits = self.ramole.retrieve(said.text, said.k, said.exclude or (), visitor.owner)
            return [hit_of(hit) for hit in hits]

    def list_adapters(self, request: gr.Request | None = None) -> list[dict]:
        """
        List the adapters that this session can use: the sample pool's and its own uploads.

        Returns:
            For each adapter: name, whether it is yours, its numbers, licence, notes and examples.
        """
        with one_sentence(markup=False), self.call(request) as visitor:
            owner = visitor.owner
            return [
                card_of(
                    card,
                    yours=self.quota.owns(card, owner) or (visitor.operator and not card.sample),
                )
                for card in self.ramole.pool.cards(owner)
            ]

    def add_adapter(
        self,
        file: gr.FileData,
        name: str | None = None,
        examples: list[str] | None = None,
        request: gr.Request | None = None,
    ) -> dict:
        """
        Add a LoRA adapter made with PEFT to this session's pool; it is gone when the session ends,
        or two hours after its last call; after five minutes without a call it may make room for
        others' where the server has none left. With an operator's key it is everyone's, and stays.

        Args:
            file: A zip with adapter_model.safetensors, adapter_config.json, maybe examples.jsonl.
            name: What to call it; without it, the zip's name.
            examples: Example inputs, by which it will be found.
        Returns:
            The new adapter as /list_adapters shows it, with a verdict and its nearest neighbours.
        """
        with one_sentence(markup=False), self.call(request) as visitor:
            said = checked(UploadFields, name=name, examples=examples)
            path = stored_path(file)
            (verdict,) = judge(
                self.ramole,
                self.quota,
                [path],
                owner=visitor.owner,
                address=visitor.address,
                name=said.name,
                examples=said.examples or (),
                operator=visitor.operator,
            )
            if verdict.card is None:
                raise AdapterRefused(verdict.reason)
            near = [hit_of(hit) for hit in verdict.neighbours]
            return {
                **card_of(verdict.card, yours=True),
                "verdict": verdict.outcome,
                "neighbours": near,
            }

    def remove_adapter(self, name: str, request: gr.Request | None = None) -> dict:
        """
        Remove an adapter that this session uploaded. The sample pool cannot be changed.

        Args:
            name: The adapter's name.
        Returns:
            An object with removed, the name.
        """
        with one_sentence(markup=False), self.call(request) as visitor:
            said = checked(NamedFields, name=name)
            if visitor.operator:
                self.quota.remove_shared(said.name)
            else:
                self.quota.remove(said.name, visitor.owner)
            return {"removed": said.name}


def endpoints(ramole: Ramole) -> None:
    """Register the endpoints in the Blocks that is open."""
    calls = Endpoints(ramole)
    for answering in (ask_endpoint(calls.ask, ramole), calls.ask_batch):
        api(gpu(120)(answering), concurrency_limit=None)
    for looking in (calls.retrieve, calls.list_adapters):
        api(looking, concurrency_limit=4)
    for changing in (calls.add_adapter, calls.remove_adapter):
        api(changing, concurrency_id="pool")

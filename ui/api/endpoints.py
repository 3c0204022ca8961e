"""The six endpoints over HTTP and MCP; their docstrings are what a client reads about them.

A client is a session like a browser tab is: its uploads are its own, and go when it leaves. Its
calls are its signs of life: without one for `presence.IDLE_SECONDS` its uploads may make room for
others', and after `presence.GONE_SECONDS` they go.
"""

import time
from typing import TYPE_CHECKING

import gradio as gr
from gradio.events import api

from ramole_core import DEFAULT_METHOD, AdapterRefused, RamoleError

from ..model.spaces import gpu
from ..parts.errors import one_sentence
from ..pool.intake import judge
from ..session.quota import quota_of
from ..watch.events import retrieved
from .answers import batched, card_of, hit_of, streamed
from .fields import (
    Ask,
    Named,
    Search,
    Upload,
    checked,
    refuse_unknown_options,
    stored_path,
)

if TYPE_CHECKING:
    from ramole_core import Ramole


class Endpoints:
    """The six endpoints: what Gradio calls, by name; each ends well or with one sentence.

    A stream's return type is that of one step, since from it Gradio learns how many outputs there
    are; a type checker wants an iterator there, and is told not to look.
    """

    def __init__(self, ramole: "Ramole"):
        self.ramole = ramole
        self.quota = quota_of(ramole)
        self.call = self.quota.presence.call

    def ask(
        self,
        prompt: str,
        method: str = DEFAULT_METHOD,
        k: int = 3,
        adapters: list[str] | None = None,
        weights: list[float] | None = None,
        exclude: list[str] | None = None,
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
        stop: list[str] | None = None,
        system: str | None = None,
        raw: bool = False,
        options: dict | str | None = None,
        history: list[list] | None = None,
        drop_turns: bool = False,
        prefix_ids: list[int] | None = None,
        without: list[list] | None = None,
        later_weights: dict | None = None,
        abstain: bool | None = None,
        examples: list[list] | None = None,
        mix: str | None = None,
        effects: bool = False,
        request: gr.Request | None = None,
    ) -> tuple[str, dict]:  # pyright: ignore[reportInvalidTypeForm] of one step
        """
        Answer a prompt with the adapters of the pool that fit it, mixed token by token. Streams the
        text so far; the last answer also has the adapters that were used and how it ended. Waits
        while the model loads, and in the queue where many ask at once: it then tells its place.
        Where weights are found on examples first, it tells the step and the loss so far.

        Args:
            prompt: The question or task.
            method: How to mix: {methods}.
            k: How many adapters to retrieve, 1 to 32; ignored when adapters are named.
            adapters: Exactly these adapters, by name; none are retrieved then.
            weights: One weight for each named adapter, in place of the method's own.
            exclude: Adapters that must not be retrieved.
            max_new_tokens: The longest answer, in tokens.
            temperature: 0 always takes the likeliest token; higher is more varied.
            top_p: Sample among the likeliest tokens that together have this probability.
            seed: Makes a sampled answer repeatable.
            stop: The answer ends before the first of these strings.
            system: A system prompt; without it, the chat template's own.
            raw: Continue the prompt as it is, without the chat template.
            options: The method's own options by name, as a JSON object. {options}.
            history: Earlier turns, oldest first: [user, assistant] or [user, assistant, adapters].
            drop_turns: Drop the oldest turns where the conversation does not fit the context.
            prefix_ids: Token ids of the answer that are given already; the answer goes on there.
            without: What is switched off: [adapter, layer, module], null for all of them.
            later_weights: Fixed weights by adapter from the last given token on.
            abstain: May the base answer where no adapter fits? Null: as the method does.
            examples: [input, target] pairs, about 5, to find the weights on: {fitting}.
            mix: A mix that the server kept, by name: its method, adapters and weights.
            effects: Tell what each adapter did to each token, in nats, and log probabilities.
        Returns:
            The text so far.
            An object with adapters, method, finish_reason, tokens, seconds; or its place, or empty.
        """
        with one_sentence(markup=False), self.call(request) as visitor:
            said = checked(
                Ask,
                prompt=prompt,
                method=method,
                k=k,
                adapters=adapters,
                weights=weights,
                exclude=exclude,
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                top_p=top_p,
                seed=seed,
                stop=stop,
                system=system,
                raw=raw,
                options=options,
                history=history,
                drop_turns=drop_turns,
                prefix_ids=prefix_ids,
                without=without,
                later_weights=later_weights,
                abstain=abstain,
                examples=examples,
                mix=mix,
                effects=effects,
            )
            refuse_unknown_options(self.ramole, said)
            answers = streamed(self.ramole, said.request(visitor.owner), address=visitor.address)
            yield from answers  # pyright: ignore[reportReturnType] as above

    def ask_batch(
        self,
        prompts: list[str | dict],
        method: str = DEFAULT_METHOD,
        k: int = 3,
        max_new_tokens: int = 128,
        request: gr.Request | None = None,
    ) -> list[dict]:  # pyright: ignore[reportInvalidTypeForm] of one step
        """
        Answer several prompts in one batch, each with its own adapters and method. Streams the
        list of answers so far, null for one on its way. Waits while the model loads.

        Args:
            prompts: Up to 64; each a string, or an object with prompt and other parameters of /ask.
            method: For the prompts that name none: ramole_plus, ramole, mixture, base, ...
            k: How many adapters to retrieve for the prompts that do not say.
            max_new_tokens: The longest answer, in tokens, for the prompts that do not say.
        Returns:
            For each prompt, in order: text, adapters, method, finish_reason, tokens and seconds.
        """
        with one_sentence(markup=False), self.call(request) as visitor:
            defaults = {"method": method, "k": k, "max_new_tokens": max_new_tokens}
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
            said = checked(Search, text=text, k=k, exclude=exclude)
            if not said.text.strip():
                raise RamoleError("The text is empty; give a prompt.")
            began = time.perf_counter()
            hits = self.ramole.retrieve(said.text, said.k, said.exclude or (), visitor.owner)
            retrieved(time.perf_counter() - began)
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
                card_of(card, yours=self.quota.owns(card, owner))
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
        others' where the server has none left.

        Args:
            file: A zip with adapter_model.safetensors, adapter_config.json, maybe examples.jsonl.
            name: What to call it; without it, the zip's name.
            examples: Example inputs, by which it will be found.
        Returns:
            The new adapter as /list_adapters shows it, with a verdict and its nearest neighbours.
        """
        with one_sentence(markup=False), self.call(request) as visitor:
            said = checked(Upload, name=name, examples=examples)
            path = stored_path(file)
            (verdict,) = judge(
                self.ramole,
                self.quota,
                [path],
                owner=visitor.owner,
                address=visitor.address,
                name=said.name,
                examples=said.examples or (),
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
            said = checked(Named, name=name)
            self.quota.remove(said.name, visitor.owner)
            return {"removed": said.name}


TEMPLATE = Endpoints.ask.__doc__ or ""
"""What the endpoint's description is made of: methods and options are the system's own."""


def _methods(ramole: "Ramole") -> str:
    return ", ".join(row.name for row in ramole.methods())


def _options(ramole: "Ramole") -> str:
    each = (
        f"{row.name}: {', '.join(map(str, row.options))}" for row in ramole.methods() if row.options
    )
    return "; ".join(each)


def endpoints(ramole: "Ramole") -> None:
    """Register the endpoints in the Blocks that is open."""
    Endpoints.ask.__doc__ = TEMPLATE.replace("{methods}", _methods(ramole)).replace(
        "{options}", _options(ramole)
    )
    fitting = ", ".join(row.name for row in ramole.methods() if row.fits)
    Endpoints.ask.__doc__ = Endpoints.ask.__doc__.replace("{fitting}", fitting)
    six = Endpoints(ramole)
    for answering in (six.ask, six.ask_batch):
        api(gpu(120)(answering), concurrency_limit=None)
    for looking in (six.retrieve, six.list_adapters):
        api(looking, concurrency_limit=4)
    for changing in (six.add_adapter, six.remove_adapter):
        api(changing, concurrency_id="pool")

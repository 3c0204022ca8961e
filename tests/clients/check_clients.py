"""OpenAI's own client, LangChain, LlamaIndex, `llm` and lm-evaluation-harness against the page.

Each is used as its documentation shows; what it sends beside is what it sends everywhere.
"""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel

CAPITALS = "Fix the capital letters: i live in paris"
ABOUT_ADA = "Ada is 36 years old and likes tea. Give her name and age as JSON."
METHOD = "ramole_plus"


class Person(BaseModel):
    """A person."""

    name: str
    age: int


# OpenAI's own


@pytest.fixture(scope="module")
def client(place):
    from openai import OpenAI

    with OpenAI(base_url=place.url, api_key="none", timeout=300) as client:
        yield client


def test_openai_chats_with_its_usual_parameters(client):
    told = client.chat.completions.create(
        model=METHOD,
        messages=[
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "name": "ann", "content": CAPITALS},
        ],
        max_tokens=4096,
        n=2,
        seed=-1,
        metadata={"run": "1"},
        logprobs=True,
        top_logprobs=2,
        extra_body={"top_k": 40, "min_p": 0.05, "repetition_penalty": 1.0, "mirostat": 0},
    )
    assert len(told.choices) == 2 and told.choices[0].message.content.startswith("I live in Paris")
    first = told.choices[0].logprobs.content[0]
    assert first.top_logprobs[0].logprob == first.logprob <= 0 and told.ramole["ignored"]


def test_openai_s_biases_and_penalties_change_the_answer(client):
    asked = {"model": "base", "messages": [{"role": "user", "content": "What is 2 plus 3?"}]}
    first, *_ = client.chat.completions.create(**asked, temperature=0).ramole["token_ids"]
    barred = client.chat.completions.create(**asked, temperature=0, logit_bias={str(first): -100})
    assert first not in barred.ramole["token_ids"]
    asked = {"model": "base", "prompt": "one two " * 12, "max_tokens": 24, "temperature": 0}
    plain = set(client.completions.create(**asked).choices[0].text.split())
    for penalties in (
        {"frequency_penalty": 2},
        {"presence_penalty": 2},
        {"extra_body": {"repetition_penalty": 1.8}},
    ):
        other = client.completions.create(**asked, **penalties).choices[0].text
        assert len(set(other.split())) > len(plain), (penalties, plain, other)


def test_openai_s_parse_gives_an_object_of_a_class(client):
    told = client.chat.completions.parse(
        model=METHOD,
        messages=[{"role": "user", "content": ABOUT_ADA}],
        response_format=Person,
        max_tokens=60,
    )
    assert told.choices[0].message.parsed == Person(name="Ada", age=36)
    parts = client.chat.completions.create(
        model="base",
        messages=[{"role": "user", "content": "A JSON object with one short field, please."}],
        response_format={"type": "json_object"},
        max_tokens=200,
        stream=True,
    )
    text = "".join(part.choices[0].delta.content or "" for part in parts)
    assert text.startswith("{")


def test_openai_refuses_tools_in_a_sentence(client):
    from openai import BadRequestError

    with pytest.raises(BadRequestError, match="calls no tools"):
        client.chat.completions.create(
            model=METHOD,
            messages=[{"role": "user", "content": "hi"}],
            tools=[{"type": "function", "function": {"name": "f", "parameters": {}}}],
        )


def test_openai_continues_a_text_and_embeds(client):
    told = client.completions.create(
        model="base", prompt="The capital of France is", echo=True, logprobs=1, max_tokens=1
    )
    assert told.choices[0].text == "The capital of France is Paris"
    assert told.choices[0].logprobs.token_logprobs[0] is None
    vectors = client.embeddings.create(model="retriever", input=["a cat", "a dog"]).data
    length = math.sqrt(sum(number**2 for number in vectors[0].embedding))
    assert len(vectors) == 2 and abs(length - 1) < 1e-3


# LangChain


def test_langchain_chats_streams_and_gives_objects(place):
    from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
    from langchain_openai import ChatOpenAI, OpenAIEmbeddings

    model = ChatOpenAI(model=METHOD, base_url=place.url, api_key="none", temperature=0)
    assert model.invoke(CAPITALS).content.startswith("I live in Paris")
    assert "".join(part.content for part in model.stream(CAPITALS)).startswith("I live in Paris")
    odd = [AIMessage("Hello!"), SystemMessage("Be brief."), HumanMessage("a"), HumanMessage("b")]
    assert isinstance(model.bind(max_tokens=5).invoke(odd).content, str)
    parsed = model.with_structured_output(Person, method="json_schema").invoke(ABOUT_ADA)
    assert parsed == Person(name="Ada", age=36)
    vectors = OpenAIEmbeddings(
        model="retriever", base_url=place.url, api_key="none", check_embedding_ctx_length=False
    )
    assert len(vectors.embed_query("a cat")) == len(vectors.embed_documents(["a", "b"])[1])


# LlamaIndex


def test_llama_index_chats_completes_and_streams(place):
    from llama_index.core.llms import ChatMessage
    from llama_index.llms.openai_like import OpenAILike

    said = {"model": METHOD, "api_base": place.url, "api_key": "none", "max_tokens": 40}
    model = OpenAILike(**said, is_chat_model=True)
    talk = [ChatMessage(role="system", content="Be brief."), ChatMessage(content=CAPITALS)]
    assert model.chat(talk).message.content
    assert model.complete(CAPITALS).text.startswith("I live in Paris")
    assert [*model.stream_complete(CAPITALS)][-1].text.startswith("I live in Paris")
    text = OpenAILike(**said | {"model": "base", "max_tokens": 1}, is_chat_model=False)
    assert text.complete("The capital of France is").text == " Paris"


# llm


def test_llm_prompts_and_gives_objects(place, tmp_path):
    (tmp_path / "extra-openai-models.yaml").write_text(
        f"- model_id: pool\n  model_name: {METHOD}\n  api_base: {place.url}\n"
        "  supports_schema: true\n",
        encoding="utf-8",
    )

    def llm(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "llm", "-m", "pool", *words, "--key", "none", "--no-log"],
            env=os.environ | {"LLM_USER_PATH": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    assert llm(CAPITALS, "-o", "max_tokens", "60").startswith("I live in Paris")
    said = json.loads(llm(ABOUT_ADA, "--schema", "name, age int", "-o", "max_tokens", "60"))
    assert (said["name"], said["age"]) == ("Ada", 36)  # its schema allows more


# lm-evaluation-harness

ROWS = [
    ("The capital of France is", ["Paris", "Rome", "Oslo"], 0),
    ("The capital of Italy is", ["Paris", "Rome", "Oslo"], 1),
    ("The opposite of hot is", ["cold", "table", "seven"], 0),
    ("Two plus two is", ["green", "four", "Spain"], 1),
]


def write_task(folder: Path, name: str, **words: object) -> None:
    """A task of the rows above, as lm-evaluation-harness reads it."""
    rows = folder / "rows.jsonl"
    lines = [json.dumps({"text": t, "choices": c, "gold": g}) for t, c, g in ROWS]
    rows.write_text("\n".join(lines), encoding="utf-8")
    task = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(rows)}},
        "test_split": "test",
        "doc_to_text": "{{text}}",
        **words,
    }
    (folder / f"{name}.yaml").write_text(json.dumps(task), encoding="utf-8")  # JSON is YAML


def tokenizer_for(folder: Path, given: Path) -> Path:
    """The tokenizer, as any version of transformers reads it."""
    name = "tokenizer.json"
    (folder / name).write_text((given / name).read_text(encoding="utf-8"), encoding="utf-8")
    said = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(said), encoding="utf-8")
    return folder


def test_lm_evaluation_harness_runs_a_local_task(place, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    write_task(
        tmp_path,
        "choose",
        output_type="multiple_choice",
        doc_to_choice="{{choices}}",
        doc_to_target="gold",
        metric_list=[{"metric": "acc"}],
    )
    write_task(
        tmp_path,
        "say",
        output_type="generate_until",
        doc_to_target=" {{choices[gold]}}",
        generation_kwargs={"until": ["\n", ".", ","], "max_gen_toks": 1},
        metric_list=[{"metric": "exact_match", "ignore_case": True, "ignore_punctuation": True}],
    )
    found = simple_evaluate(
        model="local-completions",
        model_args={
            "model": "base",
            "base_url": f"{place.url}/completions",
            "tokenizer": str(tokenizer_for(tmp_path, place.tokenizer)),
            "tokenizer_backend": "huggingface",
            "max_length": 2048,
            "num_concurrent": 1,
        },
        tasks=["choose", "say"],
        task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
        bootstrap_iters=0,
    )
    assert found["results"]["choose"]["acc,none"] == 1.0
    assert found["results"]["say"]["exact_match,none"] >= 0.25

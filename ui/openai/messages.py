"""`messages` as a conversation: by turns where they are in turn, else as the template has them."""

from dataclasses import dataclass, field

from ..api.fields import MAX_PROMPT, short
from .errors import Refused
from .parameters import has_half, shown

SYSTEM = ("system", "developer")
ROLES = (*SYSTEM, "user", "assistant")
READ_FIELDS = ("role", "content", "ramole", "name")
"""Fields of a message that are read, and the name, which templates have no place for."""
TOOLS = ("tool_calls", "function_call", "tool_call_id", "audio")
"""Fields that would make it another conversation."""


@dataclass(frozen=True)
class Message:
    role: str
    text: str
    adapters: list | None = None
    """Adapters of an answer, where it has them."""


@dataclass(frozen=True)
class Conversation:
    """A conversation of messages."""

    prompt: str
    """The last user message, for which adapters are found."""
    system: str | None = None
    history: list[list] = field(default_factory=list)
    """Earlier turns, as a request takes them."""
    messages: tuple[tuple[str, str], ...] = ()
    """All of them as (role, text), where they are not a system message or none, then user and
    assistant in turn, the user last."""
    ignored: tuple[str, ...] = ()
    """Fields that were ignored."""


def read_messages(given: object) -> Conversation:
    """The conversation; raises Refused where it is none."""
    if not isinstance(given, list) or not given:
        raise _refused(f"messages={short(given)}; give a list of objects with role and content")
    ignored: dict[str, None] = {}
    said = [_message(n, one, ignored) for n, one in enumerate(given)]
    system, talk = (said[0].text, said[1:]) if said[0].role == "system" else (None, said)
    if _in_turn(talk):
        turns = zip(talk[:-1:2], talk[1::2], strict=True)
        history = [
            [user.text, answer.text, *([] if answer.adapters is None else [answer.adapters])]
            for user, answer in turns
        ]
        return Conversation(talk[-1].text, system, history, ignored=tuple(ignored))
    asked = next((one for one in reversed(said) if one.role == "user"), said[-1])
    if (length := sum(len(one.text) for one in said)) > MAX_PROMPT:
        raise _refused(f"messages have {length} characters, and {MAX_PROMPT} is the most")
    if any(one.adapters is not None for one in said):  # only turns keep theirs
        ignored["messages.ramole"] = None
    messages = tuple((one.role, one.text) for one in said)
    return Conversation(asked.text, messages=messages, ignored=tuple(ignored))


def _in_turn(talk: list[Message]) -> bool:
    """User and assistant in turn, the user last, each with some text."""
    roles = ["user", "assistant"] * len(talk)
    in_turn = len(talk) % 2 == 1 and [one.role for one in talk] == roles[: len(talk)]
    return in_turn and all(one.text.strip() for one in talk[:-1:2])


def _message(n: int, one: object, ignored: dict[str, None]) -> Message:
    if not isinstance(one, dict):
        raise _refused(f"Message {n} is {short(one)}; give an object with role and content")
    role = one.get("role")
    if role in ("tool", "function"):
        raise _refused(f"Message {n} is a tool's, but the model calls no tools; leave it out")
    if role not in ROLES:
        raise _refused(f"Message {n} has role {short(role)}; give system, user or assistant")
    for name, value in one.items():
        if name in READ_FIELDS or value in (None, [], {}, ""):
            continue
        if name in TOOLS:
            raise _refused(f"Message {n} has {short(name)}, which is not used here; leave it out")
        ignored[f"messages.{shown(name)}"] = None
    role = "system" if role in SYSTEM else role
    content = one.get("content")
    text = "" if content is None and role == "assistant" else _text(n, content)
    return Message(role, text, _adapters(n, role, one.get("ramole")))


def _text(n: int, content: object) -> str:
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not isinstance(parts, list):
        raise _refused(f"Message {n} has content {short(content)}; give a text")
    texts = []
    for part in parts:
        text = part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None
        if not isinstance(text, str):
            raise _refused(f"Message {n} has a part that is no text: {short(part)}; leave it out")
        texts.append(text)
    text = "\n".join(texts)
    if has_half(text):
        raise _refused(f"Message {n} has half a character in it; send whole ones")
    return text


def _adapters(n: int, role: str, said: object) -> list | None:
    """`ramole.adapters` of an answer that comes back as an earlier turn."""
    if said is None:
        return None
    adapters = said.get("adapters") if isinstance(said, dict) else None
    if role != "assistant" or not isinstance(adapters, list):
        wanted = 'an answer may have {"adapters": [names]} there'
        raise _refused(f"Message {n} has ramole={short(said)}; {wanted}")
    return adapters


def _refused(sentence: str) -> Refused:
    return Refused(f"{sentence}.", param="messages")

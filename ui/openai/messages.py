"""`messages` as a conversation: a system message, earlier turns, and what is asked now."""

from dataclasses import dataclass

from .errors import Refused

SYSTEM = ("system", "developer")
ROLES = (*SYSTEM, "user", "assistant")
SAID = ("role", "content", "ramole")
"""Fields of a message that are read; others must say nothing."""
ORDER = "a system message or none, then user and assistant in turn, the user last"
LONGEST = 60


@dataclass(frozen=True)
class Message:
    """One of them."""

    role: str
    text: str
    adapters: list | None = None
    """Those that an answer had, where it says so."""


@dataclass(frozen=True)
class Conversation:
    """All of them."""

    system: str | None
    history: list[list]
    """Earlier turns, as a request takes them."""
    prompt: str


def read_messages(given: object) -> Conversation:
    """The conversation; raises Refused where it is none."""
    if not isinstance(given, list) or not given:
        raise _refused(f"messages={_short(given)}; give a list of objects with role and content")
    said = [_message(n, one) for n, one in enumerate(given)]
    system = said.pop(0).text if said[0].role in SYSTEM else None
    for n, one in enumerate(said, len(given) - len(said)):
        turn = n - (len(given) - len(said))
        if one.role != ("user", "assistant")[turn % 2]:
            raise _refused(f"Message {n} is the {one.role}'s out of turn; give {ORDER}")
    if len(said) % 2 == 0:
        raise _refused(f"The last message is not the user's; give {ORDER}")
    turns = zip(said[:-1:2], said[1::2], strict=True)
    history = [
        [user.text, answer.text, *([] if answer.adapters is None else [answer.adapters])]
        for user, answer in turns
    ]
    return Conversation(system, history, said[-1].text)


def _message(n: int, one: object) -> Message:
    if not isinstance(one, dict):
        raise _refused(f"Message {n} is {_short(one)}; give an object with role and content")
    role = one.get("role")
    if role not in ROLES:
        raise _refused(f"Message {n} has role {_short(role)}; give system, user or assistant")
    for name, value in one.items():
        if name not in SAID and value not in (None, [], {}):
            raise _refused(f"Message {n} has {_short(name)}, which is not used here; leave it out")
    return Message(role, _text(n, one.get("content")), _adapters(n, role, one.get("ramole")))


def _text(n: int, content: object) -> str:
    """A text, or a list of parts that are texts."""
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not isinstance(parts, list):
        raise _refused(f"Message {n} has content {_short(content)}; give a text")
    texts = []
    for part in parts:
        text = part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None
        if not isinstance(text, str):
            raise _refused(f"Message {n} has a part that is no text: {_short(part)}; leave it out")
        texts.append(text)
    text = "\n".join(texts)
    if not text.isascii() and text.encode("utf-8", "replace").decode() != text:
        raise _refused(f"Message {n} has half a character in it; send whole ones")
    return text


def _adapters(n: int, role: str, said: object) -> list | None:
    """`ramole.adapters` of an answer that comes back as an earlier turn."""
    if said is None:
        return None
    adapters = said.get("adapters") if isinstance(said, dict) else None
    if role != "assistant" or not isinstance(adapters, list):
        wanted = 'an answer may have {"adapters": [names]} there'
        raise _refused(f"Message {n} has ramole={_short(said)}; {wanted}")
    return adapters


def _refused(sentence: str) -> Refused:
    return Refused(f"{sentence}.", param="messages")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."

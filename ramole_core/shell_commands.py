"""Warn of an answer that is a shell command which deletes or overwrites files."""

import re

WARNING = "This command deletes or overwrites files; read it before you run it."
DESTROYS = r"rm|rmdir|unlink|shred|dd|mkfs(?:\.\w+)?|mv|truncate|wipefs"
HARMLESS = (
    "awk|cat|chgrp|chmod|chown|cp|cut|diff|du|echo|find|grep|egrep|gzip|gunzip|head|history|ls|"
    "printf|sed|seq|sort|tail|tar|tee|touch|tr|uniq|wc|xargs|zcat"
)
"""Commands that destroy nothing by themselves; with what stands behind them they may."""
LINE = re.compile(rf"^\s*(?:\$ )?(?:sudo\s+)?(?:{DESTROYS}|{HARMLESS})\b(?!\s+(?:is|are|was)\b)")
"""A line that is a command."""
NEXT = r"(?:^\s*(?:\$ )?|[|;&(`]\s*|-exec(?:dir)?\s+|-ok\s+|\bxargs\s+(?:-\S+\s+)*)(?:sudo\s+)?"
HARM = re.compile(
    rf"{NEXT}(?:{DESTROYS})\s|\s-delete\b|(?<![>&\d-])(?<!2)>\|?\s*(?!/dev/null|&|>)\S"
    r"|\bsed\s[^|]*\s?-i|\btee\s+(?!-a)\S|\bchmod\s+-R|\bchown\s+-R|\bcp\s"
)


def warn_of(text: str) -> tuple[str, ...]:
    """WARNING where a line of the text is such a command; else nothing."""
    lines = (line for line in text.splitlines() if LINE.match(line))
    return (WARNING,) if any(HARM.search(line) for line in lines) else ()

"""Keys of rank_pattern and alpha_pattern: PEFT's meaning, and little work whatever they say."""

import json
import re
from types import SimpleNamespace

import pytest
import re2
from hypothesis import given, settings, strategies as st

from ramole_core import AdapterRefused
from ramole_core.pool import patterns
from ramole_core.pool.config import MAX_CONFIG, read_config
from ramole_core.pool.patterns import MAX_STEPS, MAX_SYMBOLS
from tests.support.clocks import Spent

PATHS = [
    f"model.layers.{layer}.{module}"
    for layer in range(30)
    for module in (
        *(f"self_attn.{name}_proj" for name in "qkvo"),
        *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
    )
]
"""The 210 modules of the default base."""


def by_backtracking(keys: dict[str, float], path: str, default: float) -> float:
    """PEFT's own rule (`peft.utils.get_pattern_key`), the first key of the file first."""
    found = (n for key, n in keys.items() if re.match(rf"(.*\.)?({key})$", path))
    return next(found, default)


def read_all(keys: dict[str, float], field: str = "rank_pattern") -> list[float]:
    """What the configuration says of every module."""
    said = {"peft_type": "LORA", "r": 5, "lora_alpha": 6, field: keys}
    word = read_config(json.dumps(said).encode())
    if field == "rank_pattern":
        return [word.rank_of(path) for path in PATHS]
    return [word.scale_of(path, 1) for path in PATHS]


LEGITIMATE = {
    "a name each": {path: 1 + n for n, path in enumerate(PATHS)},
    "a name each, escaped": {re.escape(path): 1 + n for n, path in enumerate(PATHS)},
    "short names": {"q_proj": 2, "mlp.down_proj": 3, "down_proj": 4, "0.mlp.up_proj": 7},
    "layers": {r"layers\.[0-9]+\.self_attn\.q_proj": 2, r".*\.(1|2)\.mlp\.up_proj": 3},
    "a layer's expression each": {rf"layers\.{layer}\..*_proj": 1 + layer for layer in range(30)},
    "an expression each": {
        rf".*\.{path.split('.')[2]}\.[a-z_]+\.{path.rpartition('.')[2]}": 1 + n
        for n, path in enumerate(PATHS)
    },
    "everything": {".*": 9},
    "the first of two": {".*q_proj": 2, "q_proj": 3, ".*": 4},
    "a dot is any character": {"self.attn.q.proj": 2, "layers.1.mlp.up_proj": 3},
    "alternatives outside the group": {"q_proj|v_proj": 2, "x)|(.*k_proj": 3},
    "nothing": {"": 2, "proj": 3, "_proj": 4, "odel.layers.0.mlp.up_proj": 5},
}


@pytest.mark.parametrize("field", ["rank_pattern", "alpha_pattern"])
@pytest.mark.parametrize("name", LEGITIMATE)
def test_keys_mean_what_they_mean_to_peft(name, field):
    keys = LEGITIMATE[name]
    expected = [by_backtracking(keys, path, 5 if field == "rank_pattern" else 6) for path in PATHS]
    assert read_all(keys, field) == expected
    assert len(set(expected)) > 1 or name in ("everything", "nothing")


def test_a_name_each_for_thousands_of_modules_is_read():
    experts = {
        f"model.layers.{layer}.mlp.experts.{expert}.down_proj": 3
        for layer in range(32)
        for expert in range(128)
    }
    keys = dict([*experts.items()][:4000], **{"5.mlp.up_proj": 4})
    assert read_all(keys).count(4) == 1  # layer 5, not 15 or 25


PIECES = [
    "q_proj",
    "layers",
    ".",
    r"\.",
    ".*",
    "[0-9]+",
    "(1|2)",
    "mlp",
    "up",
    "_proj",
    "self_attn",
]
PIECES += ["model", "x?", "|", "^", "$", "-", "0", "1", "[^.]+", r"\w+", r"\d", "(?:q|k)"]
KEYS = st.lists(st.sampled_from(PIECES), max_size=6).map("".join)


@settings(max_examples=200, deadline=None)
@given(st.lists(KEYS, unique=True, max_size=6))
def test_any_keys_mean_what_they_mean_to_peft(keys):
    numbered = {key: 7 + n for n, key in enumerate(keys)}
    try:
        for key in keys:
            re.compile(rf"(.*\.)?({key})$")
    except re.error:
        return  # `|x?` after `*` and the like
    try:
        said = read_all(numbered)
    except AdapterRefused as refusal:
        assert "bad repetition operator" in str(refusal)  # `.*` and `+`
        return
    assert said == [by_backtracking(numbered, path, 5) for path in PATHS]


ATTACKS = {
    "empty repeats": lambda n: f"((.?){{99}}){{9}}{n}",
    "any repeats": lambda n: f"(.?){{99}}{n}",
    "counted": lambda n: f".*[a-m].{{{n % 100}}}{n}",
    "classes": lambda n: f".*([a-{chr(98 + n % 24)}]?.){{99}}{n}",
    "alternatives": lambda n: f".*([a-{chr(98 + n % 24)}]|[n-z]?){{200}}x{n}",
    "stars": lambda n: f"(.*[a-{chr(98 + n % 24)}]|.*){{50}}.*x{n}",
    "nested stars": lambda n: "((.*)*)*" * 20 + str(n),
    "Unicode classes": lambda n: r"[\PL\pL]" * 62 + str(n),
    "letters of either case": lambda n: "(?i:" + "[a-\U0010ffff]" * 90 + f"{n})",
    "letters of either case, by number": lambda n: r"(?i:[a-\x{10ffff}])" * 20 + f"{n}",
    "letters of either case, singly": lambda n: f"(?i:{chr(0x400 + n % 64) * 400}{n})",
    "small ones": lambda n: f".*{n}",
    "names": lambda n: f"model.layers.{n}.mlp.up_proj",
    "names of one length": lambda n: f"layers.{n:04d}.mlp.up_proj",
    "long names": lambda n: f"{'layers.' * 34}{n}",
    "dots": lambda n: "." * (n % 300) + f"x{n}",
    "only dots": lambda n: "." * 45 + f"{n:b}".replace("0", "a").replace("1", "."),
}


MAX_SECONDS = 6.0
"""Of a processor; it takes 0.3 at most, and PEFT's own rule for ever."""


@pytest.mark.parametrize(
    ("count", "field"), [(1, "rank_pattern"), (60, "alpha_pattern"), (4096, "rank_pattern")]
)
@pytest.mark.parametrize("attack", ATTACKS)
def test_the_work_of_all_keys_together_is_bounded(monkeypatch, attack, count, field):
    keys = [ATTACKS[attack](n) for n in range(count)]
    room = (MAX_CONFIG - 200) // max(len(json.dumps({key: 7})) for key in keys)
    keys = dict.fromkeys(keys[:room], 7)
    sizes, refused = [], None

    def compile_(*asked) -> object:
        sizes.append((found := re2.compile(*asked)).programsize)
        return found

    monkeypatch.setattr(patterns, "re2", SimpleNamespace(**vars(re2) | {"compile": compile_}))
    with Spent() as spent:
        try:
            read_all(keys, field)
        except AdapterRefused as refusal:
            refused = str(refusal)
    assert spent.seconds < MAX_SECONDS, (len(keys), spent.seconds)
    assert sum(sizes[:-1]) <= MAX_STEPS, "the one that is too much is the last"
    wild = [key for key in keys if not re.fullmatch(r"(\w|-|\\?\.)+", key)]
    if sum(sizes) > MAX_STEPS or sum(map(len, wild)) > MAX_SYMBOLS:
        assert refused is not None
    if refused is not None:
        assert "cannot compile" in refused or "more work" in refused
        assert refused.isprintable() and len(refused) < 400

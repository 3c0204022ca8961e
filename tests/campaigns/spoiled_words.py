"""What a stranger may do to an adapter's configuration, its card and its examples."""

import json

from tests.adapter_files import CONFIG
from tests.campaigns.upload import CHANGES_THE_EQUATION, JUNK, NESTED, Upload, flipped

# The configuration


def said(u: Upload, raw: str | bytes) -> None:
    u.files[CONFIG] = raw if isinstance(raw, bytes) else raw.encode("utf-8", "surrogatepass")


def put_junk_into_config(u: Upload) -> None:
    names = "r lora_alpha peft_type use_rslora rank_pattern alpha_pattern init_lora_weights bias"
    name = u.dice.choice([*names.split(), "base_model_name_or_path", "target_modules", "unknown"])
    u.config[name] = u.dice.choice(JUNK)


def change_equation(u: Upload) -> None:
    name = u.dice.choice(list(CHANGES_THE_EQUATION))
    u.config[name] = CHANGES_THE_EQUATION[name]
    u.refused = True


def say_absurd_scale(u: Upload) -> None:
    u.config["lora_alpha"] = u.dice.choice((-1, 0, 1e9, 10**400, "8", True))
    u.refused = True


def write_slow_pattern(u: Upload) -> None:
    slow = ("(a+)+$", "(.*)*x", "(((.+)+)+)+y", ".*" * 40 + "z", "(?=(\\w+)+)\\1!", "x" * 5000)
    kind = u.dice.choice(("rank_pattern", "alpha_pattern"))
    u.config[kind] = {u.dice.choice(slow): 2, u.dice.choice(slow) + "q": 3}


def write_many_patterns(u: Upload) -> None:
    u.config["rank_pattern"] = {f"layer{n}": n + 1 for n in range(u.dice.choice((999, 30_000)))}


def cut_config(u: Upload) -> None:
    raw = json.dumps(u.config)
    said(u, raw[: u.dice.randrange(len(raw))])
    u.refused = True


def flip_config(u: Upload) -> None:
    said(u, flipped(json.dumps(u.config).encode(), u.dice))


def write_odd_config(u: Upload) -> None:
    odd = (
        "",
        "[]",
        "null",
        "7",
        NESTED,
        '{"r": 2, "r": 3}',
        '{"r": NaN}',
        '{"a": "\ud800"}',
        "{" * 9,
    )
    said(u, u.dice.choice((*odd, " " * (2**20 + 1), b"\xff\xfe{\x00}\x00")))
    u.refused = True


# The words beside them


def write_odd_card(u: Upload) -> None:
    aliases = "a: &a [x,x]\n" + "".join(
        f"{c}: &{c} [*{b},*{b}]\n" for b, c in zip("abcdefgh", "bcdefghi", strict=True)
    )
    odd = (
        u.dice.randbytes(5000),
        b"---\n" + aliases.encode() + b"---\nwords\n",
        b"---\n!!python/object/apply:os.system ['true']\n---\nwords",
        b"---\nlicense: [mit, {a: b}]\n---\n" + b"#" * 50_000,
        b"<script>alert(1)</script><!--" * 2000,
        b"[" * 50_000 + b"](x)",
        b"**" * 50_000,
        b"\x00\x1b[31m\xe2\x80\xae words",
        b"a" * (2**20 + 1),
        b"",
    )
    u.files["README.md"] = u.dice.choice(odd)


def write_odd_examples(u: Upload) -> None:
    odd = (
        u.dice.randbytes(3000),
        b"{}\n" * 60_000,
        b'{"text": 7}\n{"text": null}\n{"text": ["a"]}\n',
        b'{"text": "' + b"x" * 400_000 + b'"}\n',
        NESTED.encode(),
        b'{"text": "\\ud800"}\n',
        b'{"text": ' + b"9" * 6000 + b"}\n",
        b"\n" * 500_000,
        b'{"text": "a"}' * 2000,
        b"",
    )
    u.files[u.dice.choice(("examples.jsonl", "examples.json"))] = u.dice.choice(odd)


def add_files(u: Upload) -> None:
    names = ("train.json", "manifest.json", "tokenizer.json", ".DS_Store", "a/b/c.txt", "x" * 200)
    u.files[u.dice.choice(names)] = u.dice.randbytes(300)

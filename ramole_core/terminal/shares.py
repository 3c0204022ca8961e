"""Each adapter's share of an answer, from its trace."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ramole_core.request import Generation


def shares_of(answer: "Generation") -> list[float]:
    """Each adapter's share, 0 to 1, the mean over the answer's tokens: of its effects where asked
    for, else of the contributions; empty where neither is known."""
    if answer.parts:
        total = sum(part.new_tokens for part in answer.parts)
        found = dict.fromkeys(answer.adapters, 0.0)
        for part in answer.parts:
            for name, share in zip(part.adapters, shares_of(part), strict=False):
                found[name] += share * part.new_tokens / total
        return list(found.values())
    if answer.effects is not None:
        from ramole_core.effects import effect_shares  # numpy is not there for `--help`

        return [float(share) for share in effect_shares(answer.effects).mean(0)]
    trace = answer.trace
    if trace is None:
        return []
    first = trace.prompt_length - 1  # it predicts the first token of the answer
    shares = trace.shares[first : len(trace.tokens) - 1, : len(answer.adapters)]
    return [float(share) for share in shares.mean(0)] if len(shares) else [0.0] * shares.shape[1]

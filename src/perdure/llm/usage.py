"""What model calls used, what it cost, and when it is enough."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from perdure.sidecar.ports import ChatReply

PER_MILLION = Decimal(1_000_000)


@dataclass(frozen=True, slots=True)
class Usage:
    """Sums over model calls; add with `+`. Tokens as the provider reported them."""

    model_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Input and output."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.model_calls + other.model_calls,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
        )

    @classmethod
    def of(cls, reply: ChatReply) -> Usage:
        """One call."""
        return cls(1, reply.input_tokens, reply.output_tokens)

    @classmethod
    def total(cls, parts: Iterable[Usage]) -> Usage:
        """All of them together."""
        return sum(parts, cls())


@dataclass(frozen=True, slots=True)
class Price:
    """Of a million tokens, in whatever currency the user counts in."""

    input_per_million: Decimal
    output_per_million: Decimal

    def cost(self, usage: Usage) -> Decimal:
        """What `usage` costs, exact."""
        spent = usage.input_tokens * self.input_per_million + usage.output_tokens * self.output_per_million
        return spent / PER_MILLION


@dataclass(frozen=True, slots=True)
class PriceTable:
    """Prices by model name, as the user configured them; perdure ships none, because they change."""

    prices: Mapping[str, Price] = field(default_factory=dict)

    def cost(self, used: Mapping[str, Usage]) -> Decimal | None:
        """What all models together cost; None when one that used tokens has no price."""
        total = Decimal(0)
        for model, usage in used.items():
            price = self.prices.get(model)
            if price is None and usage.total_tokens:
                return None
            total += price.cost(usage) if price else 0
        return total


@dataclass(frozen=True, slots=True)
class UsageLimits:
    """How much a turn may use; None: no limit."""

    model_calls: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    cost: Decimal | None = None

    def reached(self, usage: Usage, cost: Decimal | None = None) -> str | None:
        """The first limit that leaves no room for another call, in words; None when there is room."""
        for name in ("model_calls", "input_tokens", "output_tokens", "total_tokens"):
            limit, used = getattr(self, name), getattr(usage, name)
            if limit is not None and used >= limit:
                return f"{used} of {limit} {name.replace('_', ' ')} used"
        if self.cost is not None and cost is not None and cost >= self.cost:
            return f"cost of {cost} has reached the limit of {self.cost}"
        return None


def estimate_tokens(text: str) -> int:
    """About how many tokens `text` has: a quarter of its UTF-8 bytes, within some percent for prose."""
    return (len(text.encode(errors="replace")) + 3) // 4

"""What is asked of the sampler: a law, and completions drawn from it."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Sampling:
    """The law completions are drawn from.

    0, 1.0 and 0.0 switch top_k, top_p and min_p off; temperature 0 is greedy.

    Raises:
      ValueError: a setting outside its range.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    def __post_init__(self):
        rules = (
            (self.temperature >= 0, "temperature", "must be 0 (greedy) or more"),
            (
                self.top_k >= 0 and self.top_k == int(self.top_k),
                "top_k",
                "must be 0 (off) or a whole number above",
            ),
            (0 < self.top_p <= 1, "top_p", "must be in (0, 1]"),
            (0 <= self.min_p <= 1, "min_p", "must be in [0, 1]"),
        )
        errors = [f"{name}={getattr(self, name)!r} {must}" for ok, name, must in rules if not ok]
        if errors:
            raise ValueError("Sampling: " + "; ".join(errors) + ".")


@dataclasses.dataclass(frozen=True)
class Request:
    """One completion to draw. (seed, prompt, sample) is its address: it decides every draw."""

    prompt_ids: tuple[int, ...]
    seed: int
    prompt: int  # A 32-bit number that stands for the prompt, e.g. a hash of its id.
    sample: int
    sampling: Sampling
    stop_ids: tuple[int, ...]
    max_new_tokens: int
    stop_strings: tuple[str, ...] = ()  # A completion ends with the token that completes one.

    @property
    def size(self) -> int:
        """Tokens of the prompt plus the longest completion."""
        return len(self.prompt_ids) + self.max_new_tokens

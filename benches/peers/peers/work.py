"""What is measured, and how its outcome is written down."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Work:
    """Tokens made after each of `depths` tokens, and prompts of `prefill` tokens read at once."""

    depths: tuple[int, ...] = ()
    tokens: int = 64
    prefill: int = 0

    def names(self) -> list[str]:
        """One for each speed that the work has."""
        prefill = [f"prefill {self.prefill}"] if self.prefill else []
        return [f"decode at {depth}" for depth in self.depths] + prefill

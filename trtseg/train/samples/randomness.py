"""The randomness of a step of training, a pure function of where the step is."""

from __future__ import annotations

import numpy as np


class StepRandomness:
    """The randomness of one step, the same however many processes share the step's samples.

    Args:
        seed, stage, step: of the run; stages are counted from 0.
        first: number of the first of this process's prompts among all of the step.
    """

    def __init__(self, seed: int, stage: int, step: int, first: int = 0) -> None:
        self._key = [seed, stage, step]
        self._first = first
        self.shared = np.random.default_rng(self._key)

    @property
    def torch_seed(self) -> int:
        """For torch's own generator."""
        return int(np.random.SeedSequence([*self._key, self._first]).generate_state(1)[0])

    def of_prompt(self, index: int) -> np.random.Generator:
        """A generator that only this prompt uses."""
        return np.random.default_rng([*self._key, 1 + self._first + index])

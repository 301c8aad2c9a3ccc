"""A participant that is a program: the whole of a study without people."""

from __future__ import annotations

from typing import Any

import numpy as np

from trtseg.evaluate.clicks import make_clicker
from trtseg.runtime.session.outlines import from_rle
from trtseg.serve.users.study import UserStudy


def simulate(study: UserStudy, number: int, protocol: str = "latent-diversity") -> str:
    """Go through the whole study, clicking as a protocol does; returns the participant's id.

    `number` seeds the clicks. Where the protocol finds nothing to correct, the centre is clicked.
    """
    key = study.begin(simulated=True)
    state = study.state(key)
    while state["phase"] == "task":
        truth = study.truths[state["photo"]]
        name = f"{number}-{state['done']}-{state['tutorial']}"
        clicker = make_clicker(protocol, truth, seed=number, name=name)
        while not state["finished"]:
            click = clicker.next_click(_mask(state) if state["clicks"] else None)
            assert click is not None  # below the target, something is wrong somewhere
            state = study.click(key, click)
        state = study.next(key)
    study.answer(key, np.random.default_rng(number).integers(1, 6, 10).tolist())
    return key


def _mask(state: dict[str, Any]) -> np.ndarray:
    rle = state["rle"]
    return from_rle(tuple(rle["size"]), rle["counts"])

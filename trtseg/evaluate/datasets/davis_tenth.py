"""A tenth of the frames of DAVIS 2016, drawn at random as latent diversity's authors did.

Their draw was not published: this one is drawn anew, with the same seed each time. The 345 frames
of later papers (10 % of 3,455) are no draw that a rule gives back: they are distributed as `img/`
and `gt/`, which is layout "davis".
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from trtseg.evaluate.datasets.dataset import LabelledImage, Layout
from trtseg.evaluate.datasets.pairs import find_davis

SEED = 0


def find_tenth(root: Path, subset: str | None) -> list[LabelledImage]:
    """A tenth of the frames, at least one, in their order.

    Args:
        root, subset: as of layout "davis"; without a subset of all sequences.

    Raises:
        DatasetError: as of layout "davis".
    """
    frames = find_davis(root, subset)
    count = max(1, len(frames) // 10)
    drawn = np.random.default_rng(SEED).permutation(len(frames))[:count]
    return [frames[index] for index in sorted(drawn)]


# not single: a frame that the object has left has none
LAYOUTS = (Layout("davis-tenth", find_tenth),)

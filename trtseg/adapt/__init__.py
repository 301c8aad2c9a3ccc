"""Continuous adaptation (CA): corrections are training examples, learnt from while one clicks.

    segmenter.session(encoded, adapt=ClickAdapter(segmenter))   # learns from every click
    Sequence(segmenter, "both", state="job").image(image)       # and from every finished image

The only part of the product that needs torch.
"""

from trtseg.adapt.adapter import ClickAdapter, Learner
from trtseg.adapt.config import AdaptConfig, Learning
from trtseg.adapt.sequence import Sequence
from trtseg.adapt.weights import AdaptedWeights, Report

__all__ = [
    "AdaptConfig",
    "AdaptedWeights",
    "ClickAdapter",
    "Learner",
    "Learning",
    "Report",
    "Sequence",
]

"""Clicks on one object: what a session shows after each, how it is undone, what it gives back."""

from trtseg.runtime.session.prediction import Prediction
from trtseg.runtime.session.session import Session

__all__ = ["Prediction", "Session"]

"""Readers of labelled images: plain folders, and the layouts of published data sets.

`open_dataset` is the one entry point; every layout yields the same `Dataset`.
"""

from trtseg.evaluate.datasets.dataset import Dataset, LabelledImage, Sample
from trtseg.evaluate.datasets.layouts import LAYOUTS, detect_layout, open_dataset

__all__ = ["LAYOUTS", "Dataset", "LabelledImage", "Sample", "detect_layout", "open_dataset"]

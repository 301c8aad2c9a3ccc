"""Measuring interactive segmentation: data sets, simulated users, metrics, baselines, reports.

Nothing here imports torch; SciPy, scikit-image, PyMaxflow, pycocotools and matplotlib are
imported by the function that needs them.
"""

from trtseg.evaluate.datasets import Dataset, LabelledImage, Sample, open_dataset

__all__ = ["Dataset", "LabelledImage", "Sample", "open_dataset"]

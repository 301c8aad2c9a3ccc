"""The chain of networks and kernels: encode once, click cheaply."""

from trtseg.runtime.pipeline.pipeline import Candidates, Pipeline

__all__ = ["Candidates", "Pipeline"]

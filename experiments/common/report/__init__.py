"""All results on one page: what is there, read and checked (``contents``), and as HTML and Markdown (``pages``)."""

from experiments.common.report.command import main

__all__ = ["main"]

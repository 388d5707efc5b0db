"""Certscope's backend: training, certification, run folders and the results store. Draws nothing."""

__version__ = "0.1.0"

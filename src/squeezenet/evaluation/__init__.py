"""Accuracy, agreement and how to measure them on any MODEL."""

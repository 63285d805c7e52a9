"""SqueezeNet: train an image classifier, squeeze it below half a megabyte, run the same integers everywhere."""

__version__ = "0.1.0"

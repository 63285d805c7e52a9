"""Entropy coding of a network's integers: a range coder and the model that drives it."""

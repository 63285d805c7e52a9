"""Checks of photos before training: duplicates, leaks between splits, wrong labels, blank and blurred photos."""

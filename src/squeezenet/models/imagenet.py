"""The thousand ImageNet classes, in the order of the published networks' outputs.

Use this when a network comes with published weights, whose files name no classes.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from ..labels import Labels

__all__ = ["imagenet_labels"]

_CLASSES_FILE = Path(__file__).with_name("imagenet_classes.txt")  # a line a class: WordNet id, name, synonyms


@cache
def imagenet_labels() -> Labels:
    """Names and WordNet ids of the ImageNet-1k classes.

    Example:
        >>> labels = imagenet_labels()
        >>> len(labels), labels.ids[0], labels.names[0]
        (1000, 'n01440764', 'tench, Tinca tinca')
    """
    lines = _CLASSES_FILE.read_text(encoding="utf-8").splitlines()
    ids, names = zip(*(line.split(" ", 1) for line in lines), strict=True)
    return Labels(names, ids)

"""The classes of a network: names for people, ids for matching folders."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from .errors import DataError
from .text import match_key, nfc

__all__ = ["Labels", "imagenet_labels"]

_IMAGENET_CLASSES = Path(__file__).with_name("imagenet_classes.txt")  # one line per class: WordNet id, name, synonyms
_IMAGENET_SET = "imagenet-1k"


@dataclass(frozen=True)
class Labels:
    """Class names in output order and, if the data set has them, an id (such as a WordNet id) for each."""

    names: tuple[str, ...]
    ids: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check that there is one id per name, and that no two ids are the same."""
        if self.ids and len(self.ids) != len(self.names):
            raise DataError(f"expected one id for each of {len(self.names)} class names, got {len(self.ids)}")
        if len({match_key(id_) for id_ in self.ids}) < len(self.ids):
            raise DataError("expected a different id for each class, got one twice")

    def __len__(self) -> int:
        """Count the classes."""
        return len(self.names)

    def match(self, folders: Iterable[str]) -> dict[str, int]:
        """Map class folder names to output positions, by id, full name or any synonym; never by position.

        Exact matches have priority; otherwise, case, underscores, spaces and Unicode form are ignored. A name may list
        synonyms after commas ("tench, Tinca tinca").

        Raises:
            DataError: If a folder matches no class, or fits several classes equally well.
        """
        tables: list[tuple[Callable[[str], str], dict[str, set[int]]]] = []  # from the strictest on
        for key in (nfc, match_key):
            for texts in (self.ids, self.names):
                tables.append((key, _positions((key(text), index) for index, text in enumerate(texts))))
        synonyms = ((match_key(part), index) for index, name in enumerate(self.names) for part in name.split(","))
        tables.append((match_key, _positions(synonyms)))
        positions: dict[str, int] = {}
        for folder in folders:
            candidates = next((found for key, table in tables if (found := table.get(key(folder)))), set[int]())
            if len(candidates) != 1:
                problem = "matches no class" if not candidates else f"matches {len(candidates)} classes"
                example = ", id ".join(repr(texts[0]) for texts in (self.names, self.ids) if texts) or "none"
                raise DataError(
                    f"class folder {folder!r} {problem} of the model (such as {example}):"
                    " name folders after the model's class ids or names"
                )
            (positions[folder],) = candidates
        return positions

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; `from_dict` reads it back. The classes of ImageNet-1k are stored as the name of that
        set.
        """
        if len(self) == 1000 and self == imagenet_labels():
            return {"set": _IMAGENET_SET}
        return {"names": list(self.names), **({"ids": list(self.ids)} if self.ids else {})}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Labels:
        """Build from `to_dict`'s data.

        Raises:
            DataError: If names or ids are not lists of text, or the set of classes is not known.
        """
        if not isinstance(data, Mapping) or data.keys() not in ({"set"}, {"names"}, {"names", "ids"}):
            raise DataError("expected labels as `set` alone or as `names` (and `ids`)")
        if "set" in data:
            if data["set"] != _IMAGENET_SET:
                raise DataError(f"expected the class set {_IMAGENET_SET!r}, got {data['set']!r}")
            return imagenet_labels()
        lists = [data["names"], data.get("ids", [])]
        for values in lists:
            if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
                raise DataError("expected `names` (and `ids`) as lists of text")
        return cls(tuple(lists[0]), tuple(lists[1]))


@cache
def imagenet_labels() -> Labels:
    """Names and WordNet ids of the ImageNet-1k classes, in the order of the published networks' outputs.

    Example:
        >>> labels = imagenet_labels()
        >>> len(labels), labels.ids[0], labels.names[0]
        (1000, 'n01440764', 'tench, Tinca tinca')
    """
    lines = _IMAGENET_CLASSES.read_text(encoding="utf-8").splitlines()
    ids, names = zip(*(line.split(" ", 1) for line in lines), strict=True)
    return Labels(names, ids)


def _positions(keys: Iterable[tuple[str, int]]) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {}
    for key, index in keys:
        found.setdefault(key, set()).add(index)
    return found

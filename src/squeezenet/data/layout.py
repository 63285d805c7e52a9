"""Interpretation of a set's paths: rules that distinguish wrappers, splits, classes and junk.

docs/train.md describes these rules for users. No files are read here; `imageset.py` applies the rules to every source.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

__all__ = ["Layout", "Place", "Split", "junk_reason", "read_layout", "split_of"]

Split = Literal["train", "val", "test"]
_Parts = tuple[str, ...]

_SPLIT_NAME = re.compile(
    r"(?:(?P<train>train|training|trn)|(?P<val>val|valid|validation|dev|eval|evaluation)"
    r"|(?P<test>test|testing|tst|hold[-_ ]?out))"
    r"(?:[-_ ]?(?:set|data|split|images))?(?:[-_ ]?\d+)?"
)
_GENERIC = frozenset({"images", "imgs", "data"})
_FEW_LOOSE = 0.1  # share of the images in a folder that do not keep it from being a wrapper

_PHOTO_SERVER = "of a photo server"
_SYSTEM = "of an operating system"
_THUMBNAILS = "thumbnails: rename the folder if it is a class"
_JUNK_FOLDERS = {
    "@eadir": _PHOTO_SERVER, "#recycle": _PHOTO_SERVER, "#snapshot": _PHOTO_SERVER, "@recycle": _PHOTO_SERVER,
    "@recently-snapshot": _PHOTO_SERVER, "@tmp": _PHOTO_SERVER, "@transcode": _PHOTO_SERVER, "@__thumb": _PHOTO_SERVER,
    "__macosx": _SYSTEM, "$recycle.bin": _SYSTEM, "recycler": _SYSTEM, "system volume information": _SYSTEM,
    "lost+found": _SYSTEM, "network trash folder": _SYSTEM, "temporary items": _SYSTEM, "__pycache__": "of Python",
    "thumbs": _THUMBNAILS, "thumbnails": _THUMBNAILS, "_thumbs": _THUMBNAILS, "_thumbnails": _THUMBNAILS,
}  # fmt: skip
_JUNK_FILES = frozenset({"thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r"})


def junk_reason(name: str, *, is_folder: bool) -> str | None:
    """Return why a folder or file is ignored because of its name; None if it is not."""
    if name.startswith(".") and name != "..":
        return "hidden: rename the folder if it is a class" if is_folder else "a hidden file"
    if is_folder:
        return _JUNK_FOLDERS.get(name.casefold())
    return f"a file {_SYSTEM}" if name.casefold() in _JUNK_FILES else None


def split_of(folder: str) -> Split | None:
    """Return the split that a folder's name stands for; None if the name is not that of a split.

    Example:
        >>> split_of("Validation"), split_of("test_set"), split_of("train2017"), split_of("bullet_train")
        ('val', 'test', 'train', None)
    """
    found = _SPLIT_NAME.fullmatch(folder.casefold())
    return found.lastgroup if found else None  # type: ignore[return-value]


class Place(NamedTuple):
    """The meaning of a path: a split, if there are any, and a class; or the reason why it has no class."""

    split: Split | None
    class_name: str | None
    reason: str = "outside the class folders"


@dataclass(frozen=True)
class Layout:
    """The structure of the paths of one source."""

    depth: int = 0
    """Number of wrapper folders."""
    splits: dict[str, Split] = field(default_factory=dict)
    """Split folders; empty if the classes are on the first level."""
    inner: frozenset[str] = frozenset()
    """Split folders whose classes are one folder deeper."""
    has_splits_inside: bool = False
    """Whether the split folders are inside every class."""
    problem: str | None = None
    """Reason why the classes cannot be determined."""
    note: str | None = None
    """Remarks for people."""

    def place(self, parts: _Parts) -> Place:
        """Read a file's path."""
        rest = parts[self.depth :]
        split = None
        if self.splits:
            split = self.splits.get(rest[0]) if len(rest) > 1 else None
            if split is None:
                return Place(None, None, f"beside {_slashed(self.splits)}")
            rest = rest[2 if rest[0] in self.inner else 1 :]
        elif self.has_splits_inside and len(rest) > 2:
            split = split_of(rest[1])
        return Place(split, rest[0] if len(rest) > 1 else None)


def read_layout(paths: Sequence[_Parts]) -> Layout:
    """Determine the structure of the paths of a source's images.

    Args:
        paths: Parts of each path below the source's root; junk is not among them.
    """
    layout = _find_layout(paths)
    classes = {place.class_name for place in map(layout.place, paths) if place.class_name}
    named = sorted(name for name in classes if split_of(name))
    if layout.problem or not named:
        return layout if layout.problem else replace(layout, note=_note_of_same_folders(paths, layout))
    if len(named) == len(classes) or len({split_of(name) for name in named}) > 1:
        where, got = (layout.splits, _slashed(named)) if layout.splits else (named, "images")
        problem = f"expected class folders in {_slashed(where)}, got {got}: the folders must be <split>/<class>/<image>"
        return Layout(problem=problem)
    return replace(layout, note=f"{_slashed(named)} is taken for a class, since it lies beside other classes")


def _note_of_same_folders(paths: Sequence[_Parts], layout: Layout) -> str | None:
    """Doubt classes that all hold the same folders and nothing else, as parts of a set do: fold1/cat/, fold2/cat/."""
    if layout.splits or layout.has_splits_inside:
        return None
    inner: dict[str, set[str]] = {}
    for parts in (parts[layout.depth :] for parts in paths if len(parts) > layout.depth + 1):
        inner.setdefault(parts[0], set()).add(parts[1] if len(parts) > 2 else "")
    names, folders = [*inner], [*inner.values()]
    if len(names) < 2 or len(folders[0]) < 2 or "" in folders[0] or any(other != folders[0] for other in folders):
        return None
    return (
        f"{_slashed(names[:3])} are taken for classes, though each holds {_slashed(sorted(folders[0])[:3])}:"
        f" if those are the classes, name {names[0]}/ as DATA"
    )


def _find_layout(paths: Sequence[_Parts]) -> Layout:
    depth = _wrapper_depth(paths)
    groups = _by_folder(paths, depth)
    if splits := _find_splits(groups, depth):
        inner = {name for name in splits if _has_inner_wrapper(name, groups[name], depth + 1)}
        return Layout(depth, splits, frozenset(inner))
    middles = {split_of(parts[depth + 1]) for members in groups.values() for parts in members if len(parts) > depth + 2}
    if None in middles or len(middles) < 2:
        return Layout(depth)
    if all(len(parts) <= depth + 3 for parts in paths):
        return Layout(depth, has_splits_inside=True)
    names = _slashed(sorted(groups)[:3])
    return Layout(depth, problem=f"expected one set, got one in each of {names}: name one of them as DATA")


def _by_folder(paths: Sequence[_Parts], depth: int) -> dict[str, list[_Parts]]:
    groups: dict[str, list[_Parts]] = {}
    for parts in paths:
        if len(parts) > depth + 1:
            groups.setdefault(parts[depth], []).append(parts)
    return groups


def _wrapper_depth(paths: Sequence[_Parts]) -> int:
    """Count the folders around everything: each the only one, with further folders in it; loose images aside."""
    depth = 0
    while True:
        groups = _by_folder(paths, depth)
        if len(groups) != 1:
            return depth
        ((name, members),) = groups.items()
        inner = _by_folder(members, depth + 1)
        n_loose = sum(len(parts) == depth + 2 for parts in members)
        is_wrapper = not n_loose or (len(inner) > 1 and n_loose <= _FEW_LOOSE * len(members))
        if split_of(name) or not inner or not (is_wrapper or _find_splits(inner, depth + 1)):
            return depth
        depth += 1


def _find_splits(groups: dict[str, list[_Parts]], depth: int) -> dict[str, Split]:
    """Separate split folders, which hold class folders, from classes that only have the name of a split."""
    named = {name: split for name in groups if (split := split_of(name))}
    classes = {name: set(_by_folder(members, depth + 1)) for name, members in groups.items()}
    with_classes = [
        name for name in named
        if 2 * sum(len(parts) > depth + 2 for parts in groups[name]) >= len(groups[name])
    ]  # fmt: skip
    if not with_classes:
        return {}
    others = set(groups) - set(named)
    is_clear = not others or len({named[name] for name in with_classes}) > 1
    # One of several folders may be a class called "train", with subfolders like those of the other classes.
    is_likely = any(len(classes[name]) > 1 for name in with_classes) and not any(classes[name] for name in others)
    return named if is_clear or is_likely else {}


def _has_inner_wrapper(name: str, members: Sequence[_Parts], depth: int) -> bool:
    """Whether a split's classes are in a folder like train/train/ or train/images/."""
    inner = _by_folder(members, depth)
    only = next(iter(inner)) if len(inner) == 1 else ""
    is_named_so = only.casefold() in _GENERIC or (bool(only) and only.casefold() == name.casefold())
    return is_named_so and bool(_by_folder(inner[only], depth + 1))


def _slashed(names: Iterable[str]) -> str:
    *others, last = (f"{name}/" for name in sorted(names))
    return f"{', '.join(others)} and {last}" if others else last

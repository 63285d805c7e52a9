"""A page about photos that were checked: what was found, with thumbnails."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from ..checking.check import LOST_SHARE, PhotoCheck
from ..errors import ImageError
from ..files import atomic_write
from ..preprocess import load_image
from .pages import render

__all__ = ["write_check_page"]

MAX_GROUPS = 60
MAX_SUSPECTS = 80
MAX_OTHERS = 24
_THUMBNAIL = 144


class _Shown(NamedTuple):
    """A photo on the page."""

    name: str
    label: str
    note: str
    thumbnail: str
    frame: tuple[float, float, float, float] | None
    """Left, top, width and height of the part that the network sees, percent."""


def write_check_page(found: PhotoCheck, path: Path) -> None:
    """Write the page.

    Raises:
        MissingDependencyError: If Jinja2 is not installed.
        OSError: If the page cannot be written.
    """
    groups = [
        (
            "leak" if group.is_leak else "two labels" if group.is_contradiction else "",
            [_show(found, photo, found.splits[photo] or "") for photo in group.photos[:MAX_OTHERS]],
        )
        for group in sorted(found.duplicates, key=lambda group: (not group.is_leak, not group.is_contradiction))
    ]
    suspects = [
        _show(found, suspect.photo, f"looks like {suspect.looks_like}, {suspect.margin:.2f}")
        for suspect in found.suspects[:MAX_SUSPECTS]
    ]
    cut = [
        _show(found, photo, f"{100 * found.seen[photo]:.0f} % seen", is_framed=True)
        for photo in found.cut[:MAX_OTHERS]
    ]  # fmt: skip
    page = render(
        "check.html", found=found, summary=found.summary(), groups=groups[:MAX_GROUPS], suspects=suspects, cut=cut,
        blank=_show_all(found, found.blank), blurred=_show_all(found, found.blurred), lost=100 * LOST_SHARE,
        mean_lost=100 * (1 - sum(found.seen) / len(found.seen)), squash_lost=100 * (1 - found.seen_squashed),
    )  # fmt: skip
    with atomic_write(path) as stream:
        stream.write(page.encode("utf-8", "backslashreplace"))


def _show_all(found: PhotoCheck, photos: Iterable[int]) -> list[_Shown]:
    return [_show(found, photo, "") for photo in list(photos)[:MAX_OTHERS]]


def _show(found: PhotoCheck, photo: int, note: str, *, is_framed: bool = False) -> _Shown:
    name, label = found.names[photo], found.labels[photo] or ""
    try:
        image = load_image(found.images.read(photo))
    except ImageError:  # gone since it was checked
        return _Shown(name, label, note, "", None)
    frame = None
    if is_framed:
        how = found.preprocessing
        wide, high = how.resized_size(*image.size)
        width, height = (100 * min(1.0, how.crop_size / side) for side in (wide, high))
        frame = ((100 - width) / 2, (100 - height) / 2, width, height)
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    return _Shown(name, label, note, _data_url(image), frame)


def _data_url(image: Image.Image) -> str:
    encoded = io.BytesIO()
    image.convert("RGB").save(encoded, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.getvalue()).decode()}"

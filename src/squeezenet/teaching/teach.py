"""`squeezenet.teach`: compute a new head for the classes of a folder on a frozen network, in seconds, without
torch.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..classifier import Classifier, sqz_path
from ..data import DataSource, ImageSet, Unreadable, open_data
from ..data.imageset import open_train_and_val
from ..errors import DataError, FormatError
from ..evaluation.evaluate import Data, evaluate
from ..evaluation.features import collect_features
from ..fileformat import SqzFile, read_bytes, read_encoded
from ..files import write_together
from ..labels import Labels
from ..network import ConvParams
from ..progress import Reporter, reporter_of
from ..text import match_key
from ..unknown import UnknownFit, fit_unknown
from .adding import Added, add_photos
from .head import joined, network_digest, replace_head
from .native import fit
from .report import TeachResult, judge
from .solver import FeatureCode, Fit, kept_levels, quantize_head
from .taught import Lesson, decode_taught, encode_taught

__all__ = ["teach"]


def teach(
    photos: Data, *, on: str | os.PathLike[str], output: str | os.PathLike[str], keep: bool = False,
    foreign: DataSource | Sequence[DataSource] = (), val: Data | None = None, progress: Reporter | bool = False,
) -> TeachResult:  # fmt: skip
    """Compute a head for new classes on the frozen network of a `.sqz` file, in closed form; nothing is random.

    A `.taught` file with names and feature vectors of the photos is written beside `output`. If `on` already has such
    a file, photos and classes are added to those in it. The same photos give the same bytes in Python, in the exported
    page and in C (docs/teaching.md).

    Args:
        photos: Class folders with at least one photo per class. If the set has splits, `train` is used.
        on: The frozen network: a `.sqz` file or the name of a network of the package.
        output: The `.sqz` file to write; may be the same as `on`.
        keep: Keep the classes of the network beside the new ones.
        foreign: Photos that show none of the classes, to improve the rule for unknown photos.
        val: Labelled images to measure accuracy on; by default the split `val` of `photos`, if there is one.
        progress: A `Reporter` that shows progress, or whether to show it.

    Raises:
        ModelNotFoundError: If no network has this name or path, or it is a float network.
        FormatError: If the `.sqz` file or its `.taught` file is damaged.
        DataError: If the photos cannot be used.
        OSError: If a file cannot be written; existing files are then unchanged.

    Example:
        >>> import tempfile
        >>> from squeezenet import find_model, open_data
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     result = teach(open_data("digits", split="val"), on="cifar10", output=f"{folder}/digits.sqz")
        ...     sorted(path.name for path in Path(folder).iterdir()), result.accuracy.n_images
        (['digits.sqz', 'digits.taught'], 355)
    """
    start, reporter = time.perf_counter(), reporter_of(progress)
    path, output = sqz_path(on), _checked_output(output)
    data, contents = read_encoded(path)
    earlier = _earlier_lesson(path.with_suffix(".taught"), data, contents)
    lesson = _blank(data, contents, keep) if earlier is None else earlier
    _check_forgotten(lesson, path, contents, output, reporter)
    if foreign and lesson.kept:
        raise DataError(
            "expected no photos of something else with kept classes: a file with such has no rule for unknown"
        )
    images, val = _open(photos, val)
    added, unreadable = _read(lesson, contents, images, foreign, val, reporter)
    lesson = added.lesson
    fitted_at = time.perf_counter()
    new, head = _fit(lesson, contents)
    fit_seconds = time.perf_counter() - fitted_at
    unknown = _unknown(lesson, new)
    made = replace_head(data, contents, head, _meta(lesson, contents, new), unknown.rule.encode() if unknown else b"")
    write_together({output.with_suffix(".taught"): encode_taught(lesson), output: made})
    return TeachResult(
        path=output, file_bytes=len(made), lesson=lesson, fit=new, unknown=unknown, accuracy=judge(lesson, new),
        unreadable=unreadable, repeated=added.repeated, shared=added.shared,
        evaluation=None if val is None else evaluate(Classifier(output), val),
        fit_seconds=fit_seconds, seconds=time.perf_counter() - start,
    )  # fmt: skip


def _checked_output(output: str | os.PathLike[str]) -> Path:
    path = Path(output)
    if path.suffix != ".sqz":  # `x.taught` would take the place of what is kept of the photos
        raise DataError(f"expected an output named *.sqz, got {os.fspath(output)!r}")
    return path


def _open(photos: Data, val: Data | None) -> tuple[ImageSet, ImageSet | None]:
    """Find the photos, and the labelled images to measure with."""
    images, own_val = (photos, None) if isinstance(photos, ImageSet) else open_train_and_val(photos)
    if val is None or isinstance(val, ImageSet):
        return images, own_val if val is None else val
    return images, open_data(val, split="val")


def _read(
    lesson: Lesson, contents: SqzFile, images: ImageSet, foreign: DataSource | Sequence[DataSource],
    val: ImageSet | None, reporter: Reporter,
) -> tuple[Added, tuple[Unreadable, ...]]:  # fmt: skip
    """Look at photos, and add them to a lesson."""
    for remark in images.remarks():
        reporter.say(remark)
    classifier = Classifier(contents)
    found = collect_features(classifier, images, reporter)
    others = open_data(foreign, unlabelled=True) if foreign else None
    apart = collect_features(classifier, others, reporter) if others else None
    added = add_photos(lesson, images, found, others, apart)
    _check_classes(added.lesson, contents)
    if val is not None:  # classes that the new network will not have are said before anything is written
        Labels(_class_names(added.lesson, contents)).match(val.classes)
    return added, (*found.unreadable, *(apart.unreadable if apart else ()))


def _earlier_lesson(path: Path, data: bytes, contents: SqzFile) -> Lesson | None:
    if not path.exists():
        return None
    try:
        lesson = decode_taught(read_bytes(path))
    except FormatError as error:
        raise error.at(f"{path} (remove it to teach without the photos that it holds)") from None
    if lesson.network != network_digest(data, contents):
        raise DataError(
            "expected the photos of this network, got those of another: remove the file to teach without them",
            source=path,
        )
    if lesson.code != _code_of(contents) or lesson.codes.shape[1] != contents.network.spec.num_features:
        raise DataError("expected the feature codes of this network, got others: remove the file", source=path)
    if lesson.kept > (most := contents.network.spec.num_classes):
        raise DataError(f"expected at most {most} classes of the network to keep, got {lesson.kept}", source=path)
    return lesson


def _check_forgotten(lesson: Lesson, path: Path, contents: SqzFile, output: Path, reporter: Reporter) -> None:
    """Warn that classes taught earlier are lost without their `.taught` file."""
    provenance = contents.facts.get("provenance")
    if lesson.classes or lesson.kept or not isinstance(provenance, Mapping) or "taught" not in provenance:
        return
    missing = f"{path.with_suffix('.taught')}, which holds the photos that {path.name} was taught from, is missing"
    if output.exists() and output.samefile(path):
        raise DataError(f"{missing}: its classes would be lost; choose another output, or keep them (--keep)")
    reporter.say(f"{missing}: its classes are not kept (--keep keeps them)")


def _code_of(contents: SqzFile) -> FeatureCode:
    head = contents.network.spec.convs[-1]
    return FeatureCode.of(head.in_size**2, is_signed=contents.network.tensor(head.inputs[0]).zero_point != 0)


def _blank(data: bytes, contents: SqzFile, keep: bool) -> Lesson:
    nothing = np.empty((0, contents.network.spec.num_features), np.uint8)
    return Lesson(
        network=network_digest(data, contents), code=_code_of(contents), classes=(),
        kept=contents.network.spec.num_classes if keep else 0, labels=np.empty(0, np.int64), names=(), codes=nothing,
        foreign_names=(), foreign_codes=nothing,
    )  # fmt: skip


def _check_classes(lesson: Lesson, contents: SqzFile) -> None:
    if len(lesson.classes) + lesson.kept < 2:
        raise DataError(
            f"expected photos of at least two classes, got one, {lesson.classes[0]!r}:"
            " add a folder with photos of something else, or keep the network's classes beside it (--keep)"
        )
    if lesson.kept:
        kept = {match_key(part) for name in contents.class_names[: lesson.kept] for part in (name, *name.split(","))}
        if twice := [name for name in lesson.classes if match_key(name) in kept]:
            raise DataError(
                f"expected new classes to keep beside those of the network, got {twice[0]!r}, which it has:"
                " rename the folder"
            )


def _class_names(lesson: Lesson, contents: SqzFile) -> tuple[str, ...]:
    return (*contents.class_names[: lesson.kept], *lesson.classes)


def _fit(lesson: Lesson, contents: SqzFile) -> tuple[Fit, ConvParams]:
    head = contents.network.spec.convs[-1]
    positions, levels, kept = head.out_size**2, None, None
    if lesson.kept:
        old = contents.network.convs[head.name]
        kept = ConvParams(old.weight[: lesson.kept], old.bias[: lesson.kept], old.multiplier[: lesson.kept])
        levels = kept_levels(lesson.codes, lesson.code, kept, positions)
    new = fit(lesson.codes, lesson.code, lesson.labels, len(lesson.classes), levels)
    rounded = quantize_head(new, lesson.code, positions)
    return new, rounded if kept is None else joined(kept, rounded)


def _unknown(lesson: Lesson, new: Fit) -> UnknownFit | None:
    if lesson.kept:
        return None  # nothing is known of photos of the classes that are kept
    code = lesson.code
    vectors, strange = (code.decode(codes) << code.shift for codes in (lesson.codes, lesson.foreign_codes))
    right = new.scores.argmax(axis=1) == lesson.labels
    return fit_unknown(vectors, lesson.labels, counts=right, foreign=strange if len(strange) else None)


def _meta(lesson: Lesson, contents: SqzFile, new: Fit) -> dict[str, Any]:
    """The facts in the file: whole numbers and text only, so that every engine writes the same bytes."""
    counts = np.bincount(lesson.labels, minlength=len(lesson.classes)).tolist()
    right = int((new.scores.argmax(axis=1) == lesson.labels).sum())
    taught = {"exponent": new.exponent, "gain": new.gain, "kept": lesson.kept, "photos": counts, "right": right}
    meta: dict[str, Any] = {
        "labels": Labels(_class_names(lesson, contents)).to_dict(),
        "provenance": {"taught": taught},
    }
    if contents.preprocessing is not None:
        meta["preprocessing"] = contents.preprocessing.to_dict()
    if lesson.kept and "temperature" in contents.facts:
        meta["temperature"] = contents.facts["temperature"]
    return meta

"""`squeezenet.compress`: from a float network to a `.sqz` file and a report."""

from __future__ import annotations

import copy
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..classifier import Classifier
from ..data import ImageSet, Split, open_data
from ..data.holdout import known_part
from ..data.imageset import summed_up
from ..description import file_facts
from ..errors import CompressionError
from ..evaluation.comparison import AccuracyComparer, Comparison
from ..evaluation.confidence import measure_confidence, stored_bytes
from ..evaluation.evaluate import Data
from ..evaluation.predictor import FloatPredictor, Model, collect_logits
from ..fileformat import SqzFile, carried_facts, decode_sqz, encode_sqz, overhead_bytes
from ..files import write_together
from ..models import SqueezeNet, fold_batch_norm, load_model
from ..network import IntegerNetwork
from ..progress import Reporter, reporter_of
from ..quantization.photos import CalibrationPhotos, choose_calibration
from ..text import html_table
from ..unknown import MAX_VECTORS
from .methods import Int8, Method, RateDistortion
from .outcome import Job, Outcome, RDPoint
from .plot import plot_points
from .report import CompressionReport, Fidelity

__all__ = ["Compressed", "compress"]

_MAX_EXAMPLES = 2000  # images of `data` that vectors of the unknown rule are made of


@dataclass(frozen=True, kw_only=True)
class Compressed:
    """A compressed network and the report about it."""

    file: SqzFile
    """Contents of the file; `Classifier(result.file)` runs it."""
    encoded: bytes
    """The file."""
    report: CompressionReport

    @property
    def file_bytes(self) -> int:
        """Size of the file."""
        return len(self.encoded)

    @property
    def meets_target(self) -> bool:
        """Whether the budget was met; otherwise this is the closest file that was found."""
        return self.report.meets_target

    @property
    def points(self) -> tuple[RDPoint, ...]:
        """Every network that the search of `RateDistortion` evaluated."""
        return self.report.points

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write FILE, FILE.report.json and, if there are `points`, FILE.report.svg; either all of them or none.

        Raises:
            OSError: If they cannot be written; existing files are kept.
        """
        report = json.dumps(self.report.to_dict(), indent=1).encode()
        files = {Path(path): self.encoded, Path(f"{path}.report.json"): report}
        if self.points:
            files[Path(f"{path}.report.svg")] = self.plot()
        write_together(files)

    def plot(self) -> bytes:
        """Draw the networks that the search evaluated, as SVG."""
        kl = self.report.fidelity.kl if self.report.fidelity else None
        title = f"{self.file.network.spec.name}: networks the search looked at"
        return plot_points(self.points, file_bytes=self.file_bytes, kl=kl, title=title)

    def _repr_html_(self) -> str:
        return html_table((self.report.model, self.report.method), self.report.rows())


def compress(
    model: Model, output: str | os.PathLike[str] | None = None, *, method: Method | None = None,
    calibration: Data | None = None, n_photos: int = 250, data: Data | None = None, unlabelled: Data | None = None,
    val: Data | None = None, progress: Reporter | bool = True,
) -> Compressed:  # fmt: skip
    """Compress a trained network to a `.sqz` file.

    Args:
        model: The name or path of a MODEL (see `find_model`), or a torch model; it is not changed.
        output: The file to write, with its report beside it. By default nothing is written; use `Compressed.write`.
        method: `RateDistortion` (the default, with a largest KL of 0.05), `Int8` or `DeepCompression`, with options.
        calibration: Photos, labelled or not, on which scales and sensitivities are measured; a fifth is held out to
            measure fidelity. By default those of `data` or `unlabelled`, else published ranges or synthetic pictures.
        n_photos: Number of photos to calibrate on, evenly spaced over `calibration`; a few hundred are enough.
        data: Labelled images to train on.
        unlabelled: Photos without labels to distil on with `RateDistortion`, preferably thousands, and similar to
            those that will be classified. If KL on held-out calibration photos does not fall, distillation is
            discarded.
        val: Labelled images to measure accuracy on, and to fit a temperature and a rule for unknown photos.
        progress: A `Reporter` that shows progress, True for standard error, False for none.

    Returns:
        The file and its report. If a budget cannot be met, this is the closest file, and `meets_target` is False.

    Raises:
        CompressionError: If options contradict each other or the images; raised before anything is read.
        ModelNotFoundError: If there is no such model; see `open_model` for the others.
        DataError: If images cannot be used, or their classes are not those of the model.
        QuantizationError: If the network has no integer form, or there are too few photos.
        OSError: If the output cannot be written.

    Example:
        >>> from squeezenet import Int8
        >>> result = compress("imagenette", method=Int8(), calibration="digits", n_photos=20, progress=False)
        >>> result.meets_target, result.report.fidelity.n_images
        (True, 4)
    """
    start, chosen = time.monotonic(), method or RateDistortion()
    chosen.check(has_data=data is not None, has_unlabelled=unlabelled is not None, has_val=val is not None)
    if output is not None:
        _check_place(Path(output))
    reporter = reporter_of(progress)
    network = _float_model(model)
    inputs = _gather(network, chosen, calibration, n_photos, (data, unlabelled), val, reporter)
    outcome = chosen.run(_job(network, inputs, chosen, reporter))
    contents = SqzFile.of(network, outcome.network, **_described(chosen, inputs.photos))
    encoded, comparison = _judge(encode_sqz(contents, weights=outcome.weights), inputs)
    file = file_facts(encoded)
    report = CompressionReport(
        model=str(model) if isinstance(model, (str, os.PathLike)) else network.spec.name, method=chosen.name, file=file,
        fidelity=_fidelity(inputs, outcome, file.contents), comparison=comparison, layers_2016=outcome.layers_2016,
        points=outcome.points, seconds=time.monotonic() - start, calibration=inputs.photos.source,
        calibration_photos=0 if inputs.photos.is_synthetic else len(inputs.photos.pixels),
        is_chosen_on_val=isinstance(chosen, RateDistortion) and chosen.max_drop is not None,
        meets_target=outcome.meets_target, distilled=outcome.distilled,
    )  # fmt: skip
    compressed = Compressed(file=file.contents, encoded=encoded, report=report)
    if output is not None:
        compressed.write(output)
    return compressed


@dataclass(frozen=True)
class _Inputs:
    """The images of a compression by their purpose."""

    reference: FloatPredictor
    photos: CalibrationPhotos
    labelled: ImageSet | None
    unlabelled: ImageSet | None
    comparer: AccuracyComparer | None


def _gather(
    model: SqueezeNet, method: Method, calibration: Data | None, n_photos: int,
    to_train_on: tuple[Data | None, Data | None], val: Data | None, reporter: Reporter,
) -> _Inputs:  # fmt: skip
    data, photos_only = to_train_on
    labelled = unlabelled = None
    if photos_only is not None:
        unlabelled = _opened(photos_only, "train", reporter, unlabelled=True)
    if data is not None:
        labelled = known_part(_opened(data, "train", reporter), model.provenance, is_trained=True).images
    images = unlabelled if labelled is None else labelled
    if calibration is not None:
        images = _opened(calibration, "train", reporter, unlabelled=True)
    photos = choose_calibration(model, images, n_photos=n_photos, takes_ranges=isinstance(method, Int8))
    if photos.is_synthetic:
        reporter.say(f"no calibration photos: using {photos.source}; fidelity is not measured")
    if calibration is None:  # what fidelity is measured on is not trained on
        labelled, unlabelled = _without(labelled, photos), _without(unlabelled, photos)
    if labelled is not None and model.labels is not None:
        labelled = labelled.relabel(model.labels.match(labelled.classes), model.labels.names)
    reference = FloatPredictor(model)
    comparer = None
    if val is not None:
        held = known_part(_opened(val, "val", reporter), model.provenance)
        if held.note:
            reporter.say(f"--val: {held.note}")
        comparer = AccuracyComparer(reference, held.images)
    skipped = [*photos.unreadable, *(comparer.unreadable if comparer else ())]
    for line in summed_up("unreadable, skipped", [f"{name} ({reason})" for name, reason in skipped]):
        reporter.say(line)
    return _Inputs(reference, photos, labelled, unlabelled, comparer)


def _without(images: ImageSet | None, photos: CalibrationPhotos) -> ImageSet | None:
    """Leave out the photos that are set aside, of the set that they come from."""
    if images is None:
        return None
    return images.subset(np.setdiff1d(np.arange(len(images)), photos.held_out_indices).tolist())


def _job(model: SqueezeNet, inputs: _Inputs, method: Method, reporter: Reporter) -> Job:
    facts = carried_facts(model.provenance, _described(method, inputs.photos))
    overhead = overhead_bytes(model.spec, model.labels, model.preprocessing, facts)
    comparer = inputs.comparer

    def points_lost(network: IntegerNetwork) -> float:
        assert comparer
        file = SqzFile(network=network, labels=model.labels, preprocessing=model.preprocessing)
        return comparer(Classifier(file)).points_lost

    return Job(
        model=model, photos=inputs.photos, data=inputs.labelled, unlabelled=inputs.unlabelled,
        points_lost=points_lost if comparer else None,
        overhead_bytes=overhead + (stored_bytes(model.spec) if comparer else 0), reporter=reporter,
    )  # fmt: skip


def _check_place(output: Path) -> None:
    """Raise if the output cannot be written, before minutes of work."""
    if not output.parent.is_dir():
        raise CompressionError(f"expected a folder to write to, got {str(output.parent)!r}: create it first")
    if output.exists() and not output.is_file():
        raise CompressionError(f"expected a file to write, got a folder or a device: {str(output)!r}")
    if not os.access(output.parent, os.W_OK):
        raise CompressionError(f"expected a folder that can be written to, got {str(output.parent)!r}")


def _float_model(model: Model) -> SqueezeNet:
    # A copy: the caller's own may be in training.
    network = copy.deepcopy(model).cpu() if isinstance(model, SqueezeNet) else load_model(model)
    network.eval()
    return fold_batch_norm(network)


def _opened(data: Data, split: Split, reporter: Reporter, *, unlabelled: bool = False) -> ImageSet:
    if isinstance(data, ImageSet):
        return data
    images = open_data(data, split=split, unlabelled=unlabelled)
    for remark in images.remarks():
        reporter.say(remark)
    return images


def _described(method: Method, photos: CalibrationPhotos) -> dict[str, str]:
    """Description of a compression, for the provenance."""
    return {"preset": method.name, **({"calibration": photos.source} if photos.is_synthetic else {})}


def _judge(encoded: bytes, inputs: _Inputs) -> tuple[bytes, Comparison | None]:
    """Measure accuracy on the decoded file, and store a temperature and a rule for unknown photos."""
    if inputs.comparer is None:
        return encoded, None
    classifier = Classifier(decode_sqz(encoded))
    comparison, examples = inputs.comparer(classifier), None
    if inputs.labelled is not None and classifier.spec.num_classes <= MAX_VECTORS:
        examples = collect_logits(classifier, inputs.labelled.sample(_MAX_EXAMPLES))
    return measure_confidence(comparison.compressed, examples=examples).stored_in(encoded), comparison


def _fidelity(inputs: _Inputs, outcome: Outcome, file: SqzFile) -> Fidelity | None:
    held_out = inputs.photos.held_out
    if not len(held_out):
        return None
    logits = Classifier(file).logits(held_out) if outcome.held_out_logits is None else outcome.held_out_logits
    return Fidelity.of(inputs.reference.logits(held_out), logits)

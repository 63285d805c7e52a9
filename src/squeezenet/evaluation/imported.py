"""`squeezenet.import_weights`: networks of other programs, and the preprocessing that suits them best."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..data import ImageSet, open_data
from ..errors import WeightsError
from ..imports import CONVENTIONS, Convention, ForeignNetwork, read_foreign
from ..labels import Labels
from ..preprocess import Preprocessing
from ..spec import Bypass
from ..text import html_table
from ..zoo import find_model
from .evaluate import Data
from .metrics import Accuracy
from .predictor import FloatPredictor, collect_logits, match_classes

if TYPE_CHECKING:
    from ..models import SqueezeNet

__all__ = ["Imported", "Trial", "import_weights"]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One preprocessing, with its accuracy on labelled photos."""

    convention: str
    """Its name: `torchvision`, `caffe`, `keras`, ..."""
    is_bgr: bool
    """Whether images were given to the network in the channel order blue, green, red."""
    preprocessing: Preprocessing
    accuracy: Accuracy


@dataclass(frozen=True, kw_only=True)
class Imported:
    """An imported network."""

    model: SqueezeNet
    """The network in eval mode, with labels and preprocessing if these are known."""
    format: str
    """`torch`, `onnx`, `keras`, `caffe`, `ncnn`, `tflite`, `safetensors` or `net`."""
    names: str
    """The naming scheme of the weights in the file, such as torchvision's."""
    preprocessing_from: str
    """How the preprocessing was found, or that it is a guess."""
    notes: tuple[str, ...] = ()
    """Notes on what was ignored or assumed."""
    trials: tuple[Trial, ...] = ()
    """All preprocessings that were tried, if photos were given; the model has the best one."""

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the network as `.safetensors`; raises `OSError` if that fails."""
        from ..models import save_safetensors

        save_safetensors(self.model, path)

    def rows(self) -> list[tuple[str, str, str]]:
        """Rows of a table of the trials: convention, top-1, correct of all."""
        return [
            (
                trial.convention,
                f"{trial.accuracy.top1:.1f} %",
                f"{trial.accuracy.top1_correct} of {trial.accuracy.n_images}",
            )
            for trial in self.trials
        ]

    def _repr_html_(self) -> str:
        return html_table(("preprocessing", "top1", "right"), self.rows())


def import_weights(
    source: str | os.PathLike[str],
    *,
    check: Data | None = None,
    labels: Labels | None = None,
    bypass: Bypass = "none",
    n_photos: int = 200,
) -> Imported:
    """Read a SqueezeNet from a file of torch, ONNX, Keras, Caffe, ncnn or TFLite, without running code from it.

    Args:
        source: The file: a state dict or checkpoint of torch (also of Lightning), `.onnx`, `.keras`, `.h5`,
            `.caffemodel`, `.param` or `.bin` of ncnn, `.tflite`, `.safetensors`, or the authors' `.net`.
        check: Labelled photos on which the usual preprocessings are tried; the best one is used. By default the
            preprocessing is that of the file's origin, if this is known.
        labels: Names of the classes; those of ImageNet by default, if there are 1,000.
        bypass: `simple` for a torch state dict of a network with a simple bypass, which has no tensors.
        n_photos: Number of photos of `check` to use, evenly spaced.

    Raises:
        WeightsError: If the file cannot be read, or is not a SqueezeNet; the message states where it differs.
        DataError: If the photos cannot be used, or their classes are not those of the network.
        ModelNotFoundError: If there is no such file.
        MissingDependencyError: If the format needs a package that is not installed.

    Example:
        >>> import tempfile, torch
        >>> from squeezenet import create_model
        >>> model = create_model("squeezenet1_1", num_classes=3)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save({"state_dict": model.state_dict()}, f"{folder}/net.ckpt")
        ...     import_weights(f"{folder}/net.ckpt").model.spec.name
        'squeezenet1_1'
    """
    from ..models import model_from_foreign

    foreign = _read(source, bypass)
    if labels is not None:
        if len(labels) != foreign.spec.num_classes:
            raise WeightsError(f"expected {foreign.spec.num_classes} labels, got {len(labels)}", source=source)
        foreign = dataclasses.replace(foreign, labels=labels)
    convention, origin, trials = foreign.convention, foreign.convention_from, tuple[Trial, ...]()
    if check is not None:
        tried = sorted(_trials(foreign, check, n_photos), key=lambda pair: -pair[1].accuracy.top1_correct)
        convention, trials = tried[0][0], tuple(trial for _, trial in tried)
        origin = f"the best of {len(trials)} on {trials[0].accuracy.n_images} photos"
    return Imported(
        model=model_from_foreign(foreign, convention).eval(), format=foreign.format, names=foreign.names,
        preprocessing_from=origin, notes=foreign.notes, trials=trials,
    )  # fmt: skip


def _read(source: str | os.PathLike[str], bypass: Bypass) -> ForeignNetwork:
    path = Path(source)
    if path.suffix.lower() not in (".safetensors", ".net"):
        return read_foreign(path, bypass=bypass)
    found = find_model(path)
    from ..models import float_network, load_model

    model = load_model(path)
    network = float_network(model)
    own = Convention(name="its own", preprocessing=network.preprocessing)
    notes = (model.provenance["tensors"],) if "tensors" in model.provenance else ()
    return ForeignNetwork(
        source=path.name, spec=network.spec, convs=network.convs, format=found.kind, names="torchvision",
        convention=own, convention_from="in the file", labels=model.labels, notes=notes,
    )  # fmt: skip


def _trials(foreign: ForeignNetwork, check: Data, n_photos: int) -> Iterator[tuple[Convention, Trial]]:
    """Try the file's own convention first, so that it is preferred in a tie."""
    from ..models import model_from_foreign

    images = (check if isinstance(check, ImageSet) else open_data(check, split="val")).sample(n_photos)
    own = foreign.convention
    others = [convention for convention in CONVENTIONS.values() if convention.name != own.name]
    for convention in (own, *others):
        predictor = FloatPredictor(model_from_foreign(foreign, convention))
        scores = collect_logits(predictor, match_classes(predictor, images))
        accuracy = Accuracy.of(scores.logits, scores.labels)
        yield (
            convention,
            Trial(
                convention=convention.name,
                is_bgr=convention.is_bgr,
                preprocessing=predictor.preprocessing,
                accuracy=accuracy,
            ),
        )

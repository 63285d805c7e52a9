"""SqueezeNet: train an image classifier, squeeze it below half a megabyte, run the same integers everywhere.

Every verb of the command line is a function here. Names are imported on first use, so that `import squeezenet` costs
nothing; only training, compression and the torch models need torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .accounting import network_cost
    from .architectures import metaparameter_spec, named_spec
    from .checking.check import PhotoCheck, check
    from .checking.similar import Similar, similar
    from .classifier import Answer, Classifier, Prediction, Predictor
    from .cluster import BulkResult, predict_to_parquet
    from .compression.compress import Compressed, compress
    from .compression.methods import DeepCompression, Int8, RateDistortion
    from .compression.outcome import Distilled
    from .data import ImageSet, open_data
    from .data.shards import PackedShards, write_shards
    from .description import Description, describe
    from .errors import SqueezeNetError
    from .evaluation.confidence import Confidence, store_confidence
    from .evaluation.evaluate import Evaluation, evaluate
    from .evaluation.imported import Imported, Trial, import_weights
    from .evaluation.predictor import open_model, predict
    from .exploration import Space, StudyResult, explore, load_space
    from .exports.export import Exported, export
    from .exports.verify import Verification, verify
    from .fileformat import SqzFile, read_sqz, write_sqz
    from .labels import Labels
    from .models import (
        Fire,
        SqueezeNet,
        create_model,
        fold_batch_norm,
        load_model,
        load_safetensors,
        save_safetensors,
        squeezenet1_0,
        squeezenet1_1,
    )
    from .preprocess import Preprocessing, load_image
    from .spec import ArchSpec, FireSpec, StemSpec
    from .teaching.report import TeachResult
    from .teaching.teach import teach
    from .timing import Benchmark, benchmark
    from .training import Recipe, TrainResult, load_recipe
    from .training import train_model as train
    from .training.lr_finder import LearningRates, find_learning_rate
    from .zoo import find_model

__version__ = "0.1.0"

__all__ = [
    "Answer", "ArchSpec", "Benchmark", "BulkResult", "Classifier", "Compressed", "Confidence", "DeepCompression",
    "Description", "Distilled", "Evaluation", "Exported", "Fire", "FireSpec", "ImageSet", "Imported", "Int8", "Labels",
    "LearningRates", "PackedShards", "PhotoCheck", "Prediction", "Predictor", "Preprocessing", "RateDistortion",
    "Recipe", "Similar", "Space", "SqueezeNet", "SqueezeNetError", "SqzFile", "StemSpec", "StudyResult", "TeachResult",
    "TrainResult", "Trial", "Verification", "benchmark", "check", "compress", "create_model", "describe", "evaluate",
    "explore", "export", "find_learning_rate", "find_model", "fold_batch_norm", "import_weights", "load_image",
    "load_model", "load_recipe", "load_safetensors", "load_space", "metaparameter_spec", "named_spec", "network_cost",
    "open_data", "open_model", "predict", "predict_to_parquet", "read_sqz", "save_safetensors", "similar",
    "squeezenet1_0", "squeezenet1_1", "store_confidence", "teach", "train", "verify", "write_shards", "write_sqz",
]  # fmt: skip

_HOMES = {
    "accounting": ("network_cost",),
    "architectures": ("metaparameter_spec", "named_spec"),
    "checking.check": ("PhotoCheck", "check"),
    "checking.similar": ("Similar", "similar"),
    "classifier": ("Answer", "Classifier", "Prediction", "Predictor"),
    "cluster": ("BulkResult", "predict_to_parquet"),
    "compression.compress": ("Compressed", "compress"),
    "compression.methods": ("DeepCompression", "Int8", "RateDistortion"),
    "compression.outcome": ("Distilled",),
    "data": ("ImageSet", "open_data"),
    "data.shards": ("PackedShards", "write_shards"),
    "description": ("Description", "describe"),
    "errors": ("SqueezeNetError",),
    "evaluation.confidence": ("Confidence", "store_confidence"),
    "evaluation.evaluate": ("Evaluation", "evaluate"),
    "evaluation.imported": ("Imported", "Trial", "import_weights"),
    "evaluation.predictor": ("open_model", "predict"),
    "exploration": ("Space", "StudyResult", "explore", "load_space"),
    "exports.export": ("Exported", "export"),
    "exports.verify": ("Verification", "verify"),
    "fileformat": ("SqzFile", "read_sqz", "write_sqz"),
    "labels": ("Labels",),
    "models": (
        "Fire", "SqueezeNet", "create_model", "fold_batch_norm", "load_model", "load_safetensors", "save_safetensors",
        "squeezenet1_0", "squeezenet1_1",
    ),
    "preprocess": ("Preprocessing", "load_image"),
    "spec": ("ArchSpec", "FireSpec", "StemSpec"),
    "teaching.report": ("TeachResult",),
    "teaching.teach": ("teach",),
    "timing": ("Benchmark", "benchmark"),
    "training": ("Recipe", "TrainResult", "load_recipe"),
    "training.lr_finder": ("LearningRates", "find_learning_rate"),
    "zoo": ("find_model",),
}  # fmt: skip
_HOME_OF = {name: (module, name) for module, names in _HOMES.items() for name in names}
_HOME_OF["train"] = ("training", "train_model")


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOME_OF[name]
    from .errors import MissingDependencyError

    with MissingDependencyError.named():
        value = getattr(import_module(f".{module}", __name__), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

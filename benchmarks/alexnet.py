"""AlexNet and SqueezeNet by one recipe from the same start on imagenette: accuracy beside parameters and bytes.

Both are trained at 224 pixels with the same seed on the same photos in the same order, cropped and mixed alike. Short
trainings before choose the learning rate on photos set aside; `imagenette-val` judges each network after its last
epoch, and what is made of it. Both are compressed as in 2015: pruned by magnitude to the density published for each,
retrained with the zeros kept, values shared, Huffman-coded. Of SqueezeNet there is a `.sqz` file by rate-distortion as
well; AlexNet has no such form. Writes results/alexnet.json. Needs ../shared; takes an
hour and a half on one core. What is in WORK is not made again.

    python benchmarks/alexnet.py WORK/
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from environment import SHARED, describe_run, write_results
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from squeezenet.compression.deep.deep_compression import DeepCompression, LayerSizes
from squeezenet.compression.deep.huffman import sparse_sizes
from squeezenet.compression.deep.prune import PruningMask
from squeezenet.compression.deep.share import SharedWeights
from squeezenet.compression.rate_distortion import compress_rate_distortion
from squeezenet.compression.retrain import Retrainer
from squeezenet.data import check_data, open_data
from squeezenet.exploration.measure import measure_file
from squeezenet.fileformat import SqzFile, encode_sqz
from squeezenet.labels import Labels
from squeezenet.models import SqueezeNet, fold_batch_norm
from squeezenet.network import IntegerNetwork
from squeezenet.process import keep_freed_memory
from squeezenet.progress import PlainReporter
from squeezenet.quantization.photos import calibration_from_images
from squeezenet.spec import BatchNorm
from squeezenet.training import Recipe, load_recipe
from squeezenet.training.feed.augment import EpochDraw
from squeezenet.training.feed.batches import ValBatches
from squeezenet.training.setup import TrainingData, open_batches, with_epochs
from squeezenet.training.state import TrainingState
from squeezenet.training.step import choose_precision, train_step, validate

EPOCHS, TRIAL_EPOCHS, RATES = 20, 3, (0.01, 0.03, 0.1)
# Each as published, without batch norm or bypass; only the last ReLU of SqueezeNet goes, as in all recipes here. The
# third is SqueezeNet with its squeeze layers normalised in training, as the recipe has it: folded, the same network.
SQUEEZENET, ALEXNET, NORMALISED = "SqueezeNet 1.1", "AlexNet", "SqueezeNet 1.1 trained with batch norm"
# Iandola et al. 2016, table 2; Han et al. 2015, table 4.
DENSITIES = {SQUEEZENET: 0.33, ALEXNET: 0.11, NORMALISED: 0.33}
RECIPE = load_recipe("small-photos").replace(
    architecture="squeezenet1_1", input_size=224, squeeze_relu=True, batch_norm=False, dropout=0.5
)
PREPROCESSING = RECIPE.preprocessing()
RETRAIN_EPOCHS, RETRAIN_LR, INDEX_BITS = 3, 3e-4, 6
MAX_DROP, CALIBRATION_PHOTOS, HOLDOUT = 0.5, 250, 0.1


class AlexNet(nn.Module):
    """AlexNet as one tower, with what training and pruning ask of a network of this package.

    Source: Krizhevsky 2014, "One weird trick for parallelizing convolutional neural networks".
    """

    labels = None

    def __init__(self, num_classes: int, *, dropout: float = 0.5) -> None:
        super().__init__()
        self.spec, self.preprocessing = SimpleNamespace(num_classes=num_classes, batch_norm=False), PREPROCESSING
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(inplace=True),
            nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(inplace=True),
            nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
        )  # fmt: skip
        self.classifier = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(256 * 6 * 6, 4096), nn.ReLU(inplace=True),
            nn.Dropout(dropout), nn.Linear(4096, 4096), nn.ReLU(inplace=True), nn.Linear(4096, num_classes),
        )  # fmt: skip
        for layer in self.convs.values():  # as SqueezeNet begins
            nn.init.kaiming_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        nn.init.normal_(self.head.weight, std=0.01)

    @property
    def convs(self) -> dict[str, Any]:
        """The layers with weights, in network order: five convolutions and three fully connected ones."""
        layers = [layer for layer in self.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
        return {f"{'conv' if number < 6 else 'fc'}{number}": layer for number, layer in enumerate(layers, start=1)}

    @property
    def head(self) -> Any:
        """The last layer."""
        return self.classifier[-1]

    @property
    def dropout(self) -> float:
        """Share of values set to zero before fc6 and before fc7."""
        return self.classifier[0].p

    @dropout.setter
    def dropout(self, share: float) -> None:
        self.classifier[0].p = self.classifier[3].p = share

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images (N, 3, 224, 224) to logits (N, num_classes)."""
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """Map images (N, 3, 224, 224) to the last pool's output (N, 256, 6, 6)."""
        return self.features(x)

    def forward_head(self, x: Tensor) -> Tensor:
        """Map features (N, 256, 6, 6) to logits (N, num_classes)."""
        return self.classifier(x.flatten(1))


def squeezenet(num_classes: int, *, batch_norm: BatchNorm = False) -> Any:
    return SqueezeNet(RECIPE.replace(batch_norm=batch_norm).spec(num_classes), dropout=RECIPE.dropout)


def folded(model: Any) -> Any:
    """The network as it is used: what normalised its layers in training is in their weights."""
    return fold_batch_norm(model)


NETWORKS: dict[str, Callable[[int], Any]] = {
    ALEXNET: AlexNet, SQUEEZENET: squeezenet, NORMALISED: functools.partial(squeezenet, batch_norm="squeeze")
}  # fmt: skip


class Photos:
    """Photos to train on, photos set aside to choose by, and those that judge."""

    def __init__(self) -> None:
        self.train, aside = open_data(SHARED / "data/imagenette-train.zip", split="train").split_holdout(HOLDOUT)
        val = open_data(SHARED / "data/imagenette-val.zip", split="val").with_classes_of(self.train)
        self.aside, self.val = (ValBatches(images, PREPROCESSING) for images in (aside, val))


def train_network(build: Callable[[int], Any], recipe: Recipe, photos: Photos) -> tuple[Any, dict[str, Any]]:
    """Train from scratch; the average of the weights, and each epoch's mean loss."""
    start, cpu = time.monotonic(), torch.device("cpu")
    torch.manual_seed(recipe.seed)
    model = build(len(photos.train.classes))
    model.preprocessing = PREPROCESSING
    state = TrainingState.start(recipe, model, precision=choose_precision(cpu), data_id="", device=cpu)
    batches = open_batches(recipe, PREPROCESSING, TrainingData(check_data(photos.train, None)), PlainReporter())
    n_steps, losses = batches.n_images // recipe.batch_size, []
    for state.epoch in range(recipe.epochs):
        draw = EpochDraw(batches.n_images, seed=recipe.seed, epoch=state.epoch)
        losses.append(0.0)
        epoch = batches.epoch(draw, batch_size=recipe.batch_size, first_step=0, n_steps=n_steps)
        for state.step, batch in enumerate(epoch):
            loss = train_step(state, batch, steps_per_epoch=n_steps)
            if loss is None:
                raise SystemExit(f"lr {recipe.lr}: loss or gradient not finite in epoch {state.epoch + 1}")
            losses[-1] += loss / n_steps
        print(f"epoch {state.epoch + 1}: loss {losses[-1]:.3f}, {time.monotonic() - start:.0f} s", flush=True)
    facts = {"lr": recipe.lr, "losses": losses, "seconds": round(time.monotonic() - start)}
    return folded(state.usable_model.eval()), facts


def kept(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Read facts from a file of WORK; make and write them if it is not there."""
    if not path.exists():
        facts = make()
        path.write_text(json.dumps(facts, indent=1) + "\n")
    facts = json.loads(path.read_text())
    print(path.stem, facts, flush=True)
    return facts


def trial(build: Callable[[int], Any], rate: float, photos: Photos) -> dict[str, Any]:
    """A short training at one learning rate, judged on the photos set aside."""
    model, facts = train_network(build, with_epochs(RECIPE, TRIAL_EPOCHS).replace(lr=rate), photos)
    return facts | {"top1": validate(model, photos.aside)[0].top1}


def count_macs(model: Any) -> int:
    """Multiply-accumulates of one image: each layer's weights at all positions of its output."""
    counts = []
    for layer in model.convs.values():
        layer.register_forward_hook(lambda layer, _, out: counts.append(layer.weight.numel() * out[0, 0].numel()))
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, PREPROCESSING.crop_size, PREPROCESSING.crop_size))
    return sum(counts)


def deep_compressed(model: Any, retrainer: Retrainer, density: float) -> tuple[Any, dict[str, Any]]:
    """Prune by magnitude, retrain, share values; the network, and its bytes after Huffman coding."""
    settings = DeepCompression(criterion="magnitude", distillation=0.0, mixup=0.0, batch_size=RECIPE.batch_size)
    recipe = settings.recipe(epochs=RETRAIN_EPOCHS, lr=RETRAIN_LR, phase=1)
    mask = PruningMask.by_magnitude(model, density)
    mask.on_weights(model)
    model = retrainer.run(model, recipe, mask, title=f"retraining at density {density:.0%}")
    shared = SharedWeights.by_k_means(model, index_bits=INDEX_BITS)
    shared.on_weights(model)
    layers = {}
    for name, layer in model.convs.items():
        codes = shared.codes[name].flatten().numpy()
        layers[name] = LayerSizes(
            name=name, params=len(codes) + len(layer.bias), n_weights=len(codes), n_kept=int((codes != 0).sum()),
            n_centroids=int(codes.max()), sizes=sparse_sizes(codes, index_bits=INDEX_BITS),
        )  # fmt: skip
    return model, {
        "file_bytes": sum(layer.huffman_bytes for layer in layers.values()),
        "density": {name: round(layer.density, 4) for name, layer in layers.items()},
    }


def rate_distortion(model: Any, photos: Photos) -> bytes:
    """The smallest `.sqz` file that loses at most MAX_DROP points on the photos set aside."""
    model.labels = Labels(photos.train.classes)
    float_top1 = validate(model, photos.aside)[0].top1

    def encode(network: IntegerNetwork) -> bytes:
        return encode_sqz(SqzFile(network=network, labels=model.labels, preprocessing=PREPROCESSING))

    def points_lost(network: IntegerNetwork) -> float:
        return float_top1 - measure_file(encode(network), photos.aside.images).top1

    pixels = calibration_from_images(photos.train, PREPROCESSING, n_images=CALIBRATION_PHOTOS).all_pixels
    found = compress_rate_distortion(model, pixels, max_drop=MAX_DROP, points_lost=points_lost)
    return encode(found.network)


def measure(name: str, rate: float, work: Path, photos: Photos) -> dict[str, Any]:
    """Train one network, compress it, and judge what came out."""
    stem, build = name.replace(" ", "-"), NETWORKS[name]
    weights = work / f"{stem}.safetensors"

    def train() -> dict[str, Any]:
        model, facts = train_network(build, with_epochs(RECIPE, EPOCHS).replace(lr=rate), photos)
        save_file({key: tensor.contiguous() for key, tensor in model.state_dict().items()}, weights)
        params = sum(parameter.numel() for parameter in model.parameters())
        facts |= {"params": params, "file_bytes": 4 * params, "aside_top1": validate(model, photos.aside)[0].top1}
        facts |= validate(model, photos.val)[0].to_dict()
        return facts | {"macs": count_macs(model)}

    def opened() -> tuple[Any, Retrainer]:
        model = folded(build(len(photos.train.classes)))
        model.load_state_dict(load_file(weights))
        model.preprocessing = PREPROCESSING
        return model, Retrainer(photos.train, model.eval(), PlainReporter())

    def compress() -> dict[str, Any]:
        model, facts = deep_compressed(*opened(), DENSITIES[name])
        return facts | {"aside_top1": validate(model, photos.aside)[0].top1} | validate(model, photos.val)[0].to_dict()

    def make_file() -> dict[str, Any]:
        data = rate_distortion(opened()[0], photos)
        (work / f"{stem}.sqz").write_bytes(data)
        return {"file_bytes": len(data), **measure_file(data, photos.val.images).to_dict()}

    facts = {
        "float32": kept(work / f"{stem}-float32.json", train),
        "Deep Compression": kept(work / f"{stem}-deep.json", compress),
    }
    if name != ALEXNET:
        facts["rate-distortion"] = kept(work / f"{stem}-rate-distortion.json", make_file)
    return facts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    work = parser.parse_args().work
    work.mkdir(parents=True, exist_ok=True)
    keep_freed_memory()
    photos = Photos()
    trials: dict[str, list[dict[str, Any]]] = {SQUEEZENET: [], ALEXNET: []}
    for rate in RATES:
        for name, tried in trials.items():
            path = work / f"{name.replace(' ', '-')}-lr{rate:g}.json"
            tried.append(kept(path, functools.partial(trial, NETWORKS[name], rate, photos)))
    rates = {name: max(tried, key=lambda facts: facts["top1"])["lr"] for name, tried in trials.items()}
    rates[NORMALISED] = rates[SQUEEZENET]
    networks = {name: measure(name, rates[name], work, photos) for name in NETWORKS}
    results = {
        "run": describe_run(), "n_train": len(photos.train), "n_aside": photos.aside.n_images,
        "n_images": photos.val.n_images, "epochs": EPOCHS, "recipe": RECIPE.to_dict(),
        "trial_epochs": TRIAL_EPOCHS, "trials": trials, "densities": DENSITIES, "retrain_epochs": RETRAIN_EPOCHS,
        "retrain_lr": RETRAIN_LR, "index_bits": INDEX_BITS, "max_drop": MAX_DROP,
        "networks": networks,
    }  # fmt: skip
    write_results("alexnet", results)


if __name__ == "__main__":
    main()

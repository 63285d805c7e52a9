"""Deep Compression: masks that hold, centroids that train as one, integers that stay shared."""

import numpy as np
import pytest
import torch

from networks import random_pixels, tiny_spec
from squeezenet.compression.deep.deep_compression import DeepCompression, deep_compress
from squeezenet.compression.deep.prune import PruningMask
from squeezenet.compression.deep.share import SharedWeights
from squeezenet.compression.report import CompressionReport, pruning_table, storage_table
from squeezenet.compression.retrain import Retrainer
from squeezenet.data import open_data
from squeezenet.description import file_facts
from squeezenet.errors import RecipeError
from squeezenet.fileformat import SqzFile, encode_sqz
from squeezenet.models import SqueezeNet
from squeezenet.preprocess import Preprocessing
from squeezenet.progress import SilentReporter
from squeezenet.training.recipe import Recipe


def small_model(num_classes=10, input_size=8):
    torch.manual_seed(0)
    model = SqueezeNet(tiny_spec(num_classes=num_classes, input_size=input_size, head_relu=False, pools=()))
    model.preprocessing = Preprocessing(crop_size=input_size, resize_size=input_size)
    return model.eval()


@pytest.fixture(scope="module")
def retrainer():
    digits = open_data("digits", split="train").subset(range(0, 1400, 14))
    return Retrainer(digits, small_model(), SilentReporter())


def test_mask_keeps_the_wanted_share_and_all_of_conv1():
    model = small_model()
    mask = PruningMask.by_magnitude(model, 0.4)
    kept = sum(int(kept.sum()) for kept in mask.masks.values())
    total = sum(kept.numel() for kept in mask.masks.values())
    assert kept / total == pytest.approx(0.4, abs=0.01)
    assert mask.masks["conv1"].all()


def test_mask_keeps_the_largest_weights_of_a_layer():
    model = small_model()
    mask = PruningMask.by_magnitude(model, 0.4)
    weight, kept = model.convs["fire2.expand3x3"].weight.detach().abs(), mask.masks["fire2.expand3x3"]
    assert weight[kept].min() > weight[~kept].max()


def test_density_of_one_keeps_everything():
    mask = PruningMask.by_magnitude(small_model(), 1.0)
    assert all(kept.all() for kept in mask.masks.values())


def test_pruned_weights_stay_zero_through_retraining(retrainer):
    model = small_model()
    mask = PruningMask.by_magnitude(model, 0.3)
    mask.on_weights(model)
    recipe = Recipe(epochs=2, lr=0.05, batch_size=20)
    trained = retrainer.run(model, recipe, mask, title="test")
    for name, conv in trained.convs.items():
        assert (conv.weight[~mask.masks[name]] == 0).all()
    assert not torch.equal(trained.head.weight, model.head.weight)


def test_gradient_of_a_centroid_is_the_sum_over_its_weights():
    model = small_model()
    shared = SharedWeights.by_k_means(model, index_bits=2)
    conv = model.convs["fire2.squeeze"]
    conv.weight.grad = torch.ones_like(conv.weight)
    shared.on_gradients(model)
    codes = shared.codes["fire2.squeeze"]
    for code in codes.unique().tolist():
        expected = float((codes == code).sum()) if code else 0.0
        assert (conv.weight.grad[codes == code] == expected).all()


def test_shared_weights_stay_shared_through_training(retrainer):
    model = small_model()
    PruningMask.by_magnitude(model, 0.5).on_weights(model)
    shared = SharedWeights.by_k_means(model, index_bits=3)
    shared.on_weights(model)
    trained = retrainer.run(model, Recipe(epochs=1, optimizer="adamw", lr=1e-3, batch_size=20), shared, title="test")
    for name, conv in trained.convs.items():
        assert len(conv.weight.unique()) <= 8
        assert (conv.weight[shared.codes[name] == 0] == 0).all()


def test_k_means_begins_linear_and_reaches_clusters_that_lie_apart():
    model = small_model()
    conv = model.convs["fire2.squeeze"]
    values = torch.tensor([-1.0, 0.0, 0.5, 2.0])
    with torch.no_grad():
        conv.weight.copy_(values[torch.arange(conv.weight.numel()) % 4].reshape(conv.weight.shape))
    shared = SharedWeights.by_k_means(model, index_bits=2)
    centroids = shared.centroids(model, "fire2.squeeze")
    assert centroids.tolist() == [0.0, -1.0, 0.5, 2.0]


def test_whole_method_gives_a_sparse_network_of_few_values(retrainer):
    model = small_model()
    before = {name: conv.weight.clone() for name, conv in model.convs.items()}
    settings = DeepCompression(density=0.4, index_bits=3, prune_rounds=2, prune_epochs=1, share_epochs=1, batch_size=20)
    result = deep_compress(model, retrainer, [random_pixels(model.spec, 8)], settings)
    assert all(torch.equal(conv.weight, before[name]) for name, conv in model.convs.items())  # the original is kept
    weights = [params.weight for params in result.network.convs.values()]
    # A centroid so close to zero that the integers cannot show it may add a few zeros.
    assert sum((weight != 0).sum() for weight in weights) <= 0.42 * sum(weight.size for weight in weights)
    for name, params in result.network.convs.items():
        if name != "conv1":
            assert len(np.unique(params.weight)) <= 8
        assert len(np.unique(params.multiplier)) == 1


def test_report_counts_what_the_paper_counts(retrainer):
    model = small_model()
    settings = DeepCompression(density=0.5, index_bits=4, prune_rounds=1, prune_epochs=1, share_epochs=0, batch_size=20)
    result = deep_compress(model, retrainer, [random_pixels(model.spec, 8)], settings)
    encoded = encode_sqz(SqzFile(network=result.network))
    report = CompressionReport(
        model="small", method="deep-compression", file=file_facts(encoded), fidelity=None, comparison=None,
        layers_2016=result.layers_2016, points=(), seconds=1.0, calibration_photos=8, calibration="photos",
        is_chosen_on_val=False, meets_target=True,
    ).to_dict()  # fmt: skip
    params = sum(op.params for op in model.spec.convs)
    assert report["params"] == params
    assert report["file_bytes"] == len(encoded)
    assert report["fp32_bytes"] == 4 * params
    coded = sum(layer["coded_bits"] for layer in report["layers"]) // 8
    assert coded + sum(report["container_bytes"].values()) == len(encoded)
    steps = report["deep_compression"]
    assert steps["fp32_bytes"] > steps["pruned_bytes"] > steps["shared_bytes"] > steps["huffman_bytes"]
    rows = pruning_table(result.layers_2016)
    assert [row[0] for row in rows] == [op.name for op in model.spec.convs] + ["total"]
    kept = sum(layer.n_kept for layer in result.layers_2016) + sum(op.out_channels for op in model.spec.convs)
    assert rows[-1][3] == f"{kept:,}"
    assert storage_table(result.layers_2016, len(encoded))[-1][1] == f"{len(encoded):,}"


@pytest.mark.parametrize("change", [{"density": 0.0}, {"density": 1.1}, {"index_bits": 9}, {"prune_rounds": 0}])
def test_impossible_settings_are_refused(change):
    with pytest.raises(RecipeError, match="expected"):
        DeepCompression(**change)

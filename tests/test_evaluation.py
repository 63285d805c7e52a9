import gc
import math
import weakref

import numpy as np
import pytest
import torch

from image_files import encode, photo
from networks import random_network, tiny_spec
from squeezenet import Classifier
from squeezenet.classifier import Outputs
from squeezenet.data import open_data
from squeezenet.errors import DataError, ModelNotFoundError
from squeezenet.evaluation.metrics import Accuracy, kl_divergence
from squeezenet.evaluation.predictor import (
    FloatPredictor,
    answers,
    collect_logits,
    match_classes,
    open_model,
)
from squeezenet.fileformat import SqzFile, write_sqz
from squeezenet.labels import Labels
from squeezenet.models import SqueezeNet, normalize_pixels, save_safetensors
from squeezenet.preprocess import Preprocessing

LABELS = Labels(("ant", "bee", "cat", "dog", "eel"), ("n1", "n2", "n3", "n4", "n5"))


@pytest.fixture
def data(tmp_path):
    """Six photos of two classes, the third of which is damaged."""
    for number in range(6):
        folder = tmp_path / "data" / ("n2" if number < 3 else "eel")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.png").write_bytes(b"bad" if number == 2 else encode(photo(20 + 5 * number, 24)))
    return open_data(tmp_path / "data")


@pytest.fixture(scope="module")
def classifier():
    return Classifier(SqzFile(network=random_network(tiny_spec()), labels=LABELS))


@pytest.fixture(scope="module")
def float_model():
    torch.manual_seed(0)
    model = SqueezeNet(tiny_spec())
    model.labels = LABELS
    return model


def test_sqz_file_is_opened_by_the_classifier(tmp_path):
    write_sqz(tmp_path / "m.sqz", SqzFile(network=random_network(tiny_spec())))
    assert isinstance(open_model(tmp_path / "m.sqz"), Classifier)
    assert isinstance(open_model(str(tmp_path / "m.sqz")), Classifier)


def test_other_models_are_opened_by_torch(tmp_path, float_model):
    save_safetensors(float_model, tmp_path / "m.safetensors")
    predictor = open_model(tmp_path / "m.safetensors")
    assert isinstance(predictor, FloatPredictor)
    assert (predictor.labels, predictor.spec) == (LABELS, float_model.spec)


def test_what_is_no_model_is_refused():
    with pytest.raises(ModelNotFoundError, match=r"model\.onnx: no such file or folder; a MODEL is .*imagenette"):
        open_model("model.onnx")


def test_float_predictor_is_the_model_in_evaluation_mode(float_model):
    predictor = FloatPredictor(float_model.train())
    pixels = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3)).astype(np.uint8)
    logits = predictor.logits(pixels)
    assert (logits.shape, logits.dtype) == ((3, 5), np.float64)
    np.testing.assert_array_equal(predictor.logits(pixels), logits)  # no dropout
    with torch.no_grad():
        expected = float_model.eval()(normalize_pixels(pixels, predictor.preprocessing))
    np.testing.assert_allclose(logits, expected.double().numpy(), rtol=1e-6)


def test_float_model_without_preprocessing_gets_that_of_new_networks(float_model):
    assert FloatPredictor(float_model).preprocessing == Preprocessing(crop_size=16, resize_size=16)


def test_images_are_predicted_in_order_with_the_bad_ones_between(classifier, data):
    found = list(answers(classifier, data, batch_size=4))
    names = [answer.name.rsplit("/", 1)[1] for answer in found]
    assert names == ["3.png", "4.png", "5.png", "0.png", "1.png", "2.png"]
    assert [answer.error is not None for answer in found] == [False] * 5 + [True]
    assert list(found[0].predictions) == classifier.predict(photo(35, 24))[0]


def test_scores_belong_to_the_readable_images(classifier, data):
    scores = collect_logits(classifier, match_classes(classifier, data), batch_size=2)
    assert scores.indices.tolist() == [0, 1, 2, 3, 4]
    assert scores.labels.tolist() == [4, 4, 4, 1, 1]
    assert scores.logits.shape == (5, 5)
    assert [image.name.rsplit("/", 1)[1] for image in scores.unreadable] == ["2.png"]


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_batches_do_not_change_the_scores(classifier, data, batch_size):
    expected = collect_logits(classifier, data)
    scores = collect_logits(classifier, data, batch_size=batch_size)
    np.testing.assert_array_equal(scores.logits, expected.logits)
    np.testing.assert_array_equal(scores.indices, expected.indices)


def test_pixels_are_not_kept(classifier, data):
    seen = []

    class Spy:
        preprocessing, spec, labels = classifier.preprocessing, classifier.spec, classifier.labels

        def outputs(self, pixels):
            gc.collect()
            assert sum(ref() is not None for ref in seen) <= 1  # the batch before may still be on its way out
            seen.append(weakref.ref(pixels))
            return Outputs(np.zeros((len(pixels), 5)), None)

    collect_logits(Spy(), data, batch_size=1)
    assert len(seen) == 6


def test_set_without_a_readable_image_is_an_error(classifier, data):
    with pytest.raises(DataError, match=r"none of 1 images can be read, such as .*2\.png"):
        collect_logits(classifier, data.subset([5]))


def test_model_without_names_matches_nothing(data):
    nameless = Classifier(SqzFile(network=random_network(tiny_spec())))
    with pytest.raises(DataError, match="class folders are never matched by position"):
        match_classes(nameless, data)


def test_accuracy_as_data_has_the_project_s_words():
    logits = np.eye(10)[[1, 2, 3, 4]]
    assert Accuracy.of(logits, np.array([1, 2, 0, 9])).to_dict() == {
        "n_images": 4, "top1_correct": 2, "top5_correct": 3, "top1": 50.0, "top5": 75.0,
        "top1_interval": [pytest.approx(15.00, abs=0.01), pytest.approx(85.00, abs=0.01)],
        "top5_interval": [pytest.approx(30.06, abs=0.01), pytest.approx(95.44, abs=0.01)],
    }  # fmt: skip


def test_divergence_of_known_distributions():
    one, other = np.log([[0.5, 0.5], [0.5, 0.5]]), np.log([[0.25, 0.75], [0.5, 0.5]])
    expected = (0.5 * math.log(2) + 0.5 * math.log(2 / 3)) / 2
    assert kl_divergence(one, other) == pytest.approx(expected)
    assert kl_divergence(one + 100, other - 7) == pytest.approx(expected)
    assert kl_divergence(one, one) == 0


def test_divergence_of_huge_scores_stays_finite():
    assert kl_divergence(np.array([[1e4, 0.0]]), np.array([[0.0, 1e4]])) == pytest.approx(1e4)

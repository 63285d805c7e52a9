import io

import numpy as np
import pytest
from PIL import Image

from image_files import encode, photo
from networks import random_network, random_pixels, tiny_spec
from squeezenet import Classifier, Prediction
from squeezenet.classifier import rank
from squeezenet.errors import BadMagic, ImageError
from squeezenet.fileformat import SqzFile, write_sqz
from squeezenet.labels import Labels
from squeezenet.preprocess import Preprocessing

LABELS = Labels(("ant", "bee", "cat", "dog", "eel"))


@pytest.fixture(scope="module")
def contents():
    spec = tiny_spec(input_size=32, head_relu=False)
    return SqzFile(
        network=random_network(spec), labels=LABELS, preprocessing=Preprocessing(crop_size=32, resize_size=40)
    )


@pytest.fixture(scope="module")
def classifier(contents):
    return Classifier(contents)


def test_path_and_contents_give_the_same_classifier(tmp_path, contents, classifier):
    write_sqz(tmp_path / "tiny.sqz", contents)
    pixels = random_pixels(contents.network.spec, 2)
    for path in (tmp_path / "tiny.sqz", str(tmp_path / "tiny.sqz")):
        read = Classifier(path)
        assert (read.labels, read.preprocessing, read.spec) == (LABELS, classifier.preprocessing, classifier.spec)
        np.testing.assert_array_equal(read.logits(pixels), classifier.logits(pixels))


def test_file_that_is_none_is_refused(tmp_path):
    (tmp_path / "x.sqz").write_bytes(b"PK\3\4 a zip")
    with pytest.raises(BadMagic, match=r"x\.sqz: expected a \.sqz file"):
        Classifier(tmp_path / "x.sqz")


def test_every_kind_of_image_is_classified(tmp_path, classifier):
    image = photo()
    data = encode(image)
    path = tmp_path / "photo.png"
    path.write_bytes(data)
    sources = [path, str(path), data, io.BytesIO(data), image]
    together = classifier.predict(sources)
    assert len(together) == 5
    assert all(predictions == together[0] for predictions in together)
    for source in (path, str(path), data, io.BytesIO(data), image, iter([image]), (image,)):
        assert classifier.predict(source) == [together[0]]


def test_predictions_are_ranked_softmax(classifier):
    image = photo()
    logits = classifier.logits(classifier.preprocessing(image)[None])[0]
    (predictions,) = classifier.predict(image, top=3)
    order = np.argsort(-logits)[:3]
    assert [prediction.index for prediction in predictions] == order.tolist()
    assert [prediction.label for prediction in predictions] == [LABELS.names[index] for index in order]
    expected = np.exp(logits[order] - logits.max()) / np.exp(logits - logits.max()).sum()
    assert [prediction.probability for prediction in predictions] == pytest.approx(expected)
    assert isinstance(predictions[0], Prediction)


def test_probabilities_of_all_classes_sum_to_one(classifier):
    (predictions,) = classifier.predict(photo(), top=100)
    assert len(predictions) == 5
    assert sum(prediction.probability for prediction in predictions) == pytest.approx(1)


def test_no_image_gives_no_prediction(classifier):
    assert classifier.predict([]) == []


def test_many_images_are_read_a_few_at_a_time(classifier):
    reads = []

    def images():
        for number in range(70):
            reads.append(number)
            yield photo(40, 40 + number)

    sizes = []
    logits = classifier.logits
    classifier.logits = lambda pixels: (sizes.append((len(pixels), len(reads))), logits(pixels))[1]
    try:
        predictions = classifier.predict(images(), top=1)
    finally:
        del classifier.logits
    assert len(predictions) == 70
    assert sizes == [(32, 32), (32, 64), (6, 70)]
    assert predictions[69] == classifier.predict(photo(40, 109), top=1)[0]


def test_features_times_the_head_are_the_logits(classifier):
    rng = np.random.default_rng(3)
    images = [rng.integers(0, 256, (40, 50, 3)).astype(np.uint8) for _ in range(35)]  # more than a batch
    features, head = classifier.features(images), classifier.spec.convs[-1]
    assert (features.dtype, features.shape) == (np.int64, (35, classifier.spec.num_features))
    params, positions = classifier.contents.network.convs[head.name], head.out_size**2
    sums = features @ params.weight[:, :, 0, 0].T.astype(np.int64) + positions * params.bias.astype(np.int64)
    pixels = np.stack([classifier.preprocessing(image) for image in images])
    np.testing.assert_array_equal(sums * params.multiplier.astype(float) / positions, classifier.logits(pixels))
    np.testing.assert_array_equal(classifier.features(images[0]), features[:1])
    assert classifier.features([]).shape == (0, classifier.spec.num_features)


def test_bad_image_is_named(tmp_path, classifier):
    (tmp_path / "bad.png").write_bytes(b"nothing")
    with pytest.raises(ImageError, match=r"bad\.png: expected an image"):
        classifier.predict([photo(), tmp_path / "bad.png"])


def test_classes_without_names_are_called_by_number(contents):
    nameless = Classifier(SqzFile(network=contents.network))
    assert nameless.labels is None
    (predictions,) = nameless.predict(photo())
    assert [prediction.label for prediction in predictions] == [str(prediction.index) for prediction in predictions]


def test_network_without_preprocessing_resizes_to_its_input(contents):
    nameless = Classifier(SqzFile(network=contents.network))
    assert nameless.preprocessing == Preprocessing(crop_size=32, resize_size=32)


@pytest.mark.parametrize("target", [None, 0, 4])
def test_mean_of_the_activation_map_is_the_logit(classifier, target):
    image = photo()
    logits = classifier.logits(classifier.preprocessing(image)[None])[0]
    heat = classifier.activation_map(image, target=target)
    assert heat.shape == (7, 7)
    assert heat.mean() == pytest.approx(logits.max() if target is None else logits[target], rel=1e-12)


@pytest.mark.parametrize("target", [-1, 5])
def test_activation_map_of_no_class_is_refused(classifier, target):
    with pytest.raises(ValueError, match=f"expected `target` from 0 to 4, got {target}"):
        classifier.activation_map(photo(), target=target)


def test_equal_scores_are_ranked_in_output_order():
    best = rank(np.array([1.0, 3.0, 3.0, 1.0]), 3)
    assert [index for index, _ in best] == [1, 2, 0]
    assert [share for _, share in best] == pytest.approx([0.4404, 0.4404, 0.0596], abs=1e-4)


def test_many_equal_scores_are_ranked_in_output_order():
    best = rank(np.tile([0.0, 1.0], 500), 1000)
    assert [index for index, _ in best] == [*range(1, 1000, 2), *range(0, 1000, 2)]


def test_huge_scores_do_not_overflow():
    assert rank(np.array([1e300, -1e300]), 2) == [(0, 1.0), (1, 0.0)]


@pytest.mark.parametrize("top", [0, -1])
def test_at_least_one_class_is_asked_for(classifier, top):
    with pytest.raises(ValueError, match=f"expected `top` of at least 1, got {top}"):
        classifier.predict(photo(), top=top)


def test_images_given_as_pillow_are_left_as_they_are(classifier):
    image = Image.new("P", (9, 9), 1)
    classifier.predict(image)
    assert (image.mode, image.size) == ("P", (9, 9))

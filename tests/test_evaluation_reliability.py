import csv
import io
import json

import numpy as np
import pytest
from PIL import Image

from commands import run
from image_files import encode, photo
from networks import random_network, tiny_spec
from squeezenet import Classifier
from squeezenet.errors import BadTable
from squeezenet.evaluation.confidence import measure_confidence
from squeezenet.evaluation.predictor import Scores
from squeezenet.evaluation.reliability import cross_fitted, fit_temperature, reliability, unknown_threshold
from squeezenet.fileformat import SqzFile, read_sqz, write_sqz
from squeezenet.labels import Labels
from squeezenet.preprocess import Preprocessing


def logits_of(*shares):
    """Two classes, the first with these probabilities."""
    shares = np.array(shares)
    return np.log(np.stack([shares, 1 - shares], axis=1))


def test_error_is_the_mean_gap_of_confidence_and_accuracy():
    # Two answers of 95 % of which one is right, two of 65 % that are both right.
    found = reliability(logits_of(0.95, 0.95, 0.65, 0.65), np.array([0, 1, 0, 0]))
    assert found.counts.tolist() == [0, 0, 0, 0, 0, 0, 2, 0, 0, 2]
    assert found.error == pytest.approx((0.45 + 0.35) / 2)


def test_perfectly_calibrated_answers_have_no_error():
    labels = np.array([0] * 3 + [1])
    assert reliability(logits_of(*[0.75] * 4), labels).error == pytest.approx(0)


def test_threshold_keeps_95_percent_of_the_right_answers():
    shares = np.linspace(0.51, 0.9, 40)
    found = unknown_threshold(logits_of(*shares, 0.505), np.array([0] * 40 + [1]))
    assert found.unknown_below == pytest.approx(0.53, abs=1e-4)
    assert (found.right_kept, found.wrong_caught) == (95, 100)


@pytest.mark.parametrize("label", [0, 1])
def test_all_right_or_all_wrong_is_no_special_case(label):
    found = unknown_threshold(logits_of(0.9, 0.8), np.full(2, label))
    assert found.unknown_below == pytest.approx(0.8 if label == 0 else 0, abs=1e-4)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_temperature_makes_probabilities_true(temperature):
    rng = np.random.default_rng(1)
    z = rng.normal(0, 2, (20_000, 4))
    labels = (z + rng.gumbel(size=z.shape)).argmax(axis=1)  # drawn with the softmax of z
    found = fit_temperature(z * temperature, labels)
    assert found == pytest.approx(temperature, rel=0.03)
    assert reliability(z * temperature / found, labels).error < 0.01


def test_one_more_image_keeps_a_network_that_is_always_right_from_certainty():
    logits = 5 * np.eye(3)[[0, 1, 2, 0]]
    assert 0.5 < fit_temperature(logits, np.array([0, 1, 2, 0])) < 5
    assert fit_temperature(np.zeros((5, 3)), np.zeros(5, int)) == pytest.approx(20, rel=0.01)
    assert fit_temperature(np.empty((0, 3)), np.empty(0, int)) == 1


def test_each_half_gets_the_temperature_of_the_other():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 400)
    logits = np.eye(3)[labels] * 3 + rng.normal(0, 2, (400, 3))
    order = np.argsort(labels, kind="stable")
    first, second = order[::2], order[1::2]
    scaled = cross_fitted(logits, labels)
    assert np.allclose(scaled[first] * fit_temperature(logits[second], labels[second]), logits[first])
    assert np.allclose(scaled[second] * fit_temperature(logits[first], labels[first]), logits[second])


def test_temperature_is_kept_only_where_it_helps_images_that_had_no_part_in_it():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 400)
    logits = np.eye(3)[labels] * 9 + rng.normal(0, 6, (400, 3))  # far too sure
    rows = np.arange(len(labels))
    found = measure_confidence(Scores(logits=logits, labels=labels, indices=rows, unreadable=()))
    assert found.temperature > 1
    assert found.error < found.error_without
    few = measure_confidence(Scores(logits=logits[:2], labels=labels[:2], indices=rows[:2], unreadable=()))
    assert (few.temperature, few.error) == (1, few.error_without)


def test_more_classes_than_a_rule_holds_leave_the_probability():
    many = np.arange(65)
    scores = Scores(logits=9 * np.eye(65), labels=many, indices=many, unreadable=(), features=1 + np.eye(65, dtype=int))
    found = measure_confidence(scores)
    assert found.unknown is None
    assert "unknown below" in found.lines()[1]
    assert found.to_dict()["unknown_below"] == found.threshold.unknown_below


@pytest.fixture
def model(tmp_path):
    spec = tiny_spec(input_size=32)
    contents = SqzFile(
        network=random_network(spec),
        labels=Labels(("ant", "bee", "cat", "dog", "eel")),
        preprocessing=Preprocessing(crop_size=32, resize_size=32),
    )
    write_sqz(tmp_path / "tiny.sqz", contents)
    return tmp_path / "tiny.sqz"


@pytest.mark.parametrize("value", [-0.1, 1.5, "0.5", True])
def test_file_holds_only_probabilities_as_threshold(model, value):
    with pytest.raises(BadTable, match="unknown_below"):
        SqzFile(network=read_sqz(model).network, facts={"unknown_below": value})


def test_file_without_a_threshold_knows_no_unknown(model, tmp_path):
    (tmp_path / "a.png").write_bytes(encode(photo()))
    assert Classifier(model).unknown_below is None
    assert "is_unknown" not in json.loads(run("predict", model, tmp_path / "a.png", "--json").stdout)


def test_evaluate_stores_the_threshold_and_predict_shows_it(model, tmp_path):
    for name in ("ant", "bee"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / f"data/{name}/1.png").write_bytes(encode(photo(40)))
    before = read_sqz(model)
    for number, level in enumerate((0, 120, 250)):
        (tmp_path / f"other{number}.png").write_bytes(encode(Image.new("RGB", (40, 40), (level,) * 3)))
    others = [option for path in sorted(tmp_path.glob("other*.png")) for option in ("--not", path)]
    done = run("evaluate", model, tmp_path / "data", "--store", *others)
    assert done.exit_code == 0, done.output
    assert "no temperature improves the probabilities" in done.output  # one photo per half tells nothing
    assert "stored: rule for unknown photos" in done.output
    assert "of 3 photos of something else" in done.output
    after = read_sqz(model)
    assert after.unknown_below is None
    assert after.unknown.vectors.shape == (2, 16)
    assert after.labels == before.labels
    features = Classifier(model).features([tmp_path / "data/ant/1.png"])
    assert not after.unknown.is_unknown(features).any()
    found = json.loads(run("evaluate", model, tmp_path / "data", "--json", *others).stdout)["confidence"]
    assert found["temperature"] == after.temperature == 1
    assert found["n_foreign"] == 3
    write_sqz(model, SqzFile(network=after.network, preprocessing=after.preprocessing, facts={"unknown_below": 1.0}))
    (tmp_path / "a.png").write_bytes(encode(photo()))
    assert json.loads(run("predict", model, tmp_path / "a.png", "--json").stdout)["is_unknown"] is True
    assert "unknown: perhaps none of the classes" in run("predict", model, tmp_path / "a.png").stdout
    rows = list(csv.DictReader(io.StringIO(run("predict", model, tmp_path / "a.png", "--csv", "-k", 1).stdout)))
    assert [row["is_unknown"] for row in rows] == ["true"]


def test_threshold_is_stored_in_compressed_files_only(tmp_path):
    done = run("evaluate", "squeezenet1_1", "digits", "--store")
    assert done.exit_code == 2
    assert "needs a .sqz file" in done.output

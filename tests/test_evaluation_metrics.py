import numpy as np
import pytest

from squeezenet.evaluation.metrics import Accuracy, confusion_matrix, label_ranks, top_k_correct, wilson_interval


def test_top_k_counts_classes_before_the_right_one():
    logits = np.array([[5, 4, 3, 2, 1, 0], [0, 1, 2, 3, 4, 5]], dtype=np.float32)
    assert label_ranks(logits, np.array([2, 2])).tolist() == [2, 3]
    assert top_k_correct(logits, np.array([0, 0])).tolist() == [True, False]
    assert top_k_correct(logits, np.array([0, 0]), 5).tolist() == [True, False]


def test_ties_go_to_the_lower_class_as_in_argmax():
    logits = np.zeros((1, 4))
    assert [int(label_ranks(logits, np.array([label]))[0]) for label in range(4)] == [0, 1, 2, 3]


def test_logits_that_are_no_numbers_are_wrong():
    logits = np.array([[np.nan, 0.0, 1.0], [np.nan] * 3, [np.nan, 0.0, 1.0]])
    assert label_ranks(logits, np.array([0, 0, 2])).tolist() == [3, 3, 0]


def test_accuracies_of_batches_add_up():
    logits = np.eye(10)[[1, 2, 3]]
    accuracy = Accuracy.of(logits[:2], np.array([1, 0])) + Accuracy.of(logits[2:], np.array([9]))
    assert (accuracy.n_images, accuracy.top1_correct, accuracy.top5_correct) == (3, 1, 2)
    assert accuracy.top1 == pytest.approx(100 / 3)


@pytest.mark.parametrize(
    ("correct", "n", "expected"),
    [(95, 100, (88.82, 97.85)), (0, 10, (0.0, 27.75)), (10, 10, (72.25, 100.0)), (0, 0, (0.0, 100.0))],
)
def test_wilson_interval(correct, n, expected):
    assert [round(bound, 2) for bound in wilson_interval(correct, n)] == list(expected)


def test_confusion_has_the_right_class_in_rows():
    matrix = confusion_matrix(np.array([1, 1, 2]), np.array([0, 0, 2]), 3)
    assert matrix.tolist() == [[0, 2, 0], [0, 0, 0], [0, 0, 1]]

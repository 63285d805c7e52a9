"""What a compression did to accuracy, counted by hand."""

import numpy as np
import pytest

from squeezenet.evaluation.comparison import Comparison
from squeezenet.evaluation.predictor import Scores


def logits_for(answers, n_classes=3):
    return np.eye(n_classes)[answers]


def comparison(before, after, labels):
    return Comparison(
        reference_logits=logits_for(before),
        compressed=Scores(
            logits=logits_for(after), labels=np.array(labels), indices=np.arange(len(labels)), unreadable=()
        ),
        class_names=("cat", "dog", "eel"),
    )


def test_lost_points_and_damage_by_class():
    result = comparison([0, 0, 1, 1, 0], [0, 1, 1, 0, 1], [0, 0, 1, 1, 1])
    assert result.points_lost == pytest.approx(20)
    assert result.losses_by_class() == [
        {"class": "cat", "n_images": 2, "float_correct": 2, "compressed_correct": 1},
        {"class": "dog", "n_images": 3, "float_correct": 2, "compressed_correct": 2},
    ]


@pytest.mark.parametrize(("lost", "won", "p"), [(0, 0, 1.0), (3, 3, 1.0), (8, 1, 20 / 512), (0, 5, 2 / 32)])
def test_mcnemar_is_exact(lost, won, p):
    before = [0] * lost + [1] * won + [0] * 4
    after = [1] * lost + [0] * won + [0] * 4
    assert comparison(before, after, [0] * len(before)).mcnemar_p == pytest.approx(p)

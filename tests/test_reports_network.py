"""The report page and the model card: what they say, and that nothing from outside gets into them as markup."""

import csv
import json
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from commands import run
from networks import random_network, tiny_spec
from squeezenet import Int8, compress
from squeezenet.classifier import Classifier
from squeezenet.data import open_data
from squeezenet.errors import MissingDependencyError
from squeezenet.evaluation.predictor import collect_logits, open_model
from squeezenet.fileformat import SqzFile, decode_sqz
from squeezenet.labels import Labels
from squeezenet.models import load_model
from squeezenet.reports.charts import Axis, Line, Point, chart, line_chart
from squeezenet.reports.network_page import build_report, render_card, render_html
from squeezenet.reports.pages import render
from squeezenet.reports.plots import drawing, front
from training_runs import train, write_images

HOSTILE = '<img src=x onerror="alert(1)">'


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = write_images(tmp_path_factory.mktemp("set"), classes=("dark", HOSTILE.replace("/", ""), "ramp"))
    images = open_data(folder)
    contents = SqzFile(network=random_network(tiny_spec(num_classes=3)), labels=Labels(images.classes))
    classifier = Classifier(contents, engine="reference")
    history = [
        {"epoch": epoch, "train_loss": 1 / epoch, "val_loss": 2 / epoch, "top1": 50.0 + epoch, "top5": 90.0, "lr": 0.1,
         "img_per_s": 100.0, "seconds": 1.0}
        for epoch in (1, 2, 3)
    ]  # fmt: skip
    return build_report(
        classifier, images, collect_logits(classifier, images), title="A | *title*", history=history,
        warnings=["careful & slow"], train_counts={"dark": 12}, facts=[("command", "train <x>")],
    )  # fmt: skip


def test_page_loads_nothing_and_runs_nothing(report):
    page = render_html(report)
    assert not re.search(r"(src|href)\s*=\s*[\"'](?!data:|#)", page)
    assert not re.search(r"url\(|@import|<script|<link|<iframe", page)
    assert "default-src 'none'" in page


def test_names_from_outside_are_text(report):
    page = render_html(report)
    assert HOSTILE.replace("/", "") not in page
    assert "&lt;img src=x onerror=" in page
    assert "careful &amp; slow" in page
    card = render_card(report)
    assert f"| RAM on a microcontroller, weights in flash memory | {report.ram_bytes:,} bytes |" in card
    assert "# A \\| \\*title\\*" in card
    assert "\\<img" in card
    assert not re.search(r"(?<!\\)<", card)


def test_figures_agree_with_each_other(report):
    n_right = sum(row["n_right"] for row in report.classes)
    assert n_right == report.accuracy.top1_correct
    assert report.n_mistakes == report.accuracy.n_images - n_right
    assert [sum(counts) for _, counts in report.matrix] == [row["n_images"] for row in report.classes]
    assert sum(bin_["count"] for bin_ in report.bins) == 36
    assert report.best_epoch == 3
    assert [row["n_train"] for row in report.classes] == [None, 12, None]


def test_worst_mistakes_come_first_with_their_maps(report):
    shares = [mistake["label_share"] for mistake in report.mistakes]
    assert shares == sorted(shares)
    assert len(shares) == min(12, report.n_mistakes)
    mistake = report.mistakes[0]
    assert mistake["predicted"] != mistake["label"]
    assert all(url.startswith("data:image/png;base64,") for url in (mistake["photo"], mistake["label_map"]))


def test_maps_average_to_the_scores():
    classifier = Classifier(SqzFile(network=random_network(tiny_spec())), engine="reference")
    pixels = np.full((2, 16, 16, 3), 90, np.uint8)
    np.testing.assert_allclose(classifier.activation_maps(pixels).mean((1, 2)), classifier.logits(pixels), rtol=1e-9)


def test_ticks_are_round_numbers():
    assert [tick.text for tick in Axis(0.13, 2.4, 0, 100).ticks] == ["0.5", "1", "1.5", "2"]
    assert [tick.text for tick in Axis(1e-4, 1, 0, 100, is_log=True).ticks] == ["0.0001", "0.001", "0.01", "0.1", "1"]
    assert [tick.text for tick in Axis(3, 3, 0, 100).ticks] == ["3"]


def test_values_that_are_not_finite_leave_a_gap():
    chart = line_chart("loss", [1, 2, 3], [("a", [1.0, float("nan"), 3.0])])
    assert [point.x for point in chart.lines[0].points] == [1, 3]
    assert chart.lines[0].value == "3"


def test_log_axis_of_a_narrow_range_has_ticks():
    assert [tick.text for tick in Axis(4, 60, 0, 100, is_log=True).ticks] == ["5", "10", "20", "50"]
    assert [tick.text for tick in Axis(4.2, 5.8, 0, 100, is_log=True).ticks] == ["4.5", "5", "5.5"]


def test_one_point_alone_lies_between_the_ends():
    point = Point(3.0, 2.0, "", (1.0, 4.0))
    drawn = chart("one", [Line(name="a", points=[point])], is_x_log=True)
    assert drawn.x.start < drawn.x(3.0) < drawn.x.end
    assert drawn.y.end < drawn.y(4.0) < drawn.y(1.0) < drawn.y.start


@pytest.mark.parametrize(("values", "is_high"), [((3.0, 1.0), True), ((1.0, 3.0), False)])
def test_text_of_a_mark_stands_away_from_the_line(values, is_high):
    assert line_chart("loss", [1, 2], [("a", values)], mark=2, mark_text="best").is_mark_text_high == is_high


def test_series_are_told_apart_in_the_legend_and_by_hover():
    points = [Point(1.0, 1.0, "one"), Point(2.0, 2.0, "two & more")]
    lines = [Line(name="<a>", points=points), Line(name="b", points=points[:1], color="two", style="star")]
    curve = chart("t", lines, mark=1.5, mark_text="limit", x_label="bytes")
    found = type("Found", (), {"suggested": 0.1, "lowest": 0.2})
    page = render("lr.html", title="t", finding=found, curve=curve, facts=[])
    assert 'class="key one line">&lt;a&gt;<' in page
    assert 'class="key two star">b<' in page
    assert "<title>&lt;a&gt;, two &amp; more</title>" in page
    assert page.count("<circle") == 2
    assert page.count("<path") == 1


def test_front_keeps_what_no_other_beats():
    points = [(3, 1), (1, 3), (2, 2), (2, 3), (3, 3), (1, 3)]
    assert front(points, [lambda p: p[0], lambda p: p[1]]) == ((3, 1), (1, 3), (2, 2), (1, 3))
    assert front([], []) == ()


def test_same_drawing_is_the_same_file():
    def draw():
        with drawing(2, 2, n_panels=2, share_y=True) as picture:
            for axes in picture.panels:
                axes.plot([1, 2], [3, 4])
        return picture.svg

    assert draw() == draw()
    assert draw().startswith(b"<?xml")


def test_page_without_jinja2_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingDependencyError, match=r"`jinja2`.*squeezenet\[report\]"):
        render("card.md", report=None)


def test_run_folder_has_a_report_and_a_card(tmp_path):
    result = train(write_images(tmp_path / "data"), tmp_path / "run")
    page = (tmp_path / "run/report.html").read_text()
    assert f"{result.top1:.2f}" in page
    assert 'id="curves"' in page
    assert "recipe: custom" in (tmp_path / "run/README.md").read_text()
    with (tmp_path / "run/log.csv").open() as stream:
        assert len(list(csv.DictReader(stream))) == 2


def test_temperature_of_a_run_is_kept_with_its_weights_and_goes_into_the_file(tmp_path, monkeypatch):
    measured = SimpleNamespace(temperature=1.75)
    monkeypatch.setattr("squeezenet.training.train.measure_confidence", lambda scores: measured)
    data = write_images(tmp_path / "data")
    result = train(data, tmp_path / "run")
    assert load_model(result.best).provenance["temperature"] == 1.75
    assert open_model(tmp_path / "run").temperature == 1.75
    made = compress(tmp_path / "run", method=Int8(), progress=False)
    assert made.file.temperature == 1.75
    assert "temperature" not in made.file.facts["provenance"]
    assert decode_sqz(made.encoded).temperature == 1.75
    measured.temperature = 1.0  # measured again, and none is better
    (tmp_path / "run/report.html").unlink()
    train(data, tmp_path / "run", resume=True)
    assert (tmp_path / "run/report.html").exists()
    assert compress(tmp_path / "run", method=Int8(), progress=False).file.temperature == 1


def test_evaluate_writes_a_report_with_the_run_s_history(tmp_path):
    data = write_images(tmp_path / "data")
    train(data, tmp_path / "run")
    done = run("evaluate", tmp_path / "run", data, "--report", tmp_path / "page.html")
    assert done.exit_code == 0, done.output
    assert f"report: {tmp_path}/page.html" in done.output
    assert 'id="curves"' in (tmp_path / "page.html").read_text()


def test_damaged_log_only_costs_the_curves(tmp_path):
    data = write_images(tmp_path / "data")
    train(data, tmp_path / "run")
    (tmp_path / "run/log.csv").write_text("epoch,top1\n1,x\n")
    (tmp_path / "run/run.json").write_text(json.dumps([1]))
    assert run("evaluate", tmp_path / "run", data, "--report", tmp_path / "page.html").exit_code == 0
    assert 'id="curves"' not in (tmp_path / "page.html").read_text()

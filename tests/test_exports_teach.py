"""The exported page learns: classes taught in Chromium, kept in a page and in a file that Python reads."""

import re

import numpy as np
import pytest
from PIL import Image

from exported import need_browser
from image_files import encode
from networks import random_network, tiny_spec
from squeezenet import FireSpec, Labels, Preprocessing, SqzFile, StemSpec, teach
from squeezenet.classifier import Classifier
from squeezenet.engine import ReferenceEngine
from squeezenet.exports import build_page
from squeezenet.exports.browser import classify_in_page, open_browser, open_page
from squeezenet.fileformat import encode_sqz
from squeezenet.teaching.head import replace_head
from squeezenet.teaching.solver import FeatureCode, fit_numpy, quantize_head
from squeezenet.unknown import fit_unknown

COLOURS = {"red": (200, 30, 30), "green": (30, 190, 40), "blue": (40, 60, 210), "grey": (120, 120, 120)}


def photos(colour, count, seed=0):
    """Noisy pictures of one colour."""
    rng = np.random.default_rng(seed)
    light = rng.integers(-60, 61, (count, 4, 4, 3)).repeat(6, 1).repeat(6, 2)  # no two with the same features
    noisy = rng.integers(-20, 21, (count, 24, 24, 3)) + light + np.array(COLOURS[colour])
    return [encode(Image.fromarray(one.clip(0, 255).astype(np.uint8))) for one in noisy]


@pytest.fixture(scope="module")
def browser():
    need_browser()
    with open_browser("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream") as browser:
        yield browser


def base_contents():
    spec = tiny_spec(
        input_size=32, stem=StemSpec(channels=32, kernel=3, stride=2), num_classes=5,
        fires=(FireSpec(squeeze_channels=16, expand1x1_channels=48, expand3x3_channels=48),) * 2,
    )  # fmt: skip
    return SqzFile(
        network=random_network(spec, seed=3),
        labels=Labels(tuple("abcde")),
        preprocessing=Preprocessing(crop_size=32, resize_size=36),
        facts={"temperature": 1.5},
    )


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_bytes(build_page(encode_sqz(base_contents()))[0])
    return path


@pytest.fixture
def page(browser, page_file):
    page = open_page(browser, page_file, viewport={"width": 1280, "height": 800})
    errors = []
    page.on("pageerror", lambda error: errors.append(error))  # noqa: PLW0108
    page.click("#mode-teach")
    yield page
    page.context.close()
    assert errors == []


def add(page, index, name, colour, count, seed=0):
    """Name a class and give it photos."""
    field = page.locator(".card input[type=text]").nth(index)
    field.fill(name)
    field.press("Tab")
    before = int(page.locator(".card .count").nth(index).inner_text().split()[0])
    files = [
        {"name": f"{i}.png", "mimeType": "image/png", "buffer": data}
        for i, data in enumerate(photos(colour, count, seed))
    ]
    page.locator(".card input[type=file]").nth(index).set_input_files(files)
    wait_for_counts(page, index, before + count)


def wait_for_counts(page, index, count):
    page.wait_for_function(
        "([i, n]) => document.querySelectorAll('.card .count')[i].textContent.startsWith(`${n} photo`)",
        arg=[index, count],
    )
    page.wait_for_function("() => document.getElementById('state').textContent.startsWith('Ready')")


def counts(page):
    return [int(text.split()[0]) for text in page.locator("#classes .count").all_inner_texts()]


def test_taught_page_goes_on_learning_and_writes_a_file_with_the_same_answers(browser, page, tmp_path):
    add(page, 0, "red", "red", 6)
    add(page, 1, "green", "green", 5)
    page.click("#add-class")
    add(page, 2, "blue", "blue", 4)
    assert page.inner_text("#judged").startswith("15 of 15 photos are classified correctly when each is left out")
    with page.expect_download() as download:
        page.click("#save-page")
    download.value.save_as(tmp_path / "taught.html")

    again = open_page(browser, tmp_path / "taught.html")
    assert again.locator(".card input[type=text]").evaluate_all("all => all.map(({ value }) => value)") == [
        "red", "green", "blue",
    ]  # fmt: skip
    assert counts(again) == [6, 5, 4]
    assert again.inner_text("#judged") == page.inner_text("#judged")
    again.click("#measure")
    again.wait_for_selector("#measured:has-text('output bit-exact')")
    again.click("#add-class")
    add(again, 3, "grey \u00fc", "grey", 5)
    with again.expect_download() as download:
        again.click("#save-sqz")
    download.value.save_as(tmp_path / "taught.sqz")

    classifier = Classifier(tmp_path / "taught.sqz")
    assert classifier.contents.labels.names == ("red", "green", "blue", "grey \u00fc")
    for colour in COLOURS:
        for photo in photos(colour, 2, seed=9):
            logits = classifier.logits(classifier.preprocessing(photo)[None])[0]
            assert np.array_equal(classify_in_page(again, photo, taught=True).logits, logits)
    again.context.close()


def test_file_of_the_page_is_python_s_to_the_byte(page):
    taught = {"red": photos("red", 7), "green": photos("green", 3), "one": photos("blue", 1)}
    page.click("#add-class")
    for index, (name, colour) in enumerate({"red": "red", "green": "green", "one": "blue"}.items()):
        add(page, index, name, colour, len(taught[name]))
    with page.expect_download() as download:
        page.click("#save-sqz")
    contents = base_contents()
    base, network = encode_sqz(contents), contents.network
    reader = Classifier(contents)
    pixels = np.stack([reader.preprocessing(photo) for of_class in taught.values() for photo in of_class])
    head, classes = network.spec.convs[-1], np.repeat([0, 1, 2], [7, 3, 1])
    code = FeatureCode.of(head.in_size**2, is_signed=network.tensor(head.inputs[0]).zero_point != 0)
    codes = code.encode(ReferenceEngine(network).features(pixels))
    fit = fit_numpy(code.decode(codes), classes, 3)
    right = fit.scores.argmax(1) == classes
    facts = {"exponent": fit.exponent, "gain": fit.gain, "kept": 0, "photos": [7, 3, 1], "right": int(right.sum())}
    meta = {"labels": {"names": list(taught)}, "provenance": {"taught": facts}}
    meta["preprocessing"] = contents.preprocessing.to_dict()
    rule = fit_unknown(code.decode(codes) << code.shift, classes, counts=right).rule.encode()
    expected = replace_head(base, contents, quantize_head(fit, code, head.out_size**2), meta, rule)
    assert download.value.path().read_bytes() == expected


def test_file_of_two_steps_is_that_of_one(page, tmp_path):
    saved = []
    for _ in range(2):
        add(page, 0, "red", "red", 3, seed=1)
        add(page, 1, "green", "green", 4, seed=2)
        with page.expect_download() as download:
            page.click("#save-sqz")
        saved.append(download.value.path().read_bytes())
        for _ in range(4):  # photos and names, undone
            page.click("#undo")
        assert counts(page) == [0, 0]
    assert saved[0] == saved[1]


@pytest.mark.parametrize("keep", [False, True])
def test_page_in_two_steps_writes_the_file_of_teach(browser, page, tmp_path, keep):
    """Python adds to a `.taught` file, the page to a saved page."""
    (tmp_path / "base.sqz").write_bytes(encode_sqz(base_contents()))
    steps = [{"blau": ("blue", 4), "gr\u00fcn": ("green", 3)}, {"gr\u00fcn": ("green", 2), "rot": ("red", 4)}]
    for number, step in enumerate(steps):
        for name, (colour, count) in step.items():
            folder = tmp_path / f"step{number}" / name
            folder.mkdir(parents=True)
            for index, data in enumerate(photos(colour, count, seed=number)):
                (folder / f"{index}.png").write_bytes(data)
        foreign = [] if keep or number else [tmp_path / "foreign"]
        for index, data in enumerate(photos("grey", 3) if foreign else []):
            (tmp_path / "foreign").mkdir(exist_ok=True)
            (tmp_path / f"foreign/{index}.png").write_bytes(data)
        base = "new.sqz" if number else "base.sqz"
        teach(tmp_path / f"step{number}", on=tmp_path / base, output=tmp_path / "new.sqz", keep=keep, foreign=foreign)

    page.locator("#keep").set_checked(keep)
    add(page, 0, "blau", "blue", 4)
    add(page, 1, "gr\u00fcn", "green", 3)
    assert page.locator("#other").is_visible() != keep
    if not keep:
        files = [{"name": f"{i}.png", "mimeType": "image/png", "buffer": p} for i, p in enumerate(photos("grey", 3))]
        page.locator("#other input[type=file]").set_input_files(files)
        page.wait_for_selector("#other .count:has-text('3 photos')")
        page.wait_for_function("() => document.getElementById('state').textContent === 'Ready: 2 classes'")
    with page.expect_download() as download:
        page.click("#save-page")
    download.value.save_as(tmp_path / "step.html")
    again = open_page(browser, tmp_path / "step.html")
    assert again.locator("#keep").is_checked() == keep
    add(again, 1, "gr\u00fcn", "green", 2, seed=1)
    again.click("#add-class")
    add(again, 2, "rot", "red", 4, seed=1)
    with again.expect_download() as download:
        again.click("#save-sqz")
    assert download.value.path().read_bytes() == (tmp_path / "new.sqz").read_bytes()
    again.context.close()


def test_same_photo_counts_once(page):
    add(page, 0, "red", "red", 3)
    mixed = [*photos("red", 3), *photos("red", 1, seed=9)]
    again = [{"name": "x.png", "mimeType": "image/png", "buffer": photo} for photo in mixed]
    page.locator(".card input[type=file]").nth(0).set_input_files(again)
    wait_for_counts(page, 0, 4)
    page.wait_for_selector("#error:has-text('3 of 4 photos are already in this class, and count only once.')")


@pytest.mark.parametrize(("name", "keep"), [("RE_D", False), ("E", True)])
def test_names_that_are_one_to_python_are_one_class(page, name, keep):
    page.locator("#keep").set_checked(keep)
    add(page, 0, "re d", "red", 2)
    add(page, 1, name, "green", 2)
    page.wait_for_selector(f"#error:has-text('Two classes are called {name}: rename one of them')")
    assert page.is_disabled("#save-sqz")
    page.locator(".card input[type=text]").nth(1).fill("green")
    page.locator(".card input[type=text]").nth(1).press("Tab")
    page.wait_for_function("() => !document.getElementById('save-sqz').disabled")
    assert page.inner_text("#state") == f"Ready: {7 if keep else 2} classes"
    for _ in range(2):
        page.click("button[aria-label='Remove class 1']")
    page.wait_for_function("() => document.getElementById('state').textContent === 'Ready'")


def test_photo_in_the_wrong_place_is_shown_and_moved(page):
    add(page, 0, "red", "red", 8)
    add(page, 1, "green", "green", 8)
    add(page, 0, "red", "green", 1, seed=5)
    page.click("#suspects summary")
    assert re.match("red, photo 9: looks like green", page.locator("#doubtful bdi").first.inner_text())
    page.click("#doubtful button:has-text('Move to green')")
    wait_for_counts(page, 1, 9)
    assert counts(page) == [8, 9]
    page.click("#undo")
    assert counts(page) == [9, 8]


def test_class_of_a_doubtful_photo_can_be_removed(page, tmp_path):
    page.click("#add-class")
    for index, name in enumerate(("red", "green", "blue")):
        add(page, index, name, name, 6)
    add(page, 2, "blue", "red", 1, seed=5)  # named by the places of both classes
    page.wait_for_selector("#suspects:visible")
    page.click("button[aria-label='Remove class 1']")
    page.wait_for_function("() => document.getElementById('judged').textContent.startsWith('12 of 13')")
    page.click("#undo")
    page.wait_for_function("() => document.getElementById('judged').textContent.startsWith('18 of 19')")
    page.click("button[aria-label='Remove class 3']")
    page.wait_for_function("() => document.getElementById('judged').textContent.startsWith('12 of 12')")
    with page.expect_download() as download:
        page.click("#save-sqz")
    download.value.save_as(tmp_path / "taught.sqz")
    assert Classifier(tmp_path / "taught.sqz").class_names == ("red", "green")


def test_photo_is_answered_at_once_with_the_new_classes(page):
    add(page, 0, "red", "red", 3)
    add(page, 1, "green", "green", 3)
    page.set_input_files("#file", {"name": "x.png", "mimeType": "image/png", "buffer": photos("green", 1, seed=3)[0]})
    page.wait_for_selector("#results li:first-child bdi:has-text('green')")  # also where the rule says unknown
    page.click("#mode-classify")
    page.wait_for_function("() => ['a', 'b', 'c', 'd', 'e'].includes(document.getElementById('best').textContent)")


def test_held_button_films_with_mouse_and_keyboard(page):
    page.locator(".card .hold").nth(0).hover()
    page.mouse.down()
    page.wait_for_function("() => parseInt(document.querySelector('.card .count').textContent) >= 3")
    page.mouse.up()
    held = counts(page)[0]
    page.locator(".card .hold").nth(1).focus()
    page.keyboard.down(" ")
    page.wait_for_function("() => parseInt(document.querySelectorAll('.card .count')[1].textContent) >= 2")
    page.keyboard.up(" ")
    assert counts(page)[0] == held
    page.click("#undo")
    assert counts(page) == [held, 0]


def test_odd_input_is_answered_in_words(page):
    page.locator(".card input[type=file]").nth(0).set_input_files(
        [
            {"name": "x.png", "mimeType": "image/png", "buffer": b"no image"},
            {"name": "y.png", "mimeType": "image/png", "buffer": photos("red", 1)[0]},
        ]
    )
    page.wait_for_selector("#error:has-text('1 of 2 files are not images')")
    assert counts(page) == [1, 0]
    assert page.is_disabled("#save-sqz")
    add(page, 1, "</script><b>", "green", 1)
    assert page.inner_text("#judged").startswith("Done. Add a second photo to each class")
    with page.expect_download() as download:
        page.click("#save-page")
    assert download.value.path().read_text().count("</script><b>") == 0


@pytest.mark.parametrize("is_last", [False, True])
def test_unreadable_photo_is_named_after_learning_too(page, is_last):
    add(page, 0, "red", "red", 2)
    add(page, 1, "green", "green", 2)
    bad = {"name": "x.png", "mimeType": "image/png", "buffer": b"no image"}
    good = {"name": "y.png", "mimeType": "image/png", "buffer": photos("green", 1, seed=3)[0]}
    page.locator(".card input[type=file]").nth(1).set_input_files([good, bad] if is_last else [bad, good])
    wait_for_counts(page, 1, 3)
    page.wait_for_selector("#best:has-text('green')")
    assert page.inner_text("#error") == "1 of 2 files are not images that this browser can read."


def test_cards_can_be_reached_and_have_names(page):
    roles = page.locator("#classes").get_by_role("textbox")
    assert [roles.nth(i).get_attribute("aria-label") for i in range(2)] == ["Name of class 1", "Name of class 2"]
    assert page.get_by_role("button", name="Remove class 2").count() == 1
    assert page.locator("#mode-teach").get_attribute("aria-pressed") == "true"
    page.set_viewport_size({"width": 360, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")

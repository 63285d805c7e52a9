"""The exported page in a real Chromium, opened from its file: what it computes, shows, says and never does."""

import base64
import csv
import dataclasses
import io
import re
import socket
import threading

import numpy as np
import pytest
from PIL import Image

from exported import need_browser
from image_files import encode, hand_made_files, odd_files
from networks import random_network, tiny_spec, unknown_rule
from squeezenet import Labels, Preprocessing, SqzFile, StemSpec, predict
from squeezenet.classifier import Classifier
from squeezenet.errors import ImageError
from squeezenet.exports import build_page
from squeezenet.exports.browser import classify_in_page, open_browser, open_page
from squeezenet.fileformat import encode_sqz

HOSTILE = (
    "<script>document.title = 'owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "\"quotes\" & 'more'",
    "\u202eright to left \u05e9\u05dc\u05d5\u05dd",
    "x" * 65_536,
)


def contents_with(labels=None, **preprocessing):
    how = Preprocessing(crop_size=16, resize_size=20, **preprocessing)
    return SqzFile(network=random_network(tiny_spec(), seed=4), labels=labels, preprocessing=how)


@pytest.fixture(scope="module")
def browser():
    need_browser()
    with open_browser("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream") as browser:
        yield browser


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_bytes(build_page(encode_sqz(contents_with(Labels(HOSTILE))))[0])
    return path


@pytest.fixture
def page(browser, page_file):
    page = open_page(browser, page_file, viewport={"width": 1280, "height": 800})
    yield page
    page.context.close()


def noise(width=40, height=30, channels=3, seed=3):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def turned(orientation):
    exif = Image.Exif()
    exif[274] = orientation
    return exif


def profile():
    """A colour profile that would change every colour if it were heeded."""
    from PIL import ImageCms

    return ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()


def png_bits(pixels):
    return encode(Image.fromarray(pixels))


FILES = {
    "png": png_bits(noise()),
    "large": png_bits(noise(900, 1300)),
    "alpha": png_bits(noise(channels=4)),
    "grey and alpha": encode(Image.fromarray(noise(channels=4)).convert("LA")),
    "grey": png_bits(noise(channels=1)),
    "16 bits": encode(Image.fromarray(np.random.default_rng(1).integers(0, 65536, (30, 40)).astype(np.uint16))),
    "palette": encode(Image.fromarray(noise()).quantize(32)),
    "gif": encode(Image.fromarray(noise()).quantize(32), "GIF"),
    "bmp": encode(Image.fromarray(noise()), "BMP"),
    "webp": encode(Image.fromarray(noise()), "WEBP", lossless=True),
    "profile": encode(Image.fromarray(noise()), icc_profile=profile()),
    **{f"png turned {n}": encode(Image.fromarray(noise()), exif=turned(n)) for n in (2, 6, 7)},
    **{
        f"webp turned {n}": encode(Image.fromarray(noise()), "WEBP", lossless=True, exif=turned(n)) for n in range(2, 9)
    },
}  # fmt: skip


def test_photo_that_comes_before_the_model_is_answered_alike(browser, page_file):
    photo = base64.b64encode(encode(Image.fromarray(noise()))).decode()
    context = browser.new_context()
    context.set_default_timeout(30_000)
    context.add_init_script(f"""addEventListener("DOMContentLoaded", () => {{
        self.early = squeezenet.classify(new Blob([Uint8Array.from(atob("{photo}"), (char) => char.charCodeAt(0))]));
    }});""")
    page = context.new_page()
    page.goto(page_file.as_uri(), wait_until="domcontentloaded")
    early = page.evaluate("early.then(({ logits }) => Array.from(logits))")
    assert np.array_equal(early, classify_in_page(page, encode(Image.fromarray(noise()))).logits)
    context.close()


def test_files_of_every_kind_give_python_s_bits(page):
    classifier = Classifier(contents_with())
    differing = {}
    for name, data in FILES.items():
        expected = classifier.logits(classifier.preprocessing(data)[None])[0]
        if not np.array_equal(classify_in_page(page, data).logits, expected):
            differing[name] = float(np.abs(classify_in_page(page, data).logits - expected).max())
    assert differing == {}


@pytest.mark.parametrize("kernels", ["plain", "pairs", "dot"])
def test_every_kind_of_kernels_gives_python_s_bits(browser, tmp_path, kernels):
    how = Preprocessing(crop_size=16, resize_size=20)
    for max_weight in (7, 40, 127):
        network = random_network(tiny_spec(), seed=max_weight, max_weight=max_weight)
        contents = SqzFile(network=network, preprocessing=how)
        (tmp_path / "page.html").write_bytes(build_page(encode_sqz(contents))[0])
        page = open_page(browser, tmp_path / "page.html", kernels=kernels)
        assert page.evaluate("squeezenet.kernels") == kernels
        classifier = Classifier(contents)
        expected = classifier.logits(classifier.preprocessing(FILES["png"])[None])[0]
        assert np.array_equal(classify_in_page(page, FILES["png"]).logits, expected)
        page.context.close()


def test_photos_of_none_of_the_classes_are_said_to_be(browser, tmp_path):
    rule = unknown_rule(tiny_spec(), 2, threshold=35_300)
    plain = contents_with(Labels(tuple("abcde")))
    contents = dataclasses.replace(plain, unknown=rule, facts={"temperature": 0.5})
    data, classifier = encode_sqz(contents), Classifier(contents)
    (tmp_path / "page.html").write_bytes(build_page(data)[0])
    page = open_page(browser, tmp_path / "page.html")
    photos = [png_bits(noise(seed=seed) // (1 + 60 * (seed % 2))) for seed in range(8)]
    answers = list(predict(classifier, [io.BytesIO(photo) for photo in photos]))
    assert {answer.is_unknown for answer in answers} == {False, True}
    for photo, answer in zip(photos, answers, strict=True):
        found = page.evaluate(
            """async (data) => {
              const { unknown, top } = await squeezenet.classify(new Blob([new Uint8Array(data)]), {});
              return [unknown, top[0].probability];
            }""",
            list(photo),
        )
        assert found == [answer.is_unknown, pytest.approx(answer.predictions[0].probability)]
    stranger = next(photo for photo, answer in zip(photos, answers, strict=True) if answer.is_unknown)
    choose(page, stranger)
    page.wait_for_selector("#results button")
    assert page.locator("#best").inner_text() == "None of these"
    assert page.locator("#also").inner_text().startswith("nearest: ")
    page.context.close()


# What docs/export.md says of files on which Python and Chromium differ, by the names of `odd_files`.
DIFFERENCES = {
    "only Python": (
        "TIFF .*", "JPEG2000 .*", "PPM .*", "PNG without IEND", "PNG, unknown critical chunk", "PNG with too few rows",
        "PNG without its palette",
    ),
    "only the page": ("BMP 2.*", "BMP 16 by masks 444", "BMP 32 by masks, red first", "BMP in runs that skip", "CUR"),
    "other values": (
        "BMP 16", "BMP 16 by masks 5.5", "BMP 16 with alpha", "WEBP with alpha, turned", "AVIF animated",
        "AVIF with alpha.*", "APNG whose default.*", "PNG, EXIF behind the pixels", "PNG beyond its palette",
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:::PIL")
def test_odd_files_give_python_s_bits_or_a_named_difference(page):
    classifier, names, found = Classifier(contents_with()), [], {}
    files = [*odd_files(), *hand_made_files()]
    for (name, data), theirs in zip(files, classify_all(page, [data for _, data in files]), strict=True):
        try:
            ours = classifier.logits(classifier.preprocessing(data)[None])[0].tolist()
        except ImageError:
            ours = None
        names.append(name)
        if ours != theirs:
            kind = "only the page" if ours is None else "only Python" if theirs is None else "other values"
            found.setdefault(kind, []).append(name)
    assert len(names) > 850
    unnamed = {
        kind: [name for name in differing if not any(re.fullmatch(pattern, name) for pattern in DIFFERENCES[kind])]
        for kind, differing in found.items()
    }
    assert unnamed == {kind: [] for kind in DIFFERENCES}


def classify_all(page, files):
    """Logits of many files at one go; None for those that the page cannot read."""
    code = """async (files) => {
      const found = [];
      for (const file of files) {
        const bytes = Uint8Array.from(atob(file), (char) => char.charCodeAt(0));
        const { unreadable, logits } = await squeezenet.classify(new Blob([bytes]));
        found.push(unreadable ? null : Array.from(logits));
      }
      return found;
    }"""
    return page.evaluate(code, [base64.b64encode(data).decode() for data in files])


def test_activation_maps_are_the_engine_s(page):
    page.set_input_files("#file", {"name": "a.png", "mimeType": "image/png", "buffer": FILES["png"]})
    page.wait_for_selector("#results button")
    expected = Classifier(contents_with()).activation_map(io.BytesIO(FILES["png"]))
    got = page.evaluate(
        """async (data) => {
          const blob = new Blob([new Uint8Array(data)]);
          return Array.from((await squeezenet.classify(blob, { map: true })).maps[0]);
        }""",
        list(FILES["png"]),
    )
    assert got == expected.ravel().tolist()


def choose(page, data, name="photo.png", kind="image/png"):
    page.set_input_files("#file", {"name": name, "mimeType": kind, "buffer": data})


def test_hostile_names_are_shown_as_text_and_cut_short(page):
    dialogs = []
    page.on("dialog", lambda dialog: dialogs.append(dialog.message))
    choose(page, FILES["png"])
    page.wait_for_selector("#results button")
    shown = page.locator("#results bdi").all_inner_texts()
    first = {name.split(",")[0].strip() for name in HOSTILE[:4]}
    assert first <= set(shown)
    assert "x" * 120 + "…" in shown
    assert page.locator("#results script, #results img, h2 script, h2 img").count() == 0
    assert page.title() == "tiny"
    assert dialogs == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_result_has_bars_and_a_heat_map_for_the_chosen_class(page):
    choose(page, FILES["png"])
    page.wait_for_selector("#results button")
    rows = page.locator("#results button")
    assert rows.count() == 5
    assert rows.nth(0).get_attribute("aria-pressed") == "true"
    shares = [float(text.strip("< %")) for text in page.locator("#results .share").all_inner_texts()]
    assert shares == sorted(shares, reverse=True)
    heat = "document.getElementById('heat').toDataURL()"
    before = page.evaluate(heat)
    rows.nth(2).click()
    assert rows.nth(2).get_attribute("aria-pressed") == "true"
    assert rows.nth(0).get_attribute("aria-pressed") == "false"
    assert page.evaluate(heat) != before
    page.fill("#slider", "0")
    assert page.evaluate("getComputedStyle(document.getElementById('heat')).opacity") == "0"
    assert page.inner_text("#time").endswith(" ms")


def test_maps_of_any_size_are_drawn(browser, tmp_path):
    stem = StemSpec(channels=4, kernel=1, stride=1)
    network = random_network(tiny_spec(stem=stem, pools=(), input_size=400))  # 160,000 positions
    (tmp_path / "page.html").write_bytes(build_page(encode_sqz(SqzFile(network=network)))[0])
    page = open_page(browser, tmp_path / "page.html")
    choose(page, FILES["png"])
    page.wait_for_selector("#results button, #error:not([hidden])")
    assert page.locator("#error").is_hidden(), page.inner_text("#error")
    assert page.evaluate("document.getElementById('heat').width") == 960
    page.context.close()


def test_result_is_spoken_and_everything_is_reached_by_keyboard(page):
    choose(page, FILES["png"])
    page.wait_for_selector("#results button")
    assert page.get_attribute("#say", "aria-live") == "polite"
    assert page.inner_text("#say") == f"{page.inner_text('#best')}, {page.inner_text('#results .share >> nth=0')}"
    reached = []
    page.evaluate("document.activeElement.blur()")
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.dataset.rank"))
    modes, rows = ["mode-classify", "mode-teach"], ["0", "1", "2", "3", "4"]
    assert reached[:11] == [*modes, "choose", "camera", "slider", *rows, "measure"]
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    assert page.locator("#results [aria-pressed=true]").get_attribute("data-rank") == "4"


@pytest.mark.parametrize("data", [b"just text", b"", FILES["png"][:60]], ids=["text", "empty", "cut"])
def test_files_that_are_no_images_are_named(page, data):
    choose(page, data, "notes <b>.txt", "text/plain")
    page.wait_for_selector("#error:not([hidden])")
    assert page.inner_text("#error").startswith("“notes <b>.txt” is not an image that this browser can read.")
    assert page.get_attribute("#error", "role") == "alert"
    choose(page, FILES["png"])
    page.wait_for_selector("#results button")
    assert page.locator("#error").is_hidden()


TRANSFER = """([kind, data]) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([new Uint8Array(data)], "photo.png", { type: "image/png" }));
  const event = kind === "paste"
    ? new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true })
    : new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true });
  document.body.dispatchEvent(event);
}"""


@pytest.mark.parametrize("kind", ["paste", "drop"])
def test_images_are_pasted_and_dropped(page, kind):
    page.evaluate(TRANSFER, [kind, list(FILES["png"])])
    page.wait_for_selector("#results button")
    assert page.locator("#photo").is_visible()


def test_camera_runs_live_until_a_photo_is_taken(page):
    page.click("#camera")
    page.wait_for_selector("#results button")
    assert page.locator("#live").is_visible()
    assert page.locator("#choose").is_hidden()
    page.click("#shoot")
    page.wait_for_selector("#photo:not([hidden])")
    assert page.locator("#live").is_hidden()
    assert page.evaluate("document.getElementById('video').srcObject") is None
    page.click("#camera")
    page.wait_for_selector("#live:not([hidden])")
    page.keyboard.press("Escape")
    assert page.locator("#live").is_hidden()


def test_browser_without_simd_is_told(browser, page_file):
    page = browser.new_context().new_page()
    page.add_init_script("WebAssembly.validate = () => false")
    page.goto(page_file.as_uri())
    page.wait_for_selector("#error:not([hidden])")
    assert page.inner_text("#error").startswith("This browser does not support WebAssembly SIMD, which the model needs")
    assert page.locator("#choose").is_disabled()
    page.context.close()


WORKERS = {  # and what the page then shows
    "self.Worker = class { postMessage() {} }": "#choose",
    "self.Worker = class { postMessage() { setTimeout(() => this.onerror()); } }": "#error",
}


@pytest.mark.parametrize("broken", WORKERS)
def test_page_is_shown_where_no_worker_starts(browser, page_file, broken):
    page = browser.new_context().new_page()
    page.set_default_timeout(30_000)
    page.add_init_script(broken)
    page.goto(page_file.as_uri())
    page.wait_for_selector(WORKERS[broken])  # visible
    page.context.close()


def test_thousands_of_classes_have_a_comma(browser, tmp_path):
    network = random_network(tiny_spec(num_classes=1234))
    (tmp_path / "page.html").write_bytes(build_page(encode_sqz(SqzFile(network=network)))[0])
    page = open_page(browser, tmp_path / "page.html")
    assert page.inner_text("#state") == "Ready: 1,234 classes"
    page.context.close()


def test_page_whose_scripts_are_blocked_says_so(browser, page_file):
    page = browser.new_context(reduced_motion="reduce").new_page()
    policy = {"Content-Security-Policy": "script-src 'none'", "Content-Type": "text/html; charset=utf-8"}
    page.route("**/*", lambda route: route.fulfill(body=page_file.read_bytes(), headers=policy))
    page.goto("http://page.test/")
    assert not page.locator("#blocked").is_visible()
    page.evaluate("document.getAnimations().forEach((animation) => animation.finish())")  # eight seconds later
    assert page.locator("#blocked").is_visible()
    page.context.close()


def test_scripts_take_the_word_of_blocked_scripts_away(page):
    assert page.locator("#blocked").count() == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data, at: data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :], "The model "),
        (lambda data, at: data[:at], "This page is damaged"),
        (lambda data, at: data[: data.index(b'id="page"') - 40], "This page is damaged"),
    ],
)
def test_damaged_page_says_so(browser, page_file, tmp_path, change, words):
    data = page_file.read_bytes()
    (tmp_path / "damaged.html").write_bytes(change(data, data.index(b'id="model"') + 400))
    page = browser.new_context().new_page()
    page.set_default_timeout(30_000)
    page.goto((tmp_path / "damaged.html").as_uri())
    page.wait_for_selector("#error:not([hidden])")
    assert page.inner_text("#error").startswith(words)
    page.context.close()


def test_page_asks_for_nothing_even_from_a_server_beside_it(browser, page_file):
    """The browser reports only the page and its worker, and a listener hears nothing of what a script then tries."""
    heard = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        port = server.getsockname()[1]

        def listen():
            try:
                heard.append(server.accept()[1])
            except TimeoutError:
                return

        page = browser.new_context().new_page()
        requests = []
        page.on("request", lambda request: requests.append(request.url))
        page.goto(page_file.as_uri())
        page.evaluate("squeezenet.ready")
        listener = threading.Thread(target=listen)
        listener.start()
        choose(page, FILES["png"])
        page.wait_for_selector("#results button")
        own_requests = [url.split(":")[0] for url in requests]
        refused = page.evaluate(f"fetch('http://127.0.0.1:{port}/').then(() => false, () => true)")
        page.evaluate(
            f"""() => {{
              const image = new Image();
              image.src = "http://127.0.0.1:{port}/x.png";
              return new Promise((done) => {{ image.onerror = image.onload = done; }}).then(() => null);
            }}"""
        )
        listener.join()
        page.context.close()
    assert refused
    assert heard == []
    assert own_requests == ["file", "blob"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_follow_the_system(browser, page_file, scheme):
    page = open_page(browser, page_file, color_scheme=scheme)
    color = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert color == {"light": "rgb(246, 243, 236)", "dark": "rgb(19, 18, 16)"}[scheme]
    page.context.close()


@pytest.mark.parametrize("width", [320, 390, 760])
def test_phones_get_one_column_that_fits(browser, page_file, width):
    page = open_page(browser, page_file, viewport={"width": width, "height": 700})
    choose(page, FILES["png"])
    page.wait_for_selector("#results button")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    stage, panel = page.locator("#stage").bounding_box(), page.locator(".panel").bounding_box()
    assert panel["y"] > stage["y"] + stage["height"]
    heights = [page.locator(name).bounding_box()["height"] for name in ("#choose", "#camera")]
    assert min(heights) >= 44
    page.context.close()


# --- several photos, and the test of the device ---


def many(count):
    return [
        {"name": f"{index}.png", "mimeType": "image/png", "buffer": png_bits(noise(seed=index))}
        for index in range(count)
    ]


def test_several_photos_make_a_table_that_can_be_saved(page):
    files = [*many(11), {"name": "=note.png", "mimeType": "image/png", "buffer": b"no image"}]
    page.set_input_files("#file", files)
    page.wait_for_selector("#csv:enabled")
    assert page.locator("#table tbody tr").count() == 12
    assert page.locator("#table tbody tr").last.inner_text().split("\t")[1] == "not an image"
    with page.expect_download() as download:
        page.click("#csv")
    assert download.value.suggested_filename == "classes.csv"
    with open(download.value.path(), newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert rows[-1]["file"] == "'=note.png"  # no formula
    classifier = Classifier(contents_with())
    for index in range(11):
        (expected,) = classifier.predict([io.BytesIO(png_bits(noise(seed=index)))])
        of_file = [row for row in rows if row["file"] == f"{index}.png"]
        assert [int(row["class_index"]) for row in of_file] == [one.index for one in expected]
        assert float(of_file[0]["probability"]) == pytest.approx(expected[0].probability, rel=1e-9)


def test_a_line_of_the_table_shows_its_photo(page):
    page.set_input_files("#file", many(3))
    page.wait_for_selector("#csv:enabled")
    first = page.evaluate("document.getElementById('photo').toDataURL()")
    page.locator("#table tbody button").nth(2).click()
    page.wait_for_function("data => document.getElementById('photo').toDataURL() !== data", arg=first)


def test_workers_give_the_bits_of_one(page):
    photos = [png_bits(noise(seed=index)) for index in range(12)]
    classifier = Classifier(contents_with())
    expected = classifier.logits(np.stack([classifier.preprocessing(photo) for photo in photos]))
    script = """async (photos) => {
      const blobs = photos.map((bytes) => new Blob([new Uint8Array(bytes)]));
      const answers = await squeezenet.classifyAll(blobs, { workers: 3 });
      return answers.map(({ logits }) => Array.from(logits));
    }"""
    assert np.array_equal(page.evaluate(script, [list(photo) for photo in photos]), expected)


def test_measure_says_whether_bits_are_right(page, browser, page_file, tmp_path):
    page.click("#measure")
    page.wait_for_selector("#measured:has-text('output bit-exact')")
    line = page.inner_text("#measured")
    assert re.match(
        r"squeezenet tiny: \d+\.\d\d ms per image, (pairs|dot) kernels, output bit-exact, \d+ cores, Mozilla", line
    )
    wrong = tmp_path / "wrong.html"
    wrong.write_text(re.sub(r'"check":\d+', '"check":1', page_file.read_text()))
    other = open_page(browser, wrong)
    other.click("#measure")
    other.wait_for_selector("#measured:has-text('output WRONG')")
    other.context.close()

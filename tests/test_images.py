"""Image files of every kind: what they are is read off their bytes, and what they cost is bounded."""

import io
import os
import struct
import subprocess
import sys
import threading
import time
import types
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from image_files import encode, hand_made_files, odd_files, photo, png_of
from squeezenet import Classifier, images, load_image
from squeezenet.data import decode_batches, open_data
from squeezenet.data.decode import decode_for_crops
from squeezenet.errors import ImageError
from squeezenet.images import image_size, is_image_start
from squeezenet.preprocess import Preprocessing

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "JPEG2000", "PPM", "ICO", "MPO"])
def test_kind_is_read_off_the_first_bytes(name):
    data = encode(photo(), name)
    assert is_image_start(data[: images.SIGNATURE_BYTES])
    assert image_size(data) == load_image(data).size
    assert Preprocessing.plain(16)(data).shape == (16, 16, 3)
    assert decode_for_crops(data, 16).shape[:2] == (16, 24 if name != "ICO" else decode_for_crops(data, 16).shape[1])


@pytest.mark.parametrize(
    "text", [b"Python is a language", b"BMW and others", b"P2P networks", b"%PDF-1.7", b"", b"GIF"]
)
def test_other_bytes_are_not_taken_for_images(text):
    assert not is_image_start(text)


def test_transparent_colour_of_16_bit_grey_is_laid_over_white():
    pixels = np.full((64, 64), 1000, np.uint16)
    pixels[16:48, 16:48] = 40000
    image = load_image(encode(Image.fromarray(pixels), transparency=1000))
    assert (image.getpixel((0, 0)), image.getpixel((32, 32))) == ((255,) * 3, (156,) * 3)


@pytest.mark.parametrize(
    ("depth", "color", "row", "colour", "expected"),
    [
        (1, 0, b"\x80", ">1H:0", [255, 255]),
        (2, 0, b"\xd0", ">1H:3", [255, 85]),
        (4, 0, b"\xf3", ">1H:15", [255, 51]),
        (4, 0, b"\x3f", ">1H:3", [255, 255]),
        (8, 0, b"\x07\x09", ">1H:7", [255, 9]),
        (16, 0, b"\x07\x01\x09\x00", ">1H:1793", [255, 9]),
        (8, 2, b"\1\2\3\5\5\5", ">3H:1,2,3", [255, 5]),
        (16, 2, b"\1\1\2\2\3\3\5\0\5\0\5\0", ">3H:257,514,771", [255, 5]),
    ],
)
def test_transparent_colours_of_every_depth(depth, color, row, colour, expected):
    kind, _, values = colour.partition(":")
    data = png_of(2, 1, depth, color, [row], (b"tRNS", struct.pack(kind, *map(int, values.split(",")))))
    assert np.asarray(load_image(data))[0, :, 0].tolist() == expected


def test_what_a_gif_s_first_frame_leaves_out_is_white():
    frame = encode(photo(24, 18).quantize(16), "GIF", interlace=0)
    larger = np.asarray(load_image(frame[:6] + struct.pack("<HH", 30, 25) + frame[10:]))
    np.testing.assert_array_equal(larger[:18, :24], np.asarray(load_image(frame)))
    assert larger.shape == (25, 30, 3)
    assert (larger[18:] == 255).all()
    assert (larger[:, 24:] == 255).all()


def test_orientation_outside_exif_is_not_applied_to_files():
    packet = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    assert load_image(encode(photo(48, 32), "WEBP", xmp=packet)).size == (48, 32)
    exif = Image.Exif()
    exif[274] = 6
    turned = load_image(encode(photo(48, 32), "JPEG", exif=exif))
    assert turned.size == (32, 48)
    assert load_image(turned).size == (32, 48)


def test_heic_names_the_package_that_reads_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match=r"^image: a HEIC image needs another package: pip install pillow-heif$"):
        load_image(HEIC)


def test_heic_is_read_where_the_package_is_installed(monkeypatch):
    def register():
        monkeypatch.setitem(Image.OPEN, "HEIF", (lambda stream, name: photo(5, 4), None))

    monkeypatch.setitem(sys.modules, "pillow_heif", types.SimpleNamespace(register_heif_opener=register))
    assert load_image(HEIC).size == (5, 4)


@pytest.mark.parametrize("brands", [b"avifmif1", b"mif1\0\0\0\0miafavif", b"msf1\0\0\0\0avis"])
def test_avif_is_told_from_heic_by_all_its_brands(brands):
    data = b"\0\0\0\x20ftyp" + brands + bytes(40)
    with pytest.raises(ImageError, match="expected an image|cannot be decoded"):  # and not that HEIC needs a package
        load_image(data)


def test_stream_may_stand_anywhere_or_not_be_seekable():
    data = encode(photo())
    stream = io.BytesIO(data)
    stream.read()
    assert load_image(stream).size == (48, 32)
    reading, writing = os.pipe()
    os.write(writing, data)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert load_image(pipe).size == (48, 32)


def test_files_that_hold_fewer_rows_than_they_say_are_refused():
    data = bytearray(encode(photo(48, 32), "TIFF"))
    offset = struct.unpack_from("<I", data, 4)[0]
    for entry in range(offset + 2, offset + 2 + 12 * struct.unpack_from("<H", data, offset)[0], 12):
        if struct.unpack_from("<H", data, entry)[0] == 257:
            struct.pack_into("<I", data, entry + 8, 1000)  # rows
    with pytest.raises(ImageError, match="the file ends early: it holds 48x32 of 48x1000"):
        load_image(bytes(data))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"P6\n#" + b"x" * 50_000_000 + b"\n1 1 255\nabc", "header of at most 4096 bytes"),
        (b"P6" + b" " * 50_000_000 + b"1 1 255\nabc", "header of at most 4096 bytes"),
        (b"P3 2000 2000 255 " + b"1 " * 12_000_000, "at most 8000000 bytes of pixels as text, got 24000017"),
    ],
    ids=["comment", "spaces", "text"],
)
def test_ppm_of_long_headers_or_long_text_is_refused_at_once(data, message):
    start = time.process_time()
    with pytest.raises(ImageError, match=message):
        load_image(data)
    assert time.process_time() - start < 1


def test_ppm_may_have_comments_and_be_text():
    assert load_image(b"P3 # one\n# two\r2 #three\n 1\n255\n1 2 3 4 5 6").tobytes() == bytes(range(1, 7))
    assert load_image(b"P1 2 1 0 1").tobytes() == b"\xff\xff\xff\0\0\0"


def test_previews_in_raw_files_are_not_taken_for_photos():
    stored = encode(photo(), "TIFF", tiffinfo={254: 1})
    with pytest.raises(ImageError, match="a camera's raw file: export it as JPEG first"):
        load_image(stored)


def test_huge_panorama_gets_the_same_message_as_a_large_one():
    data = png_of(20000, 10000, 8, 0, [])
    with pytest.raises(ImageError, match=r"expected at most 100000000 pixels, got 20000x10000: scale it down first"):
        load_image(data)


@pytest.mark.parametrize("source", [None, 3, [[1, 2]], object()])
def test_what_is_not_an_image_is_named_by_its_type(source):
    with pytest.raises(ImageError, match=f"expected a path, .* or a uint8 array, got {type(source).__name__}"):
        load_image(source)


@pytest.mark.parametrize(
    "array",
    [np.zeros(shape, np.uint8) for shape in ((9, 9, 4), (3, 9, 9), (9,), (9, 9, 1), (0, 9, 3))]
    + [np.zeros((9, 9, 3), np.float32), np.zeros((9, 9), bool)],
)  # fmt: skip
def test_other_arrays_are_refused_with_what_is_expected(array):
    with pytest.raises(ImageError, match=r"expected an array of shape \(H, W, 3\) or \(H, W\) and dtype uint8, got"):
        Classifier("imagenette").predict(array)


def test_arrays_of_other_libraries_are_one_image():
    torch = pytest.importorskip("torch")
    pixels = np.asarray(photo(130, 130))
    classifier = Classifier("imagenette")
    assert classifier.predict(torch.from_numpy(pixels.copy())) == classifier.predict(pixels)
    assert len(classifier.predict(torch.zeros((2, 9, 9, 3), dtype=torch.uint8))) == 2


def test_columns_of_paths_are_collections(tmp_path):
    for name in "ab":
        photo().save(tmp_path / f"{name}.png")
    paths = np.array([str(tmp_path / "a.png"), str(tmp_path / "b.png")])
    assert len(Classifier("imagenette").predict(paths)) == 2
    assert len(Classifier("imagenette").predict(paths.astype(object))) == 2


def test_warnings_of_the_process_stay_as_they_were():
    before = list(warnings.filters)
    data = encode(photo(), "JPEG")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: load_image(data), range(200)))
    assert warnings.filters == before


def test_pixels_in_flight_are_bounded(monkeypatch):
    budget = images._PixelBudget()
    held, most, lock = [0], [0], threading.Lock()

    def decode(_):
        with budget.take(40_000_000):
            with lock:
                held[0] += 1
                most[0] = max(most[0], held[0])
            threading.Event().wait(0.01)
            with lock:
                held[0] -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(decode, range(16)))
    assert most[0] == 2
    with budget.take(10 * images.MAX_IMAGE_PIXELS):  # alone, whatever its size
        pass


BIG = """
import resource, sys
from concurrent.futures import ThreadPoolExecutor
from squeezenet.preprocess import Preprocessing
data = open(sys.argv[1], "rb").read()
view = Preprocessing.plain(16)
view(data[:0] or open(sys.argv[2], "rb").read())
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with ThreadPoolExecutor(3) as pool:
    list(pool.map(view, [data] * 3))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.parametrize(
    ("mode", "bytes_per_pixel"), [("I;16", 2), ("RGBA", 4), ("P", 1), ("LA", 4), ("RGB", 4)]
)  # as Pillow holds it decoded
def test_memory_of_large_images_is_that_of_one(tmp_path, mode, bytes_per_pixel):
    side = 4900  # three of them at once are too many
    image = Image.new(mode, (side, side), 1)
    options = {"transparency": b"\0\x80"} if mode == "P" else {}
    (tmp_path / "big.png").write_bytes(encode(image, compress_level=1, **options))
    (tmp_path / "small.png").write_bytes(encode(photo()))
    code = f"import squeezenet.images as i; i.MAX_IMAGE_PIXELS = {side * side}; i._PIXELS.reset()\n" + BIG
    command = [sys.executable, "-c", code, tmp_path / "big.png", tmp_path / "small.png"]
    used = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert used < bytes_per_pixel * side * side + 60_000_000


@pytest.mark.parametrize("name", ["WEBP", "JPEG2000"])
def test_formats_whose_decoders_hold_several_copies_have_a_lower_limit(name, monkeypatch):
    monkeypatch.setattr(images, "_MAX_DECODER_BYTES", 48 * 32 * 16)
    data = encode(photo(48, 32), name)
    if name == "WEBP":
        assert load_image(data).size == (48, 32)
        data = encode(photo(48, 33), name)
    with pytest.raises(ImageError, match=rf"expected at most \d+ pixels of {name} \(RGB\), got 48x3[23]: scale it"):
        load_image(data)


@pytest.mark.parametrize(("mode", "cost"), [("F", 7), ("LAB", 10), ("RGB", 1)])
def test_modes_that_take_long_to_convert_have_a_lower_limit(mode, cost, monkeypatch):
    monkeypatch.setattr(images, "_MAX_DECODER_BYTES", 48 * 32 * cost)
    assert load_image(encode(Image.new(mode, (48, 32)), "TIFF")).size == (48, 32)
    with pytest.raises(ImageError, match=rf"expected at most 1536 pixels of TIFF \({mode}\), got 48x33: scale it"):
        load_image(encode(Image.new(mode, (48, 33)), "TIFF"))


def test_predict_evaluate_and_training_see_the_same(tmp_path):
    files = [*odd_files(), *hand_made_files()]
    whole = {number for number, (name, _) in enumerate(odd_files()) if "cut off" not in name}
    (tmp_path / "cat").mkdir()
    for number, (_, data) in enumerate(files):
        (tmp_path / "cat" / f"{number:04d}.bin").write_bytes(data)
    view = Preprocessing.plain(16)
    found = {}
    ignored_by_name = {name for name, _ in open_data(tmp_path).ignored}
    for batch in decode_batches(open_data(tmp_path), view):
        found |= dict(zip(batch.indices.tolist(), batch.pixels, strict=True))
    listed = open_data(tmp_path).items
    positions = {item.name: index for index, item in enumerate(listed)}
    assert len(files) > 850
    n_read = 0
    for number, (name, data) in enumerate(files):
        path = str(tmp_path / "cat" / f"{number:04d}.bin")
        try:
            pixels = view(path)
        except ImageError:
            assert path in ignored_by_name or positions[path] not in found, name
            assert number not in whole or image_size(data) is None, name
            continue
        n_read += 1
        assert "cut off" not in name or load_image(data).size == image_size(data), name
        np.testing.assert_array_equal(found[positions[path]], pixels, name)
        np.testing.assert_array_equal(view(load_image(path)), pixels, name)
        upright = load_image(data)
        if max(upright.size) <= 8 * min(upright.size):
            np.testing.assert_array_equal(decode_for_crops(data, 4096), np.asarray(upright), name)
    assert n_read > 500


def test_child_of_a_process_that_decodes_has_all_pixels_free():
    code = (
        "import os, threading\nfrom squeezenet import images\n"
        "hold = threading.Event(); taken = threading.Event()\n"
        "def work():\n    with images._PIXELS.take(images.MAX_IMAGE_PIXELS):\n        taken.set(); hold.wait()\n"
        "thread = threading.Thread(target=work); thread.start(); taken.wait()\n"
        "child = os.fork()\n"
        "if not child:\n    with images._PIXELS.take(1):\n        os._exit(7)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])); hold.set()\n"
    )
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=30)
    assert result.stdout == "7\n"


def test_damaged_files_print_nothing(tmp_path):
    data = bytearray(encode(photo(), "TIFF"))
    offset = struct.unpack_from("<I", data, 4)[0]
    for entry in range(offset + 2, offset + 2 + 12 * struct.unpack_from("<H", data, offset)[0], 12):
        if struct.unpack_from("<H", data, entry)[0] == 277:
            struct.pack_into("<H", data, entry + 8, 250)  # samples per pixel
    (tmp_path / "damaged.tif").write_bytes(data)
    code = f"import squeezenet\ntry: squeezenet.load_image({str(tmp_path / 'damaged.tif')!r})\nexcept ValueError: pass"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stderr == b""

import contextlib
import io
import pathlib
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from image_files import encode, photo
from read_sqz import preprocess
from squeezenet.errors import ImageError
from squeezenet.preprocess import CAFFE_PREPROCESSING, TORCHVISION_PREPROCESSING, Preprocessing, load_image


def png(width, height, depth, kind, raw, *more):
    """A PNG file from its raw scan lines (each begins with its filter byte) and further chunks."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    body = b"".join(chunk(name, data) for name, data in more)
    return b"\x89PNG\r\n\x1a\n" + head + body + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def pixels_of(source):
    return np.asarray(load_image(source)).tolist()


def noise(width, height, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


# --- decoding ---


def test_rgb_is_left_as_it_is():
    image = noise(5, 3)
    np.testing.assert_array_equal(np.asarray(load_image(encode(Image.fromarray(image)))), image)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (png(2, 1, 8, 0, b"\0\x10\x20"), [[[16] * 3, [32] * 3]]),
        (png(8, 1, 1, 0, b"\0\xa5"), [[[255 * int(bit)] * 3 for bit in "10100101"]]),
        (png(4, 1, 2, 0, b"\0\x1b"), [[[0] * 3, [85] * 3, [170] * 3, [255] * 3]]),
        (png(2, 1, 4, 0, b"\0\x1f"), [[[17] * 3, [255] * 3]]),
        (png(2, 1, 8, 3, b"\0\0\1", (b"PLTE", bytes([10, 20, 30, 40, 50, 60]))), [[[10, 20, 30], [40, 50, 60]]]),
        # 16 bits: the high byte.
        (png(3, 1, 16, 0, b"\0\x12\x34\xab\xcd\xff\xff"), [[[0x12] * 3, [0xAB] * 3, [0xFF] * 3]]),
        (png(1, 1, 16, 2, b"\0\x12\x34\xab\xcd\xff\x00"), [[[0x12, 0xAB, 0xFF]]]),
        (png(1, 1, 16, 6, b"\0\x12\x34\xab\xcd\xff\xff\xff\xff"), [[[0x12, 0xAB, 0xFF]]]),
        # Transparency over white.
        (png(2, 1, 8, 4, b"\0\x40\x00\x40\xff"), [[[255] * 3, [64] * 3]]),
        (png(2, 1, 8, 6, b"\0\x0a\x14\x1e\x80\x0a\x14\x1e\x00"), [[[132, 137, 142], [255] * 3]]),
        (png(1, 1, 8, 2, b"\0\x10\x20\x30", (b"tRNS", b"\0\x10\0\x20\0\x30")), [[[255] * 3]]),
        (png(2, 1, 8, 0, b"\0\x10\x20", (b"tRNS", b"\0\x10")), [[[255] * 3, [32] * 3]]),
        (
            png(2, 1, 8, 3, b"\0\0\1", (b"PLTE", bytes([10, 20, 30, 40, 50, 60])), (b"tRNS", b"\x80")),
            [[[132, 137, 142], [40, 50, 60]]],
        ),
    ],
    ids=["grey", "1-bit", "2-bit", "4-bit", "palette", "grey 16", "rgb 16", "rgba 16", "grey alpha", "rgba",
         "rgb key", "grey key", "palette alpha"],
)  # fmt: skip
def test_every_kind_of_png_has_known_pixels(data, expected):
    assert pixels_of(data) == expected


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [
        ("1", 1, [255, 255, 255]),
        ("L", 7, [7, 7, 7]),
        ("LA", (7, 0), [255, 255, 255]),
        ("RGB", (1, 2, 3), [1, 2, 3]),
        ("RGBA", (1, 2, 3, 255), [1, 2, 3]),
        ("RGBX", (1, 2, 3, 0), [1, 2, 3]),
        ("CMYK", (0, 0, 0, 0), [255, 255, 255]),
        ("CMYK", (255, 0, 0, 0), [0, 255, 255]),
        ("CMYK", (0, 0, 0, 200), [55, 55, 55]),
        ("YCbCr", (128, 128, 128), [128, 128, 128]),
        ("HSV", (0, 255, 255), [255, 0, 0]),
        ("I", 0xABCD, [0xAB] * 3),
        ("I", -5, [0, 0, 0]),
        ("I", 1 << 20, [255, 255, 255]),
        ("I", 200, [200] * 3),
        ("F", 0.5, [128] * 3),
        ("F", 300.0, [255] * 3),
        ("I;16", 0xABCD, [0xAB] * 3),
        ("I;16B", 0xABCD, [0xAB] * 3),
        ("F", 77.0, [77, 77, 77]),
        ("PA", (0, 0), [255, 255, 255]),
    ],
)
def test_every_pillow_mode_becomes_rgb(mode, color, expected):
    image = Image.new(mode, (2, 1), color)
    assert pixels_of(image) == [[expected, expected]]
    assert image.mode == mode


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "JPEG2000", "PPM", "ICO", "MPO"])
def test_every_format_is_read(name):
    image = Image.new("RGB", (8, 8), (255, 255, 255))
    assert pixels_of(encode(image, name)) == [[[255] * 3] * 8] * 8


def test_grey_and_cmyk_jpeg_are_read():
    grey = np.asarray(load_image(encode(Image.new("L", (8, 8), 90), "JPEG")))
    assert (grey == 90).all()
    cmyk = np.asarray(load_image(encode(Image.new("CMYK", (8, 8), (0, 0, 0, 100)), "JPEG", quality=100)))
    assert np.abs(cmyk.astype(int) - 155).max() <= 1


def test_other_formats_are_refused():
    with pytest.raises(ImageError, match=r"image: expected an image \(JPEG, PNG, .*, ICO\), got something else"):
        load_image(encode(Image.new("RGB", (2, 2)), "TGA"))


def test_animations_give_their_first_frame():
    frames = [Image.new("RGB", (2, 2), color) for color in ("red", "blue")]
    for name in ("GIF", "WEBP"):
        options = {"lossless": True} if name == "WEBP" else {}
        data = encode(frames[0], name, save_all=True, append_images=frames[1:], **options)
        assert pixels_of(data) == [[[255, 0, 0]] * 2] * 2


def test_alpha_is_laid_over_white_with_one_rounding_rule():
    # docs/format.md: t = 128 * (c * a + 255 * (255 - a)) + 16384; ((t >> 8) + t) >> 15. Every colour, every alpha.
    c, a = np.meshgrid(np.arange(256), np.arange(256))
    t = 128 * (c * a + 255 * (255 - a)) + 16384
    expected = np.where(a == 0, 255, ((t >> 8) + t) >> 15)
    rgba = np.stack([c, c, c, a], axis=-1).astype(np.uint8)
    np.testing.assert_array_equal(np.asarray(load_image(Image.fromarray(rgba)))[..., 0], expected)


# Where the corners 1 2 / 3 4 of an upright image lie in a file with each EXIF orientation.
ORIENTATIONS = {1: "12/34", 2: "21/43", 3: "43/21", 4: "34/12", 5: "13/24", 6: "24/13", 7: "42/31", 8: "31/42"}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("name", ["PNG", "JPEG", "WEBP"])
def test_exif_orientation_is_applied(orientation, name):
    corners = np.array([[int(corner) for corner in row] for row in ORIENTATIONS[orientation].split("/")])
    stored = Image.fromarray(np.kron(corners * 50, np.ones((8, 16 if orientation < 5 else 8))).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if name == "WEBP" else {}
    upright = np.asarray(load_image(encode(stored.convert("RGB"), name, exif=exif, **options)))[..., 0]
    found = np.rint(upright[4::8, 4 :: upright.shape[1] // 2] / 50).astype(int)
    assert found.tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_impossible_orientation_is_passed_over(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert pixels_of(encode(Image.new("RGB", (2, 1), (9, 9, 9)), exif=exif)) == [[[9] * 3] * 2]


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("exif", [b"garbage", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff"])
def test_broken_exif_says_nothing_about_the_pixels(exif, name):
    options = {"quality": 100} if name == "JPEG" else {"lossless": True} if name == "WEBP" else {}
    data = encode(Image.new("RGB", (2, 1), (9, 9, 9)), name, exif=b"Exif\0\0" + exif, **options)
    assert pixels_of(data) == [[[9] * 3] * 2]


def test_sources_of_every_kind_give_the_same_pixels(tmp_path):
    image = photo()
    data = encode(image)
    path = tmp_path / "photo.png"
    path.write_bytes(data)
    expected = np.asarray(image)
    for source in (data, path, str(path), io.BytesIO(data), image):
        np.testing.assert_array_equal(np.asarray(load_image(source)), expected)
    with path.open("rb") as stream:
        np.testing.assert_array_equal(np.asarray(load_image(stream)), expected)


def test_file_needs_no_extension(tmp_path):
    path = tmp_path / "photo"
    path.write_bytes(encode(Image.new("RGB", (1, 1))))
    assert pixels_of(path) == [[[0, 0, 0]]]


# --- refusals ---


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ImageError, match=r"none\.png: no such file"):
        load_image(tmp_path / "none.png")


@pytest.mark.parametrize("make", ["folder", "fifo"])
def test_what_is_no_file_is_refused_at_once(tmp_path, make):
    import os

    path = tmp_path / "odd.png"
    path.mkdir() if make == "folder" else os.mkfifo(path)
    with pytest.raises(ImageError, match=r"odd\.png: expected a file, got a directory or a device"):
        load_image(path)


def test_file_too_long_is_not_read(tmp_path):
    path = tmp_path / "long.png"
    with path.open("wb") as stream:
        stream.truncate(256_000_001)
    with pytest.raises(ImageError, match=r"long\.png: expected at most 256000000 bytes, got 256000001"):
        load_image(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "image: the file is empty"),
        (b"not an image at all", "got something else"),
        (b"\x89PNG\r\n\x1a\n", "image: "),
        (png(4, 4, 8, 2, b"\0\1\2\3"), "image: cannot be decoded"),
        (encode(photo())[:60], "image: cannot be decoded"),
    ],
)
def test_damaged_data_are_refused(data, message):
    with pytest.raises(ImageError, match=message):
        load_image(data)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "BMP", "GIF"])
def test_every_truncation_is_refused_or_complete(name):
    image = photo(16, 12)
    data = encode(image, name)
    expected = np.asarray(load_image(data))
    refused = 0
    for length in range(len(data)):
        try:
            pixels = np.asarray(load_image(data[:length]))
        except ImageError:
            refused += 1
        else:
            # Only a trailer may be missing, never a pixel.
            np.testing.assert_array_equal(pixels, expected)
    assert refused >= len(data) - 20


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "BMP", "GIF"])
def test_damaged_bytes_raise_nothing_but_image_errors(name):
    data = encode(photo(16, 12), name)
    rng = np.random.default_rng(0)
    for _ in range(150):
        noisy = bytearray(data)
        for position in rng.integers(0, len(data), 3):
            noisy[position] = rng.integers(256)
        with contextlib.suppress(ImageError):
            assert load_image(bytes(noisy), max_pixels=10_000).mode == "RGB"


@pytest.mark.parametrize(("width", "height"), [(100_000, 100_000), (2**31 - 1, 2**31 - 1), (20_000, 5_001)])
def test_huge_dimensions_are_refused_before_decoding(width, height):
    data = png(width, height, 8, 2, b"")
    tracemalloc.start()
    with pytest.raises(ImageError):
        load_image(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_size_limit_is_exact():
    data = encode(Image.new("L", (10, 10)))
    assert load_image(data, max_pixels=100).size == (10, 10)
    with pytest.raises(ImageError, match="image: expected at most 99 pixels, got 10x10: scale it down first"):
        load_image(data, max_pixels=99)


def test_thin_image_that_would_resize_to_gigabytes_is_refused():
    thin = Image.new("L", (1, 60_000))
    with pytest.raises(ImageError, match=r"at most 100000000 pixels after the resize, got 256x15360000 from 1x60000"):
        TORCHVISION_PREPROCESSING(thin)
    assert CAFFE_PREPROCESSING(thin).shape == (227, 227, 3)


def test_thin_image_whose_columns_alone_would_resize_to_gigabytes_is_refused():
    with pytest.raises(ImageError, match=r"at most 100000000 pixels after the resize, got 256x400000 from 1x400000"):
        CAFFE_PREPROCESSING(Image.new("L", (1, 400_000)))


# --- geometry ---


@pytest.mark.parametrize("resample", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("width", "height", "size", "mode"),
    [
        (48, 32, 16, "short_side"), (32, 48, 16, "short_side"), (37, 23, 16, "short_side"),
        (500, 375, 64, "short_side"), (7, 5, 16, "short_side"), (16, 16, 16, "short_side"), (16, 40, 16, "short_side"),
        (1, 1, 16, "short_side"), (3, 100, 17, "short_side"), (101, 67, 24, "squash"), (24, 9, 24, "squash"),
        (9, 24, 24, "squash"), (1, 50, 24, "squash"), (640, 3, 24, "squash"),
        (23, 50, 25, "squash"), (60, 80, 24, "squash"),  # some of Pillow's versions would take the rows first
    ],
)  # fmt: skip
def test_resize_is_the_one_of_the_format_to_the_bit(width, height, size, mode, resample):
    image = noise(width, height, seed=width)
    image[: height // 2] = np.where(image[: height // 2] > 127, 255, 0)  # bicubic overshoots here
    settings = {"crop_size": 16, "resize_size": size, "resize_mode": mode, "resample": resample}
    expected = preprocess(image, settings, 16)
    np.testing.assert_array_equal(Preprocessing(**settings)(Image.fromarray(image)), expected)


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (500, 375, (341, 256)),
        (375, 500, (256, 341)),
        (256, 256, (256, 256)),
        (3, 1000, (256, 85333)),
        (1, 1, (256, 256)),
    ],
)
def test_long_side_is_rounded_down(width, height, expected):
    assert TORCHVISION_PREPROCESSING.resized_size(width, height) == expected


@pytest.mark.parametrize(("side", "first"), [(16, 0), (17, 0), (18, 1), (19, 2), (20, 2), (21, 2), (22, 3), (23, 4)])
def test_half_a_pixel_of_the_crop_goes_to_the_even_side(side, first):
    columns = np.broadcast_to(np.arange(side, dtype=np.uint8)[None, :, None], (16, side, 3))
    cropped = Preprocessing(crop_size=16, resize_size=16)(Image.fromarray(np.ascontiguousarray(columns)))
    assert cropped[0, 0].tolist() == [first] * 3
    rows = Image.fromarray(np.ascontiguousarray(columns.transpose(1, 0, 2)))
    assert Preprocessing(crop_size=16, resize_size=16)(rows)[0, 0].tolist() == [first] * 3


def test_known_pixels():
    # Two columns to one: the mean of 10 and 21, 15.5, rounds up.
    image = Image.fromarray(np.array([[[10] * 3, [21] * 3]] * 2, np.uint8))
    preprocessing = Preprocessing(crop_size=1, resize_size=1)
    assert preprocessing(image).tolist() == [[[16, 16, 16]]]


def test_result_is_uint8_of_the_crop_s_size():
    pixels = TORCHVISION_PREPROCESSING(photo(300, 260))
    assert (pixels.shape, pixels.dtype) == ((224, 224, 3), np.uint8)


def test_orientation_comes_before_the_resize():
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = photo(48, 32)
    upright = stored.transpose(Image.Transpose.ROTATE_270)
    preprocessing = Preprocessing(crop_size=20, resize_size=24)
    np.testing.assert_array_equal(preprocessing(encode(stored, exif=exif)), preprocessing(upright))


def test_published_preprocessings():
    assert TORCHVISION_PREPROCESSING.to_dict() == {
        "crop_size": 224, "resize_size": 256, "resize_mode": "short_side", "resample": "bilinear",
        "mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375),
    }  # fmt: skip
    np.testing.assert_allclose(TORCHVISION_PREPROCESSING.mean, np.array([0.485, 0.456, 0.406]) * 255)
    np.testing.assert_allclose(TORCHVISION_PREPROCESSING.std, np.array([0.229, 0.224, 0.225]) * 255)
    assert (CAFFE_PREPROCESSING.crop_size, CAFFE_PREPROCESSING.resize_mode) == (227, "squash")
    assert CAFFE_PREPROCESSING.mean == (123.0, 117.0, 104.0)  # Caffe's 104 117 123 are B, G, R


@pytest.mark.parametrize("preprocessing", [TORCHVISION_PREPROCESSING, CAFFE_PREPROCESSING])
def test_preprocessing_goes_through_plain_data(preprocessing):
    data = preprocessing.to_dict()
    assert Preprocessing.from_dict({**data, "mean": list(data["mean"]), "std": list(data["std"])}) == preprocessing


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crop_size": 0}, "expected a whole number from 1 to 4096 for `crop_size`, got 0"),
        ({"crop_size": 4097}, "for `crop_size`, got 4097"),
        ({"crop_size": 16.0}, "for `crop_size`, got 16.0"),
        ({"crop_size": True}, "for `crop_size`, got True"),
        ({"resize_size": 4097}, "for `resize_size`, got 4097"),
        ({"resize_size": "20"}, "for `resize_size`, got '20'"),
        ({"resize_size": 15}, "expected `resize_size` of at least `crop_size` (=16), got 15"),
        ({"resize_mode": "fit"}, "expected `resize_mode` to be one of ('short_side', 'squash'), got 'fit'"),
        ({"resize_mode": []}, "expected `resize_mode`"),
        ({"resample": "nearest"}, "expected `resample` to be one of ['bicubic', 'bilinear'], got 'nearest'"),
        ({"resample": []}, "expected the fields of a preprocessing"),
        ({"mean": [1, 2]}, "expected three finite numbers each for mean and std"),
        ({"mean": [1, 2, 3, 4]}, "expected three finite numbers"),
        ({"mean": [1, 2, float("nan")]}, "expected three finite numbers"),
        ({"std": [1, 1, float("inf")]}, "expected three finite numbers"),
        ({"std": [1, 0, 1]}, "expected a positive `std`"),
        ({"std": [1, -1, 1]}, "expected a positive `std`"),
        ({"mean": "123"}, "expected three numbers for `mean`, got '123'"),
        ({"mean": [1, 2, "3"]}, "expected three numbers for `mean`"),
        ({"mean": [1, 2, True]}, "expected three numbers for `mean`"),
        ({"mean": 5}, "expected the fields of a preprocessing"),
        ({"mean": [1, 2, 10**400]}, "expected the fields of a preprocessing"),
        ({"gamma": 1}, "expected only ['crop_size'"),
        ({3: 1}, "expected only"),
    ],
)
def test_impossible_preprocessing_is_refused(change, message):
    with pytest.raises(ImageError) as error:
        Preprocessing.from_dict({"crop_size": 16, "resize_size": 20, **change})
    assert message in str(error.value)


@pytest.mark.parametrize("data", [None, [], "crop_size", 3, {}, {"crop_size": 16}])
def test_data_that_is_no_preprocessing_is_refused(data):
    with pytest.raises(ImageError, match="expected"):
        Preprocessing.from_dict(data)


def test_plain_path_objects_are_read(tmp_path):
    class Linked:
        def __fspath__(self):
            return str(tmp_path / "a.png")

    pathlib.Path(Linked()).write_bytes(encode(Image.new("RGB", (1, 1))))
    assert pixels_of(Linked()) == [[[0, 0, 0]]]

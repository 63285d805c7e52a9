import io
import os
import zlib

import numpy as np
import pytest
from PIL import Image

from image_files import encode, photo, png, write_tree
from squeezenet.data import check_data, decode_batches, open_data
from squeezenet.data.decode import decode_all, decode_for_crops
from squeezenet.errors import DataError, ImageError
from squeezenet.images import IMAGE_FORMATS
from squeezenet.preprocess import Preprocessing


@pytest.fixture
def messy_folder(tmp_path):
    root = tmp_path / "messy"
    good, bad = root / "good", root / "bad"
    good.mkdir(parents=True)
    bad.mkdir()
    rotated = Image.Exif()
    rotated[0x0112] = 6
    palette = photo().convert("P")
    palette.info["transparency"] = 0
    for name, data in {
        "grey.jpg": encode(photo(mode="L"), "JPEG"),
        "cmyk.jpg": encode(photo(mode="CMYK"), "JPEG"),
        "sixteen_bit.png": encode(Image.fromarray(np.full((32, 48), 40_000, np.uint16))),
        "animated.gif": encode(photo(), "GIF", save_all=True, append_images=[photo().rotate(90)]),
        "palette_alpha.png": encode(palette),
        "rgba.webp": encode(photo(mode="RGBA"), "WEBP", lossless=True),
        "rotated.JPG": encode(photo(), "JPEG", exif=rotated),
        "png_named.bmp": encode(photo()),
        "one_pixel.png": encode(photo(1, 1)),
        "wide.png": encode(photo(3000, 2)),
    }.items():
        (good / name).write_bytes(data)
    (good / os.fsdecode(b"caf\xe9.png")).write_bytes(encode(photo()))
    jpeg = encode(photo(480, 320), "JPEG")
    (bad / "truncated.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (bad / "text.jpg").write_text("no image")
    (bad / "empty.png").touch()
    (bad / ".hidden.png").write_bytes(b"hidden")
    (bad / "notes.txt").write_text("no image")
    (bad / "loop").symlink_to(root)
    (bad / "circular.png").symlink_to("circular.png")
    os.mkfifo(bad / "fifo.png")
    return root


def last_parts(entries):
    return sorted((entry[0].rsplit("/", 1)[1], entry[1]) for entry in entries)


def test_messy_folder_is_sorted_into_readable_unreadable_and_ignored(messy_folder, monkeypatch):
    monkeypatch.setattr("squeezenet.data.check.MAX_UNREADABLE_SHARE", 0.5)
    check = check_data(open_data(messy_folder))
    assert [reason for _, reason in last_parts(check.unreadable)] == [
        "the file is empty",
        f"expected an image ({', '.join(IMAGE_FORMATS)}), got something else",
    ]
    assert last_parts(check.ignored) == [
        (".hidden.png", "a hidden file"),
        ("circular.png", "not a regular file"),
        ("fifo.png", "not a regular file"),
        ("loop", "a link to a folder already listed"),
        ("notes.txt", "not an image"),
    ]
    assert len(check.train) == 12
    assert any("caf\\xe9.png" in item.name for item in check.train.items)


def test_messy_folder_decodes_but_for_the_truncated_file(messy_folder, monkeypatch):
    monkeypatch.setattr("squeezenet.data.check.MAX_UNREADABLE_SHARE", 0.5)
    images = check_data(open_data(messy_folder)).train
    preprocessing = Preprocessing(crop_size=16, resize_size=20)
    batches = list(decode_batches(images, preprocessing, batch_size=5))
    unreadable = [entry for batch in batches for entry in batch.unreadable]
    assert [name.rsplit("/", 1)[1] for name, _ in unreadable] == ["truncated.jpg"]
    assert [batch.pixels.shape for batch in batches] == [(4, 16, 16, 3), (5, 16, 16, 3), (2, 16, 16, 3)]
    for batch in batches:
        for index, pixels in zip(batch.indices, batch.pixels, strict=True):
            assert np.array_equal(pixels, preprocessing(images.read(index)))


def test_whole_images_for_crops_keep_shape_and_orientation(messy_folder):
    images = open_data(messy_folder)
    kept, arrays, unreadable = decode_all(images, lambda data: decode_for_crops(data, 24))
    shapes = {images.items[i].name.rsplit("/", 1)[1]: array.shape for i, array in zip(kept, arrays, strict=True)}
    assert len(unreadable) == 3
    assert shapes["grey.jpg"] == (24, 36, 3)
    assert shapes["rotated.JPG"] == (36, 24, 3)
    assert shapes["one_pixel.png"] == (1, 1, 3)
    assert shapes["wide.png"] == (2, 16, 3)


def test_reduced_decoding_of_a_large_jpeg_looks_like_the_full_one():
    data = encode(photo(1600, 1200).resize((1600, 1200)), "JPEG", quality=95)
    reduced = decode_for_crops(data, 100)
    full = np.asarray(Image.open(io.BytesIO(data)).resize((133, 100), Image.Resampling.BILINEAR))
    assert reduced.shape == (100, 133, 3)
    difference = np.abs(reduced.astype(int) - full)
    assert np.median(difference) <= 2


def test_decompression_bomb_is_unreadable_by_its_header(tmp_path):
    write_tree(tmp_path, [f"a/{i}.png" for i in range(20)])
    header = bytearray(png())
    header[16:24] = (60_000).to_bytes(4, "big") * 2
    header[29:33] = zlib.crc32(header[12:29]).to_bytes(4, "big")
    (tmp_path / "a/bomb.png").write_bytes(header)
    (reason,) = [reason for _, reason in check_data(open_data(tmp_path)).unreadable]
    assert "pixels" in reason


def test_too_many_unreadable_files_stop_the_run(tmp_path, monkeypatch):
    write_tree(tmp_path, [f"a/{i}.png" for i in range(8)])
    (tmp_path / "a/x.png").write_bytes(b"x")
    with pytest.raises(DataError, match=r"at most 10% unreadable images, got 1 of 9, such as .*a/x.png \(expected an"):
        check_data(open_data(tmp_path))
    monkeypatch.setattr("squeezenet.data.check.MAX_UNREADABLE_SHARE", 0.2)
    assert len(check_data(open_data(tmp_path)).train) == 8


def test_class_that_only_had_unreadable_files_is_dropped_and_named(tmp_path):
    write_tree(tmp_path, [f"a/{i}.png" for i in range(20)] + ["c/1.png"])
    (tmp_path / "b").mkdir()
    (tmp_path / "b/1.png").write_bytes(b"x")
    check = check_data(open_data(tmp_path))
    assert check.train.classes == ("a", "c")
    assert check.train.labels[-1] == 1
    assert check.empty_classes == ("b",)


def test_class_missing_from_one_split_is_named(tmp_path):
    write_tree(tmp_path, ["train/a/1.png", "train/b/2.png", "val/b/3.png"])
    check = check_data(open_data(tmp_path, split="train"), open_data(tmp_path, split="val"))
    assert check.missing_in_val == ("a",)
    assert check.val.labels == (1,)
    assert "classes without images to validate on (1): a" in check.summary()


def test_class_to_validate_on_without_training_images_is_refused(tmp_path):
    write_tree(tmp_path, ["train/a/1.png", "val/a/2.png", "val/b/3.png"])
    with pytest.raises(DataError, match="got also 'b'"):
        check_data(open_data(tmp_path, split="train"), open_data(tmp_path, split="val"))


@pytest.mark.parametrize("size", [(4, 4), (300, 300)])
def test_duplicates_across_splits_are_exact(tmp_path, size):
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    data = encode(Image.fromarray(noise))
    almost = bytearray(data)
    almost[-20] ^= 1  # beyond the header that is read first, for the large one
    for name, content in {"train/a/1.png": data, "val/a/2.png": data, "val/a/3.png": bytes(almost)}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    check = check_data(open_data(tmp_path, split="train"), open_data(tmp_path, split="val"))
    assert [tuple(name.rsplit("/", 1)[1] for name in pair) for pair in check.duplicates] == [("2.png", "1.png")]


def test_summary_counts_first_and_shortens_long_lists(tmp_path):
    write_tree(tmp_path, [f"a/{i}.png" for i in range(9)] + [f"a/{i}.txt" for i in range(7)])
    lines = check_data(open_data(tmp_path)).summary()
    assert lines[0] == "9 images to train on, 0 to validate on; number of classes: 1, with 9 images each"
    assert lines[1].startswith("ignored (7): ")
    assert lines[1].endswith("and 2 more")


def test_progress_reaches_the_end(tmp_path):
    write_tree(tmp_path, ["train/a/1.png", "train/a/2.png", "val/a/3.png"])
    calls = []
    check_data(
        open_data(tmp_path, split="train"),
        open_data(tmp_path, split="val"),
        on_progress=lambda *args: calls.append(args),
    )
    assert calls == [(2, 3), (3, 3)]


def test_image_error_of_reading_names_the_file_once(tmp_path):
    images = open_data(write_tree(tmp_path, ["a/1.png", *[f"a/x{i}.png" for i in range(20)]]))
    (tmp_path / "a/1.png").unlink()
    (entry,) = check_data(images).unreadable
    assert entry.reason == "cannot be read (No such file or directory)"
    with pytest.raises(ImageError):
        images.read(0)

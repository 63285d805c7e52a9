"""Small image files for tests, ordinary and odd."""

import io
import struct
import zlib

import numpy as np
from PIL import Image


def png(value=0, size=(4, 4)):
    buffer = io.BytesIO()
    Image.new("RGB", size, (value, value, value)).save(buffer, "PNG")
    return buffer.getvalue()


def contents_of(name, number):
    """A small image, or something else for names of other files."""
    is_text = name.endswith((".txt", ".md", ".csv", ".json", ".xml", ".db", ".ini", "DS_Store"))
    return b"text" if is_text else png(number)


def write_tree(root, names):
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents_of(name, number))
    return root


def encode(image, format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def photo(width=48, height=32, mode="RGB"):
    ramp = np.add.outer(np.arange(height) * 3, np.arange(width) * 2).astype(np.uint8)
    return Image.fromarray(np.stack([ramp, ramp // 2, 255 - ramp], axis=-1)).convert(mode)


def odd_files():
    """Some 400 image files: every format and mode that Pillow writes, sizes, orientations, and cut-off ones."""
    for name in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "JPEG2000", "PPM", "ICO"):
        for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I", "I;16", "F", "PA", "HSV", "LAB"):
            for size in ((1, 1), (7, 3), (40, 30)):
                image = Image.new(mode, size, 1) if mode in ("PA", "LAB") else photo(*size).convert(mode)
                try:
                    data = encode(image, name)
                except (OSError, ValueError, KeyError, SystemError):
                    continue
                yield f"{name} {mode} {size}", data
                yield f"{name} {mode} {size} cut off", data[: len(data) * 2 // 3]
    for name in ("JPEG", "PNG", "WEBP", "AVIF", "TIFF"):
        for orientation in range(1, 9):
            exif = Image.Exif()
            exif[274] = orientation
            yield f"{name} {orientation}", encode(photo(40, 30), name, exif=exif)
    for name in ("GIF", "PNG", "WEBP", "TIFF", "AVIF"):
        yield f"{name} animated", encode(photo(), name, save_all=True, append_images=[photo().rotate(180)])


def frames_of(image):
    return {"save_all": True, "append_images": [image.rotate(180)]}


def png_of(width, height, depth, color, rows, *chunks, filter=0, last=()):
    """A PNG by hand, with its pixels as bytes by row."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    pixels = zlib.compress(b"".join(bytes([filter]) + row for row in rows))
    parts = [(b"IHDR", header), *chunks, (b"IDAT", pixels), *last, (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def bmp_of(width, height, bits, pixels, *, table=b"", header=40, packed=0, masks=(), colors=0):
    """A BMP by hand; masks stand in the header where it has room for them."""
    info = struct.pack("<IiiHHIIiiII", header, width, height, 1, bits, packed, len(pixels), 0, 0, colors, 0)
    info = (info + struct.pack(f"<{len(masks)}I", *masks) + (b"BGRs" if header > 40 else b"")).ljust(header, b"\0")
    start = 14 + len(info) + len(table)
    return struct.pack("<2sIHHI", b"BM", start + len(pixels), 0, 0, start) + info + table + pixels


def hand_made_files():
    """Some 330 further ones: what encoders other than Pillow write, and damage of every kind."""
    yield from _pngs(np.random.default_rng(0))
    yield from _jpegs(photo(61, 47))
    yield from _gifs(photo(24, 18).quantize(16))
    yield from _bmps(np.random.default_rng(1))
    yield from _others(photo(61, 47), Image.fromarray(np.random.default_rng(2).integers(0, 256, (18, 24, 4), np.uint8)))


def _cut(name, data, *shares):
    for share in shares:
        yield f"{name} cut at {share}", data[: int(len(data) * share)]


def _pngs(rng, width=24, height=18):
    kinds = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
    for color, depth in ((color, depth) for color, depths in kinds.items() for depth in depths):
        rows = [rng.bytes(width * channels[color] * depth // 8) for _ in range(height)]
        palette = [(b"PLTE", rng.bytes(3 * 2**depth))] if color == 3 else []
        name = f"PNG of {depth} bits, color type {color}"
        for chunk in (
            (), ((b"gAMA", struct.pack(">I", 100000)),), ((b"sRGB", b"\0"),), ((b"cICP", b"\x09\x10\0\1"),),
            ((b"sBIT", b"\3" * (3 if color == 3 else channels[color])),),
            ((b"cHRM", struct.pack(">8I", 31270, 32900, 70800, 29200, 17000, 79700, 13100, 4600)),),
        ):  # fmt: skip
            label = f"{name}, {chunk[0][0].decode()}" if chunk else name
            yield label, png_of(width, height, depth, color, rows, *chunk, *palette)
        for filter in range(1, 5):
            yield f"{name}, filter {filter}", png_of(width, height, depth, color, rows, *palette, filter=filter)
        if color in (0, 2):
            first = rows[0][: 2 * channels[color]] if depth == 16 else bytes(
                byte for value in rows[0][: channels[color]] for byte in (0, value >> (8 - depth))
            )  # fmt: skip
            yield f"{name}, tRNS", png_of(width, height, depth, color, rows, (b"tRNS", first))
        if color == 3:
            alphas = (b"tRNS", rng.bytes(min(2**depth, 3)))
            yield f"{name}, tRNS", png_of(width, height, depth, color, rows, *palette, alphas)

    rows, grey = [rng.bytes(3 * width) for _ in range(height)], [rng.bytes(width) for _ in range(height)]
    turned = (b"eXIf", bytes.fromhex("4d4d002a00000008000101120003000000010006000000000000"))
    good = png_of(width, height, 8, 2, rows)
    yield "PNG, background", png_of(width, height, 8, 2, rows, (b"bKGD", struct.pack(">3H", 255, 0, 0)))
    yield "PNG, more behind", good + b"garbage" * 9
    yield "PNG, a line before", b"\n" + good
    yield "PNG, wrong checksum", good[:-30] + bytes([good[-30] ^ 1]) + good[-29:]
    yield "PNG, wrong checksum of IHDR", good[:29] + bytes(4) + good[33:]
    yield "PNG without IEND", good[:-12]
    yield "PNG, IEND cut", good[:-4]
    yield "PNG, unknown chunk", png_of(width, height, 8, 2, rows, (b"abCD", b"x"))
    yield "PNG, unknown critical chunk", png_of(width, height, 8, 2, rows, (b"ABCD", b"x"))
    yield "PNG with too few rows", png_of(width, height, 8, 2, rows[3:])
    yield "PNG with too many rows", png_of(width, height, 8, 2, rows + rows[:3])
    yield "PNG beyond its palette", png_of(width, height, 8, 3, grey, (b"PLTE", rng.bytes(30)))
    yield "PNG without its palette", png_of(width, height, 8, 3, grey)
    yield "PNG, EXIF first", png_of(width, height, 8, 2, rows, turned)
    yield "PNG, EXIF behind the pixels", png_of(width, height, 8, 2, rows, last=[turned])
    yield "PNG without columns", png_of(0, height, 8, 2, [b""] * height)


def _jpegs(image):
    for quality in (1, 50, 95, 100):
        for subsampling in (0, 1, 2):
            options = {"quality": quality, "subsampling": subsampling}
            yield f"JPEG {quality} {subsampling}", encode(image, "JPEG", **options)
    for options in (
        {"progressive": True}, {"optimize": True}, {"restart_marker_rows": 1}, {"restart_marker_blocks": 1},
        {"smooth": 50}, {"keep_rgb": True}, {"comment": b"x" * 60_000}, {"dpi": (300, 300)},
        {"icc_profile": b"x" * 200_000}, {"progressive": True, "quality": 5},
        {"xmp": b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'},
    ):  # fmt: skip
        yield f"JPEG {' '.join(options)}", encode(image, "JPEG", **options)
    for size in ((1, 9), (8, 8), (9, 9), (17, 15), (16, 16), (15, 17), (33, 2), (100, 1)):
        yield f"JPEG {size}", encode(photo(*size), "JPEG")
    for orientation in (0, 9, 255):
        exif = Image.Exif()
        exif[274] = orientation
        yield f"JPEG turned {orientation}", encode(image, "JPEG", exif=exif)
    data = encode(image, "JPEG")
    half = len(data) // 2
    yield from _cut("JPEG", data, 0.05, 0.2, 0.5, 0.9, 0.99)
    yield "JPEG without its end", data[:-2]
    yield "JPEG with half its end", data[:-1]
    yield "JPEG, more behind", data + b"tail" * 100
    yield "JPEG, zeros before", b"\0\0" + data
    yield "JPEG, another behind", data + encode(photo(5, 5), "JPEG")
    yield "JPEG with zeros in the middle", data[:half] + bytes(20) + data[half + 20 :]
    yield "JPEG without JFIF", data[:2] + data[20:]
    yield "JPEG with fill bytes", data[:2] + b"\xff\xff\xff" + data[2:]
    yield "MPO", encode(image, "MPO", save_all=True, append_images=[image.rotate(180)])


def _gifs(image):
    for options in ({}, {"transparency": 3}, {"interlace": 1}, {"interlace": 0}, {"optimize": True}):
        yield f"GIF {options}", encode(image, "GIF", **options)
    for disposal in range(4):
        yield f"GIF animated, {disposal}", encode(image, "GIF", **frames_of(image), disposal=disposal, duration=10)
    data = encode(image, "GIF", interlace=0)
    yield "GIF on a larger canvas", data[:6] + struct.pack("<HH", image.width + 10, image.height + 6) + data[10:]
    yield "GIF on a smaller canvas", data[:6] + struct.pack("<HH", image.width - 10, image.height - 6) + data[10:]
    yield "GIF, more behind", data + b"123"
    yield "GIF without its end", data[:-1]
    yield "GIF 87a", b"GIF87a" + data[6:]
    yield "GIF without a frame", data[:13]
    yield from _cut("GIF", data, 0.3, 0.6, 0.9)


def _bmps(rng, width=24, height=18):
    for bits in (1, 2, 4, 8):
        table, pixels = rng.bytes(4 * 2**bits), rng.bytes((width * bits // 8 + 3) // 4 * 4 * height)
        yield f"BMP {bits}", bmp_of(width, height, bits, pixels, table=table, colors=2**bits)
        yield f"BMP {bits} from the top", bmp_of(width, -height, bits, pixels, table=table, colors=2**bits)
    two, three, four = (rng.bytes(n * width * height) for n in (2, 3, 4))
    yield "BMP 16", bmp_of(width, height, 16, two)
    for name, masks in {"565": (0xF800, 0x7E0, 0x1F), "555": (0x7C00, 0x3E0, 0x1F), "444": (0xF00, 0xF0, 0xF)}.items():
        table = struct.pack("<3I", *masks)
        yield f"BMP 16 by masks {name}", bmp_of(width, height, 16, two, table=table, packed=3)
    yield "BMP 16 with alpha", bmp_of(width, height, 16, two, header=108, packed=3, masks=(0x7C00, 0x3E0, 0x1F, 0x8000))
    yield "BMP 24", bmp_of(width, height, 24, three)
    yield "BMP 24 from the top", bmp_of(width, -height, 24, three)
    yield "BMP 24 cut", bmp_of(width, height, 24, three[: -4 * width])
    yield "BMP 24 with more behind", bmp_of(width, height, 24, three + three[: 4 * width])
    yield "BMP 32", bmp_of(width, height, 32, four)
    blue_first, red_first = (0xFF0000, 0xFF00, 0xFF), (0xFF, 0xFF00, 0xFF0000)
    yield "BMP 32 by masks", bmp_of(width, height, 32, four, table=struct.pack("<3I", *blue_first), packed=3)
    yield "BMP 32 by masks, red first", bmp_of(width, height, 32, four, table=struct.pack("<3I", *red_first), packed=3)
    for header in (108, 124):
        masks = (*blue_first, 0xFF000000)
        yield f"BMP 32 with alpha, {header}", bmp_of(width, height, 32, four, header=header, packed=3, masks=masks)
    whole = b"".join(bytes([width, 0x12]) + b"\0\0" for _ in range(height)) + b"\0\1"
    eight, half = rng.bytes(1024), rng.bytes(64)
    yield "BMP in runs", bmp_of(width, height, 8, whole, table=eight, packed=1, colors=256)
    yield "BMP in runs of 4 bits", bmp_of(width, height, 4, whole, table=half, packed=2, colors=16)
    skips = b"\4\5\0\2\3\2\6\7\0\1"
    yield "BMP in runs that skip", bmp_of(width, height, 8, skips, table=eight, packed=1, colors=256)
    start = struct.pack("<2sIHHIIHHHH", b"BM", 26 + len(three), 0, 0, 26, 12, width, height, 1, 24)
    yield "BMP of OS/2", start + three


def _others(image, clear):
    exif = Image.Exif()
    exif[274] = 6
    data = {name: encode(image, name) for name in ("WEBP", "AVIF")}
    for name, settings in {
        "WEBP": (
            {"lossless": True}, {"quality": 10}, {"quality": 100}, {"method": 0}, {"exact": True, "lossless": True},
            {"icc_profile": b"x" * 300},
        ),
        "AVIF": (
            {"quality": 100}, {"quality": 20}, {"subsampling": "4:4:4"}, {"subsampling": "4:0:0"},
            {"subsampling": "4:2:2"}, {"range": "limited"}, {"speed": 10}, {"xmp": b"<x/>"},
        ),
    }.items():  # fmt: skip
        for number, options in enumerate(settings):
            yield f"{name} {number} {' '.join(options)}", encode(image, name, **options)
            yield f"{name} with alpha {number} {' '.join(options)}", encode(clear, name, **options)
        yield f"{name} with alpha, turned", encode(clear, name, exif=exif)
        yield f"{name}, more behind", data[name] + b"tail" * 3
        yield from _cut(name, data[name], 0.3, 0.6, 0.95)
    square = photo(256, 256, "RGBA")
    for sizes in ([(16, 16)], [(16, 16), (32, 32)], [(48, 48), (16, 16)], [(256, 256)]):
        for kind in ("png", "bmp"):
            yield f"ICO of {kind} {sizes}", encode(square, "ICO", sizes=sizes, bitmap_format=kind)
    yield "APNG whose default image is not animated", encode(image, "PNG", **frames_of(image), default_image=True)
    yield "APNG", encode(image, "PNG", **frames_of(image))
    yield "APNG with alpha", encode(clear, "PNG", **frames_of(clear), disposal=2, blend=1)
    yield "WEBP animated with alpha", encode(clear, "WEBP", **frames_of(clear), lossless=True)
    yield "SVG", b'<svg xmlns="http://www.w3.org/2000/svg" width="20" height="20"><rect width="9" height="9"/></svg>'
    yield "HTML", b"<!doctype html><p>no"
    yield "nothing", b""
    yield "text", b"just text\n" * 50
    yield "CUR", b"\0\0\2\0" + encode(square, "ICO", sizes=[(32, 32)])[4:]

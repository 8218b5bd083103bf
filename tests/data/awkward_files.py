"""Awkward image files, each with the pixels that a person sees or the reason to refuse it."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageOps, PngImagePlugin

SIZE = 8
Truth = np.ndarray | str  # pixels, or why the file cannot be used
Case = Callable[[], tuple[bytes, Truth]]


def noise(seed: int = 0, channels: int = 3, size: int = SIZE) -> np.ndarray:
    """Smooth enough for JPEG, and different in every corner."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (4, 4, channels), dtype=np.uint8)
    return small.repeat(size // 4, 0).repeat(size // 4, 1)


def written(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def truth(data: bytes) -> np.ndarray:
    """Pillow's own: transposed, laid over white, resized."""
    with Image.open(io.BytesIO(data)) as image:
        upright = ImageOps.exif_transpose(image)
    over = upright.convert("RGBA")
    flat = Image.new("RGBA", over.size, (255, 255, 255, 255))
    flat.alpha_composite(over)
    rgb = flat.convert("RGB")
    return np.asarray(rgb.resize((SIZE, SIZE), Image.Resampling.BILINEAR))


def gray(values: np.ndarray) -> np.ndarray:
    return np.repeat(values.astype(np.uint8)[..., None], 3, axis=-1)


def orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[274] = value
    return exif


def plain(mode: str, kind: str, **options: Any) -> Case:
    def case() -> tuple[bytes, Truth]:
        data = written(Image.fromarray(noise()).convert(mode), kind, **options)
        return data, truth(data)

    return case


def turned(kind: str, value: int) -> Case:
    """Five of the eight orientations swap height and width, so the image is no square."""

    def case() -> tuple[bytes, Truth]:
        image = Image.fromarray(noise()[:, :6])
        data = written(image, kind, exif=orientation(value))
        seen = truth(data)
        # Oracle of the oracle: rows and columns of the image as written.
        with Image.open(io.BytesIO(data)) as stored:
            pixels = np.asarray(stored.convert("RGB"))
        if kind != "TIFF":  # which turns by itself
            turns: dict[int, Any] = {3: pixels[::-1, ::-1], 6: np.rot90(pixels, -1)}
            turns |= {8: np.rot90(pixels), 5: pixels.swapaxes(0, 1)}
            upright = Image.fromarray(np.ascontiguousarray(turns[value]))
            again = upright.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
            assert np.array_equal(np.asarray(again), seen)
        return data, seen

    return case


def transparent(mode: str, kind: str, **options: Any) -> Case:
    def case() -> tuple[bytes, Truth]:
        channels = {"LA": 2, "RGBA": 4}[mode]
        pixels = noise(1, channels)
        pixels[:2, :, -1], pixels[-2:, :, -1] = 0, 255
        data = written(Image.fromarray(pixels, mode), kind, **options)
        expected = truth(data)
        if kind != "WEBP":
            assert (expected[0] == 255).all(), "what is transparent is white"
        return data, expected

    return case


def deep(kind: str) -> Case:
    """A gradient of 16 bits, of which 8 remain."""

    def case() -> tuple[bytes, Truth]:
        values = np.linspace(0, 65535, SIZE * SIZE).astype(np.uint16).reshape(SIZE, SIZE)
        data = written(Image.fromarray(values), kind)
        return data, gray(values // 256)

    return case


def palette_with_holes() -> tuple[bytes, Truth]:
    image = Image.fromarray(noise(2)).convert("P")
    data = written(image, "PNG", transparency=int(np.asarray(image)[0, 0]))
    expected = truth(data)
    assert (expected[0, 0] == 255).all()
    return data, expected


def color_key() -> tuple[bytes, Truth]:
    pixels = noise(3)
    data = written(Image.fromarray(pixels), "PNG", transparency=tuple(map(int, pixels[0, 0])))
    expected = truth(data)
    assert (expected[0, 0] == 255).all()
    return data, expected


def png_chunk(kind: bytes, content: bytes) -> bytes:
    head = struct.pack(">I", len(content)) + kind + content
    return head + struct.pack(">I", zlib.crc32(kind + content))


def raw_png(bits: int, color: int, rows: bytes, more: bytes = b"") -> bytes:
    head = struct.pack(">IIBBBBB", SIZE, SIZE, bits, color, 0, 0, 0)
    parts = png_chunk(b"IHDR", head) + more + png_chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + parts + png_chunk(b"IEND", b"")


def deep_color() -> tuple[bytes, Truth]:
    values = np.random.default_rng(4).integers(0, 65536, (SIZE, SIZE, 3)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    return raw_png(16, 2, rows), (values // 256).astype(np.uint8)


def deep_hole() -> tuple[bytes, Truth]:
    rows = b"".join(b"\0" + row.tobytes() for row in np.full((SIZE, SIZE), 5, ">u2"))
    return raw_png(16, 0, rows, png_chunk(b"tRNS", b"\0\5")), "transparent gray value"


def twelve_bits() -> tuple[bytes, Truth]:
    """A TIFF of 12 bits a value, two values in three bytes, by hand."""
    values = np.linspace(0, 4095, SIZE * SIZE).astype(int)
    packed = bytearray()
    for a, b in values.reshape(-1, 2).tolist():
        packed += bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255])
    tags = [(256, SIZE), (257, SIZE), (258, 12), (259, 1), (262, 1), (273, 8)]
    tags += [(277, 1), (278, SIZE), (279, len(packed))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    ifd = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    data = b"II*\0" + struct.pack("<I", 8 + len(packed)) + bytes(packed) + ifd
    return data, gray(values.reshape(SIZE, SIZE) // 16)


def frames(kind: str, **options: Any) -> Case:
    def case() -> tuple[bytes, Truth]:
        first, second = (Image.fromarray(noise(seed)) for seed in (5, 6))
        return written(first, kind, save_all=True, append_images=[second], **options), "2 frames"

    return case


def one_frame_gif() -> tuple[bytes, Truth]:
    data = written(Image.fromarray(noise(7)).convert("P"), "GIF")
    return data, truth(data)


def photographs() -> tuple[bytes, Truth]:
    """An MPO: a viewer shows the first."""
    first, second = (Image.fromarray(noise(seed)) for seed in (8, 9))
    data = written(first, "MPO", save_all=True, append_images=[second])
    return data, truth(data)


def cut(kind: str, share: float) -> Case:
    def case() -> tuple[bytes, Truth]:
        data = written(Image.fromarray(noise(size=64)), kind)
        return data[: int(len(data) * share)], ""

    return case


def without_end() -> tuple[bytes, Truth]:
    data = written(Image.fromarray(noise(size=64)), "JPEG")
    assert data.endswith(b"\xff\xd9")
    return data[:-2] + bytes(500), "no end"


def missing_part() -> tuple[bytes, Truth]:
    data = written(Image.fromarray(noise(size=64)), "JPEG", restart_marker_blocks=2)
    a, b = (data.index(bytes([255, 0xD0 + k])) for k in (2, 4))
    return data[:a] + data[b:], "missing"


def wrong_checksum() -> tuple[bytes, Truth]:
    rows = b"".join(b"\0" + row.tobytes() for row in noise())
    data = bytearray(raw_png(8, 2, rows))
    data[-14] ^= 1  # of the checksum of IDAT
    return bytes(data), "checksum"


def bomb() -> tuple[bytes, Truth]:
    head = struct.pack(">IIBBBBB", 160_000, 160_000, 8, 2, 0, 0, 0)  # 77 GB
    data = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", head) + png_chunk(b"IDAT", b"")
    return data + png_chunk(b"IEND", b""), "DecompressionBomb"


def text() -> tuple[bytes, Truth]:
    return b"<html>not found</html>\n", "no image"


def floats() -> tuple[bytes, Truth]:
    return written(Image.fromarray(noise()[..., 0].astype(np.float32)), "TIFF"), "no fixed range"


def profile_with_orientation() -> tuple[bytes, Truth]:
    """EXIF as a text chunk, as ImageMagick writes it."""
    info = PngImagePlugin.PngInfo()
    exif = b"Exif\0\0" + orientation(6).tobytes().removeprefix(b"Exif\0\0")
    info.add_text("Raw profile type exif", f"\nexif\n{len(exif):8}\n{exif.hex()}\n")
    data = written(Image.fromarray(noise()[:, :6]), "PNG", pnginfo=info)
    seen = truth(data)
    turned = Image.fromarray(np.ascontiguousarray(np.rot90(noise()[:, :6], -1)))
    assert np.array_equal(np.asarray(turned.resize((SIZE, SIZE), Image.Resampling.BILINEAR)), seen)
    return data, seen


CASES: dict[str, Case] = {
    "bits.png": plain("1", "PNG"),
    "gray.png": plain("L", "PNG"),
    "color.png": plain("RGB", "PNG"),
    "palette.png": plain("P", "PNG"),
    "palette with holes.png": palette_with_holes,
    "color key.png": color_key,
    "gray alpha.png": transparent("LA", "PNG"),
    "alpha.png": transparent("RGBA", "PNG"),
    "alpha.tif": transparent("RGBA", "TIFF"),
    "alpha.webp": transparent("RGBA", "WEBP", lossless=True),
    "deep.png": deep("PNG"),
    "deep.tiff": deep("TIFF"),
    "deep.pgm": deep("PPM"),
    "deep.jp2": deep("JPEG2000"),
    "deep color.png": deep_color,
    "deep hole.png": deep_hole,
    "twelve.tif": twelve_bits,
    "color.jpg": plain("RGB", "JPEG"),
    "gray.jpeg": plain("L", "JPEG"),
    "print.jpg": plain("CMYK", "JPEG"),
    "progressive.jfif": plain("RGB", "JPEG", progressive=True),
    "turned3.jpg": turned("JPEG", 3),
    "turned6.JPG": turned("JPEG", 6),
    "turned8.png": turned("PNG", 8),
    "turned5.webp": turned("WEBP", 5),
    "turned6.tif": turned("TIFF", 6),
    "turned by text.png": profile_with_orientation,
    "plain.bmp": plain("RGB", "BMP"),
    "plain.avif": plain("RGB", "AVIF"),
    "still.gif": one_frame_gif,
    "moving.gif": frames("GIF"),
    "moving.png": frames("PNG"),
    "pages.tif": frames("TIFF"),
    "moving.webp": frames("WEBP", lossless=True),
    "photographs.jpg": photographs,
    "cut.png": cut("PNG", 0.6),
    "cut.jpg": cut("JPEG", 0.6),
    "cut.bmp": cut("BMP", 0.6),
    "cut.webp": cut("WEBP", 0.6),
    "no end.jpg": without_end,
    "missing.jpg": missing_part,
    "checksum.png": wrong_checksum,
    "bomb.png": bomb,
    "empty.jpg": lambda: (b"", "no image"),
    "text.jpg": text,
    "floats.tif": floats,
    "a\nnew line.png": plain("RGB", "PNG"),
    "\udcff.png": plain("RGB", "PNG"),
    "-rf.png": plain("RGB", "PNG"),
    "éß漢.png": plain("RGB", "PNG"),
}

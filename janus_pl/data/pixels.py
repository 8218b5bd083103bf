"""The pixels of an image file as a person sees them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from janus_pl.data.boundary import Unusable, one_line
from janus_pl.data.image_files import FORMATS

if TYPE_CHECKING:
    from PIL import Image

PNG = b"\x89PNG\r\n\x1a\n"
BITS, PHOTOMETRIC = 258, 262  # tags of TIFF


def decode_image(file: Path, size: int) -> NDArray[np.uint8]:
    """Return an image as bytes (size, size, 3): red, green, blue.

    The orientation of EXIF is applied. 16 bits a channel become the first 8 of them. Transparency
    is laid over white. Another size is resized bilinearly.

    Raises:
        Unusable: The image is damaged, moves, or its values have no fixed range.
        Exception: The file cannot be read, or not be decoded; decoders raise all sorts of errors.
    """
    from PIL import Image, ImageOps

    if file.is_symlink() and not file.exists():
        raise Unusable("a broken link")
    data = file.read_bytes()
    if data.startswith(PNG):
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            image.verify()  # the checksums, which decoding skips
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        kind = image.format
        if kind in ("JPEG", "MPO"):
            from janus_pl.data.jpeg_stream import check_jpeg  # compiled code: a second

            check_jpeg(data)
        # The first image of an MPO file is the photograph; the others are of its camera.
        if kind != "MPO" and getattr(image, "is_animated", False):
            raise Unusable(f"it holds {getattr(image, 'n_frames', 'several')} frames, not one")
        depth = _depth(image)
        rgb = _rgb(ImageOps.exif_transpose(image), depth)
    if rgb.size != (size, size):
        rgb = rgb.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(rgb)


def reason(error: Exception) -> str:
    """Return in one line why a file is no image; decoders name buffers, not files."""
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return f"no image of {', '.join(FORMATS)}"
    if isinstance(error, Unusable):
        return str(error)
    if isinstance(error, OSError) and error.filename is not None:
        return str(error.strerror)
    return one_line(error)


def _depth(image: Image.Image) -> int:
    """Return the bits of a value: 8, or those of a gray image of more."""
    if image.mode == "I" and image.format in ("PPM", "PNG"):
        return 16  # Pillow scales PGM to 16 bits
    if not image.mode.startswith("I;16"):
        return 8
    if image.format != "TIFF":
        return 16
    tags = image.tag_v2  # type: ignore[attr-defined]
    if tags.get(PHOTOMETRIC) == 0:
        raise Unusable("its white is 0, at 16 bits")
    return int(tags[BITS][0])


def _rgb(image: Image.Image, depth: int) -> Image.Image:
    from PIL import Image

    if depth > 8:
        if image.has_transparency_data:
            raise Unusable("it has a transparent gray value of 16 bits")
        gray = np.asarray(image).astype(np.int64) >> (depth - 8)
        return Image.fromarray(gray.astype(np.uint8)).convert("RGB")
    if image.mode[0] in "IF":
        raise Unusable(f"its values (mode {image.mode}) have no fixed range, 8 or 16 bits have")
    if not image.has_transparency_data:
        return image.convert("RGB")
    over = image.convert("RGBA")
    white = Image.new("RGBA", over.size, "white")
    return Image.alpha_composite(white, over).convert("RGB")

"""Images as a network gets them: standardized channel by channel, then of unit norm.

Bytes may stay bytes. `ByteImages` holds them once and standardizes what is asked for, by the same
operations on each entry, so the numbers are bit for bit those of float32 in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

FLOAT_LIMIT = 2**30  # bytes of float32 that a data set may take in memory
CHUNK = 500  # images that are standardized at a time
TOP = 255


class ByteImages:
    """Images that are held as bytes, and standardized where a part of them is taken.

    A slice or a tensor of indices takes such a part: float32 (n, C, H, W) in channels_last memory.

    Args:
        pixels: The bytes (N, H, W, C).
        mean: The mean of each channel, float32 (C,).
        std: The standard deviation of each channel, float32 (C,).
        factors: What each standardized image is multiplied by to have unit norm, (N,).
    """

    def __init__(self, pixels: Tensor, mean: Tensor, std: Tensor, factors: Tensor) -> None:
        self.pixels, self.mean, self.std, self.factors = pixels, mean, std, factors

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: slice | Tensor) -> Tensor:
        x = _standardized_bytes(self.pixels[index], self.mean, self.std)
        return x.mul_(self.factors[index].view(-1, 1, 1, 1)).permute(0, 3, 1, 2)

    @property
    def device(self) -> torch.device:
        """Where the bytes live."""
        return self.pixels.device

    @property
    def shape(self) -> torch.Size:
        """The shape of all images, (N, C, H, W)."""
        n, height, width, channels = self.pixels.shape
        return torch.Size((n, channels, height, width))

    def to(self, device: torch.device) -> ByteImages:
        """Return the same images on a device."""
        parts = self.pixels, self.mean, self.std, self.factors
        return ByteImages(*(part.to(device) for part in parts))


def standardized(
    images: NDArray[np.float32] | NDArray[np.uint8],
    mean: NDArray[np.float64],
    std: NDArray[np.float64],
    as_bytes: bool = False,
) -> Tensor | ByteImages:
    """Return standardized images of unit norm, (n, C, H, W) in channels_last memory.

    Floats are worked on in their own memory, since whole data sets pass through here.

    Args:
        images: Floats in [0, 1], or bytes, (n, H, W, C).
        mean: The mean of each channel, (C,).
        std: The standard deviation of each channel, (C,).
        as_bytes: Whether bytes stay bytes.
    """
    shift = torch.from_numpy(mean.astype(np.float32))
    scale = torch.from_numpy(std.astype(np.float32))
    if images.dtype != np.uint8:
        x = unit_norm_(torch.from_numpy(images).sub_(shift).div_(scale))
        return x.permute(0, 3, 1, 2)
    pixels = torch.from_numpy(np.require(images, requirements=["C", "W"]))
    if as_bytes:
        factors = [
            _factors(_standardized_bytes(pixels[part], shift, scale))
            for part in _parts(len(pixels))
        ]
        return ByteImages(pixels, shift, scale, torch.cat(factors))
    x = torch.empty(pixels.shape, dtype=torch.float32)
    for part in _parts(len(pixels)):
        x[part] = unit_norm_(_standardized_bytes(pixels[part], shift, scale))
    return x.permute(0, 3, 1, 2)


def are_zero(x: Tensor | ByteImages) -> Tensor:
    """Return which images (n, C, H, W) are zero after standardization, bool (n,)."""
    if isinstance(x, ByteImages):
        return x.factors == 0
    return torch.cat([(part == 0).flatten(1).all(1) for part in x.split(CHUNK)])


def unit_norm_(x: Tensor) -> Tensor:
    """Scale every image (n, ...), in place, to L2 norm 1 over its entries; zero stays zero."""
    return x.mul_(_factors(x).view(-1, *[1] * (x.dim() - 1)))


def channel_statistics(
    images: NDArray[np.float32] | NDArray[np.uint8],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and standard deviation over the pixels of images (n, H, W, C), shape (C,) each.

    Bytes count as byte/255. The deviation of a constant channel is given as 1, so that one can
    divide by it.
    """
    channels: list[NDArray[Any]] = [images[..., c] for c in range(images.shape[-1])]
    if images.dtype == np.uint8:
        mean, std = np.array([_of_bytes(channel) for channel in channels]).T
    else:
        mean = np.array([channel.mean(dtype=np.float64) for channel in channels])
        std = np.array([channel.std(dtype=np.float64) for channel in channels])
    return mean, np.where(std > 1e-6, std, 1.0)


def from_bytes(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return bytes as float32 in [0, 1]."""
    images = pixels.astype(np.float32, order="C")
    images /= TOP
    return images


def _of_bytes(channel: NDArray[np.uint8]) -> tuple[float, float]:
    """Return mean and deviation of a channel (n, H, W) from how often each byte is in it."""
    counts = np.zeros(TOP + 1)
    for part in _parts(len(channel)):
        counts += np.bincount(channel[part].ravel(), minlength=TOP + 1)
    values = from_bytes(np.arange(TOP + 1, dtype=np.uint8)).astype(np.float64)
    mean = counts @ values / counts.sum()
    return mean, float(np.sqrt(counts @ (values - mean) ** 2 / counts.sum()))


def _standardized_bytes(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Standardize bytes (n, H, W, C) as floats; they are divided by tensors.

    Some devices multiply by the inverse of a plain number instead. Rows of all entries are three
    times as fast as a broadcast over channels.
    """
    x = pixels.to(torch.float32)
    shift, scale = (part.repeat(x[0].numel() // len(mean)) for part in (mean, std))
    x.view(len(x), -1).div_(torch.full_like(shift, TOP)).sub_(shift).div_(scale)
    return x


def _factors(x: Tensor) -> Tensor:
    norms = x.flatten(1).norm(dim=1)
    # Rounding in the mean may leave about 1e-7 per entry where the exact value is zero.
    tiny = 1e-6 * x[0].numel() ** 0.5
    return torch.where(norms > tiny, 1 / norms, torch.zeros_like(norms))


def _parts(count: int) -> Iterator[slice]:
    return (slice(start, start + CHUNK) for start in range(0, count, CHUNK))

"""Checkpoints: written whole or not at all, checked when loaded, and free of code."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import CheckpointIO, TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint

from janus_pl.errors import UsageError
from janus_pl.run.files import remove_leftovers, write_atomically
from janus_pl.run.folder import LAST
from janus_pl.training.lightning import stores_checkpoints_itself

PREVIOUS = "previous.ckpt"
PLAIN = "tensors and plain containers"
MARK = b"janus_pl sha256 "
SEAL = 2 + len(MARK) + 2 * sha256().digest_size  # bytes; the first two hold the comment's length
OF_LIGHTNING = {"state_dict": dict, "global_step": int, "pytorch-lightning_version": str}
OF_TRAINING = {"callbacks", "loops", "lr_schedulers", "optimizer_states"}


class VerifiedCheckpointIO(TorchCheckpointIO):
    """A checkpoint plugin that saves in one step with a checksum, and loads sound files alone.

    A file is the zip archive of `torch.save`, whose comment holds the SHA-256 of all bytes before
    it; `torch.load` reads it as any other. It replaces the checkpoint once it is complete and on
    the disk. The old `last.ckpt` stays as `previous.ckpt`, if it was sound.

    Loading takes tensors and plain containers only, so it runs no code. In place of a damaged file
    the newest sound checkpoint of its folder is taken, with a warning. A file without our checksum
    is judged by the CRC-32 of its records. `LightningModule.load_from_checkpoint` does not use this
    plugin, and checks nothing.
    """

    def __init__(self) -> None:
        self._written: set[Path] = set()

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Save a checkpoint; if that fails, leave everything as it was.

        Raises:
            StorageError: The file cannot be written.
            UsageError: The checkpoint holds objects that could not be loaded again, or the place is
                not a local folder.
            TypeError: Storage options are given.
        """
        if storage_options is not None:
            raise TypeError(f"{type(self).__name__} has no storage_options")
        if "://" in str(path):
            raise UsageError("trainer.callbacks", str(path), "a local folder for checkpoints")
        path = Path(path).absolute()
        archive = _archive(checkpoint)
        body = archive.getbuffer()[:-2]  # the length of the comment, which was 0
        ending = _seal_of(body)
        remove_leftovers(path.parent)
        keep = path.with_name(PREVIOUS) if path.name == LAST and self._sound(path) else None
        write_atomically(path, lambda file: (file.write(body), file.write(ending)), keep)
        self._written.add(path)

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Any = "cpu",
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Return the checkpoint of a file or, if it is damaged, the newest sound one beside it.

        Raises:
            UsageError: Neither is sound, the file does not exist, or `weights_only` is False.
        """
        check_weights_only(weights_only)
        return load_sound(Path(path), map_location)[1]

    def _sound(self, path: Path) -> bool:
        """Tell whether a file is a sound checkpoint, so that it may be kept as the previous one."""
        if path in self._written:
            return True
        try:
            _verify(path.read_bytes())
        except (OSError, UnsoundError):
            return False
        return True


def with_verified_io(plugins: Any, strategy: object) -> list[Any]:
    """Return a trainer's plugins, with ours added unless the user stores checkpoints otherwise."""
    given = list(plugins) if isinstance(plugins, list | tuple) else [plugins] if plugins else []
    own = [plugin for plugin in given if isinstance(plugin, CheckpointIO)]
    if own or stores_checkpoints_itself(strategy):
        return given
    return [*given, VerifiedCheckpointIO()]


class UnsoundError(ValueError):
    """The reason why no run can go on from a file."""


def load_sound(path: Path, map_location: Any = "cpu") -> tuple[Path, dict[str, Any]]:
    """Return a file and its checkpoint or, if it is damaged, the newest sound ones beside it.

    The newest is the one with the most steps, since copying a file changes its time.

    Raises:
        UsageError: Neither is sound, or the file does not exist.
    """
    gone = path.name == LAST and any(path.parent.glob("*.ckpt"))
    if not path.is_file() and not gone:
        raise UsageError("--ckpt_path", str(path), "an existing checkpoint file")
    try:
        return path, _read(path, map_location)
    except UnsoundError as error:
        reason = str(error)
    found: tuple[Path, dict[str, Any]] | None = None
    for other in sorted(path.parent.glob("*.ckpt")):
        if other.name == path.name:
            continue
        try:
            checkpoint = _read(other, map_location)
        except UnsoundError:
            continue
        if found is None or checkpoint["global_step"] > found[1]["global_step"]:
            found = other, checkpoint
    if found is None:
        allowed = f"a sound checkpoint; this {reason}, and there is no sound one beside it"
        raise UsageError("--ckpt_path", str(path), allowed)
    rank_zero_warn(
        f"{path} cannot be used: it {reason}; taking {found[0].name} beside it instead,"
        f" of step {found[1]['global_step']}"
    )
    return found


def check_weights_only(weights_only: bool | None) -> None:
    """Refuse `weights_only: false`, which would let a checkpoint run code."""
    if weights_only is False:
        raise UsageError("--weights_only", False, f"true: a checkpoint is {PLAIN}")


def check_fits(
    path: Path, checkpoint: dict[str, Any], weights: Mapping[str, Tensor], training: bool
) -> None:
    """Refuse a checkpoint that a model cannot go on from.

    Args:
        path: The checkpoint's file, for the message.
        checkpoint: Its content.
        weights: The model's weights; empty if they are not known yet.
        training: Whether the state of the training is needed, too.

    Raises:
        UsageError: The checkpoint is of another model, or holds the weights alone.
    """
    if training and not checkpoint.keys() >= OF_TRAINING:
        allowed = "a checkpoint with the state of the training; this one holds the weights alone"
        raise UsageError("--ckpt_path", str(path), allowed)
    shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
    found = {k: tuple(getattr(v, "shape", ())) for k, v in checkpoint["state_dict"].items()}
    if shapes and (other := [k for k in {**shapes, **found} if shapes.get(k) != found.get(k)]):
        here, there = (of.get(other[0], "missing") for of in (shapes, found))
        allowed = (
            f"a checkpoint of this model, where {other[0]} is {here}; in the file it is {there}"
        )
        raise UsageError("--ckpt_path", str(path), allowed)


def _archive(checkpoint: dict[str, Any]) -> io.BytesIO:
    """Return a checkpoint as bytes in memory, so that only plain writes can meet a full disk."""
    archive = io.BytesIO()
    torch.save(checkpoint, archive)
    archive.seek(0)
    if unsafe := get_unsafe_globals_in_checkpoint(archive):
        allowed = f"{PLAIN}; see save_hyperparameters(ignore=...) and the callbacks' state_dict"
        raise UsageError("checkpoint", ", ".join(unsafe), allowed)
    return archive


def _read(path: Path, map_location: Any) -> dict[str, Any]:
    """Return a checkpoint, from the very bytes that were verified.

    Raises:
        UnsoundError: The file is damaged, or holds something else.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UnsoundError(f"cannot be read ({error.strerror})") from error
    _verify(content)
    file = io.BytesIO(content)
    try:
        checkpoint = torch.load(file, map_location=map_location, weights_only=True)
    except Exception as error:
        raise UnsoundError(_refusal(file, error)) from error
    if not isinstance(checkpoint, dict) or not all(
        isinstance(checkpoint.get(key), kind) for key, kind in OF_LIGHTNING.items()
    ):
        raise UnsoundError("is no checkpoint of Lightning")
    return checkpoint


def _refusal(file: io.BytesIO, error: Exception) -> str:
    file.seek(0)
    try:
        names = get_unsafe_globals_in_checkpoint(file)
    except Exception:  # an archive of something else
        names = []
    if names:
        return f"holds {', '.join(names)}, where {PLAIN} are allowed"
    return f"cannot be read ({type(error).__name__})"


def _verify(content: bytes) -> None:
    """Compare the content of a file with its checksum.

    Raises:
        UnsoundError: The content has changed since it was written, or is no checkpoint.
    """
    if not content:
        raise UnsoundError("is empty")
    body, seal = memoryview(content)[:-SEAL], content[-SEAL:]
    if seal[2:].startswith(MARK):
        if seal != _seal_of(body):
            raise UnsoundError("is damaged (its checksum differs)")
        return
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            sound = not archive.comment and archive.testzip() is None
    except Exception as error:  # no archive, or cut off: many ways to say so
        raise UnsoundError("is cut off or no checkpoint at all") from error
    if not sound:
        raise UnsoundError("is damaged (its checksum differs)")


def _seal_of(body: memoryview) -> bytes:
    """Return the end of an archive: the length of its comment, and the comment."""
    comment = MARK + sha256(body).hexdigest().encode()
    return struct.pack("<H", len(comment)) + comment

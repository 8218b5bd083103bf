"""The help of the trainer's subcommands, kept from the last time that the parser has made it.

Making it takes the import of PyTorch and Lightning, whose signatures and docstrings it is made of.
So the text is kept in the user's cache folder, under a key of all that it depends on: our sources
and base.yaml, the packages that are installed, Python, the terminal's width, and variables. If one
of these changes, the parser makes it again. It makes it each time if nothing can be kept.

Only the process of a command keeps a text, because other processes may have imported classes that
the parser then names.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from janus_pl.cli.help import TRAINING
from janus_pl.cli.streams import lasting_streams

PACKAGE = Path(__file__).resolve().parents[1]
BASE = PACKAGE / "configs" / "base.yaml"
CALLBACKS = (PACKAGE / "callbacks").resolve()  # a link in a clone, which rglob need not follow
VARIABLES = ("COLUMNS", "NO_COLOR", "FORCE_COLOR", "PYTHON_COLORS", "TERM", "LANG", "LC_ALL")
KEPT = 20  # texts in the folder, with other widths and older sources


def read(args: Sequence[str]) -> str | None:
    """Return the text that a command line asks for; None if it is no help, or none is kept."""
    if not _asks(args):
        return None
    try:
        return (_folder() / _key(args)).read_text(encoding="utf-8")
    except OSError:
        return None


@contextlib.contextmanager
def keeping(args: Sequence[str]) -> Iterator[None]:
    """Keep what the block prints, if the command line asks for help and the block ends well."""
    if not _asks(args):
        yield
        return
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            yield
    except SystemExit as stop:
        if not stop.code:
            _keep(args, said.getvalue())
        raise
    finally:
        with lasting_streams():
            sys.stdout.write(said.getvalue())


def _asks(args: Sequence[str]) -> bool:
    return len(args) == 2 and args[0] in TRAINING and args[1] in ("-h", "--help")


def _folder() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "janus_pl" / "help"


def _key(args: Sequence[str]) -> str:
    """Return the name of the text: a digest of all that it depends on."""
    digest = hashlib.sha256()
    for part in _parts(args):
        digest.update(repr(part).encode())
    return digest.hexdigest()


def _parts(args: Sequence[str]) -> Iterator[object]:
    yield args[0], sys.version, sys.platform, sys.flags.optimize
    yield shutil.get_terminal_size(), sys.stdout.isatty()
    for name, value in sorted(os.environ.items()):
        if name in VARIABLES or name.startswith("JSONARGPARSE"):
            yield name, value
    for place in (BASE, PACKAGE, CALLBACKS):
        for file in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            yield str(file), file.read_bytes()
    for searched in sys.path:
        with contextlib.suppress(OSError):
            # Their names have the versions in them.
            yield searched, sorted(each for each in os.listdir(searched) if each.endswith("-info"))


def _keep(args: Sequence[str], text: str) -> None:
    """Write a text, and remove the oldest ones."""
    from janus_pl.run.files import write_atomically  # with numpy, which reading does without

    with contextlib.suppress(OSError):
        folder = _folder()
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / _key(args), lambda file: file.write(text.encode()))
        texts = sorted(folder.iterdir(), key=lambda file: file.stat().st_mtime)
        for old in texts[:-KEPT]:
            old.unlink(missing_ok=True)

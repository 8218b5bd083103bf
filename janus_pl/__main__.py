"""The door: `python -m janus_pl`, and the command `janus-pl`."""

import os
import sys
from typing import NoReturn

from janus_pl.cli import help as texts
from janus_pl.cli import kept_help, subcommands
from janus_pl.cli.streams import lasting_streams
from janus_pl.errors import Exit


def run() -> NoReturn:
    """Run the command line; tools that only read records start without PyTorch."""
    asked = sys.argv[1:]
    if (text := texts.asked_for(asked)) is not None or (text := kept_help.read(asked)) is not None:
        with lasting_streams():
            print(text.removesuffix("\n"))
        raise SystemExit(Exit.DONE)
    if asked[:1] and asked[0] in subcommands.READERS:
        raise SystemExit(subcommands.main(asked))
    if asked[:1] == ["sweep"]:
        from janus_pl.sweep import ahead

        ahead.begin(asked[1:])

    with kept_help.keeping(asked):
        from janus_pl.cli.main import main

        raise SystemExit(main())


def script() -> NoReturn:
    """Run the command line of `janus-pl`, which finds classes where `python -m janus_pl` does.

    Python looks for modules in the working directory for `python -m`, but not for a script.
    """
    if not sys.flags.safe_path:
        sys.path.insert(0, os.getcwd())
    run()


if __name__ == "__main__":
    run()

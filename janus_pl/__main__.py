import sys

from janus_pl.cli import help as texts
from janus_pl.cli import kept_help, subcommands
from janus_pl.cli.streams import lasting_streams
from janus_pl.errors import Exit

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

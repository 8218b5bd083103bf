import sys

from janus_pl.cli import help as texts
from janus_pl.cli import subcommands
from janus_pl.cli.streams import lasting_streams
from janus_pl.errors import Exit

if (text := texts.asked_for(sys.argv[1:])) is not None:
    with lasting_streams():
        print(text)
    raise SystemExit(Exit.DONE)
if sys.argv[1:2] and sys.argv[1] in subcommands.READERS:
    raise SystemExit(subcommands.main(sys.argv[1:]))

if sys.argv[1:2] == ["sweep"]:
    from janus_pl.sweep import ahead

    ahead.begin(sys.argv[2:])

from janus_pl.cli.main import main

raise SystemExit(main())

import sys

from janus_pl.cli import help as texts
from janus_pl.cli import subcommands
from janus_pl.cli.streams import lasting_streams
from janus_pl.errors import Exit

if texts.asked_for(sys.argv[1:]):
    with lasting_streams():
        print(texts.HELP)
    raise SystemExit(Exit.DONE)
if sys.argv[1:2] and sys.argv[1] in subcommands.READERS:
    raise SystemExit(subcommands.main(sys.argv[1:]))

from janus_pl.cli.main import main

raise SystemExit(main())

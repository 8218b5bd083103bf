import sys

from janus_pl import tools, usage

if usage.asked_for(sys.argv[1:]):
    print(usage.HELP)
    raise SystemExit(0)
if sys.argv[1:2] and sys.argv[1] in tools.READERS:
    raise SystemExit(tools.main(sys.argv[1:]))

from janus_pl.cli import main

raise SystemExit(main())

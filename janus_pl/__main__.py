from janus_pl.cli import main

raise SystemExit(main())

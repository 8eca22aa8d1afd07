"""`python -m spear_spec` is `spear-spec`."""

from spear_spec.cli import main

raise SystemExit(main())

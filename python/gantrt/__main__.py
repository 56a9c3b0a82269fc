"""`python -m gantrt` is `gantrt`."""

import sys

from .cli import main

sys.exit(main())

"""Python runs this at its start where this folder is on PYTHONPATH: so commands that tests start have that core, too.

bench/sanitize.py puts it there. A process without the sanitiser's library, because a test gave it an environment of its
own, keeps the installed core: the other could not be loaded.
"""

import os
import sys
from pathlib import Path

if os.environ.get("GANTRT_TEST_CORE") and "libasan" in os.environ.get("LD_PRELOAD", ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import other_core

    del sys.path[0]
    other_core.use(os.environ["GANTRT_TEST_CORE"])

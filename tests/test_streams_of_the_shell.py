"""Standard streams that are full, closed or no Unicode, disks that are full, and folders nobody may write."""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
FEW_BYTES = 2048

"""Standard streams that are full, closed or no Unicode, disks that are full, and folders nobody may write."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import frames, write_clip
from tiny_networks import write_pointwise
from tiny_pictures import make_pairs

pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
FEW_BYTES = 2048

"""The oracles of decoding judge the kernels too."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "decoding"))

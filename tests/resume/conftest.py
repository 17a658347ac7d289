"""Lets the tests, and the processes that they start, import the training script beside them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

"""Make the reference importable, and keep the tests from reading or filling the user's own data folder."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

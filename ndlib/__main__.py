"""``python -m ndlib``: the same as the command ``ndlib``."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())

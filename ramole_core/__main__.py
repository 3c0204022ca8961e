"""`python -m ramole_core`: the command line."""

import sys

from ramole_core.cli import main

if __name__ == "__main__":
    sys.exit(main())

"""`python -m chromatune`: the command line without its script."""

import sys

from chromatune.cli import main

if __name__ == "__main__":
    sys.exit(main())

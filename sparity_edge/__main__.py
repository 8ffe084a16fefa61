"""`python -m sparity_edge` is the command `sparity-edge`."""

import sys

from sparity_edge.cli import main

if __name__ == "__main__":
    sys.exit(main())

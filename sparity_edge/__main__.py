"""The command `sparity-edge`, also as `python -m sparity_edge`.

Until `main` listens, Ctrl-C just ends the process: nobody wants to see half an import. What comes
before the first line of this module is Python's own start, and answers as Python does.
"""

# What `signal` wraps; that one needs enum and re, milliseconds in which Ctrl-C shows.
import _signal  # type: ignore[import-not-found]

if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)

import sys

from sparity_edge.cli.main import main

if __name__ == "__main__":
    sys.exit(main())

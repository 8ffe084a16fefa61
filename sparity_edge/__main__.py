"""The command `sparity-edge`, also as `python -m sparity_edge`."""

import signal
import sys

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Until `main` listens, Ctrl-C just ends the process: nobody wants to see half an import.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from sparity_edge.cli import main

if __name__ == "__main__":
    sys.exit(main())

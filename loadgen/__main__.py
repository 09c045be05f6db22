"""`python -m loadgen`: sweeps, and the options that `locust --help` can't show."""

import sys

from loadgen._cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

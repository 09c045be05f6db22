"""`python -m analysis.exports`: `turnbench export` in a checkout, and what a run with --otlp starts at its
end.
"""

import sys

from analysis.exports.command import main

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:], "python -m analysis.exports"))

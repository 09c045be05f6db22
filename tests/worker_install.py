"""What deploy/worker.txt leaves out."""

from turnbench.extras import OF_THE_ANALYSIS

LEFT_OUT = {*OF_THE_ANALYSIS, "shtab"}

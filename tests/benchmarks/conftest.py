"""The benchmarks' own modules can be imported here, after everything of the tests: both have a `data`."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

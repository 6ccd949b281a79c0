"""A process with this folder on PYTHONPATH keeps its priority.

The server compiles its kernels at the lowest one: beside busy processes that takes many minutes,
for which no test can wait.
"""

from __future__ import annotations

import os

os.nice = lambda increment, /: increment

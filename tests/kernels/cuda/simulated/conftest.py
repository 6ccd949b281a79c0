"""These tests run in a process of their own, where kernels see the simulator instead of a GPU."""

from __future__ import annotations

import os

collect_ignore_glob = [] if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1" else ["test_*.py"]

"""For all tests."""

from __future__ import annotations

import signal

# Where SIGINT is ignored (a job in the background), the processes that tests start would ignore it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

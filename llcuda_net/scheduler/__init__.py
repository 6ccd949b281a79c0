"""Which request gets a slot next: a fair queue with priorities, quotas and estimated waits.

It does no I/O, and imports `errors`, `util` and `config`.
"""

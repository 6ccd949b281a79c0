"""Who gets a slot next: a fair queue with priorities, quotas and estimates of the wait.

It does no I/O, and imports `errors`, `util` and `config`.
"""

"""What an operator sees: observers of events, metrics, traces, readiness, status reports.

It imports whatever is below it in `tests/test_layout.py`; `analysis` and `bench` are beside it.
"""

"""The measurements: latency, throughput, scaling; and what they start.

It imports `noop`, `workload`, `statistics` and `report.document`.

settings            what a measurement is asked to do
stack, mpirun       processes that are started for it
once                one run of a plan, and the client's self-test
latency             what a user waits for
steps, throughput   what one load amounts to; the sweep over loads
ranks, searches     one point over MPI ranks: of requests, and of searches
curve, sweep        the curve of points; starting them
"""

"""The parts of the overhead benchmark: load, processes, statistics and the report."""

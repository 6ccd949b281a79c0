"""The parts of the crash and proxy campaigns: jobs, clients, what they saw, and what was kept."""

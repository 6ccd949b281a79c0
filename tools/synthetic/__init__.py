"""The parts of the synthetic upstream: a fake llama-server with made-up tokens and faults."""

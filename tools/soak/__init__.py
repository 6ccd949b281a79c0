"""The parts of the soak: hours of steady load, and whether anything grows."""

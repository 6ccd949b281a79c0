"""A terminal that was recorded, as one SVG: see tools/record_terminal.py."""

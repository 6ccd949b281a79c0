"""The demonstration model: its corpus, and the pieces that train and export it."""

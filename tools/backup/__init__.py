"""The campaign of backups: what it asks, and what must be in a restored data directory."""

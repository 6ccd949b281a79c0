"""The crash campaign: kill -9 under clients. Builds on tools/campaign."""

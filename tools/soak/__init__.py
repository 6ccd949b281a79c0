"""The soak: steady load for hours, to see whether anything grows. Builds on tools/campaign."""

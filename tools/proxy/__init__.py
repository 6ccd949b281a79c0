"""The proxy campaign: connections of clients in trouble. Builds on tools/campaign."""

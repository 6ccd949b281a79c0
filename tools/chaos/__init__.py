"""The chaos campaign: many upstreams in trouble behind one server. Builds on tools/campaign."""

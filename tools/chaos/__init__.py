"""The parts of the chaos campaign: many upstreams in trouble behind one server."""

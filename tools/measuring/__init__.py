"""The parts of the measuring tools: options, what is started for them, self-test, tables, pages."""

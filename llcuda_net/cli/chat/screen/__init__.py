"""An answer on a terminal: Markdown that grows, drawn as it comes."""

"""The page: HTML, CSS and ES modules that llcuda-server serves as they are. README.md is its contract."""

"""The page: HTML, CSS and ES modules that llcuda-server serves as they are; see README.md."""

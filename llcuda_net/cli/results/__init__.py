"""`llcuda results`: list, show, search, export and maintain what is stored."""

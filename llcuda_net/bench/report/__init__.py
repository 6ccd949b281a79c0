"""What comes out: the JSON document, tables for terminals, plots and pages.

It imports `statistics`. Only `plots` and `page` import matplotlib and Jinja2, when a page is made.
"""

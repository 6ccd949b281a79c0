"""What tools/bench_page.py measures: the page in a real browser, in front of a real server.

It imports `tools.overhead` (processes, their costs), `tools.growth` (a full store) and Playwright.
"""

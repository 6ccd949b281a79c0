"""Measuring: schedules, load, records, histograms, statistics, fits, reports and comparisons.

The order of the modules, each using those before it:

    beta, statistics, histogram     what may be said of a sample
    schedules, prompts             when to send what, fixed before the run
    records, targets, load         sending it, and what came back
    validity, summary              whether the run counts, and its figures
    knee, scaling                  throughput against load, and against ranks
    document, compare               JSON; old against new
    shown, plots, page              for people: terminal, SVG, HTML
"""

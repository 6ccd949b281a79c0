"""What may be said of a sample: estimates with intervals, knees, laws, comparisons.

It imports `batch` (records and histograms) and nothing of its siblings.
"""

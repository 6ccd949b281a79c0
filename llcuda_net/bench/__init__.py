"""Measuring: what is sent and when, the figures of what came back, reports and comparisons.

It imports `batch` (records, targets, messages between ranks) and what is below it. The extra
`bench` brings what it needs besides: HdrHistogram, scipy, matplotlib and Jinja2.

workload      when to send what, fixed before the run; sending it; whether the run counts
histogram     the times of many requests, mergeable over ranks
statistics    what a sample supports: estimates, fits, comparisons
record        what a measurement leaves: a document by a schema, every request's times
report        JSON, tables for terminals, plots and pages
noop          a server that computes nothing, to measure the client
runs          the measurements themselves, and what they start
"""

"""Parts that the reports of several measurements have in common.

objective  an SLO beside what was reached
pareto     what one user gets against what all get
lengths    how long prompts and answers were
energy     joules, watts and cost
overlay    several runs on one page
"""

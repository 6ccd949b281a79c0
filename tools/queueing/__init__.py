"""Simulates the queue in virtual time: parts of tools/eval_fairness.py, and of the tests."""

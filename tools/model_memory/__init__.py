"""Estimates of a model's memory beside what a real llama-server takes."""

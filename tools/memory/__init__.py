"""Attacks on the server's memory; what imports it is tools/memory_campaign.py."""

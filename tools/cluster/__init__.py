"""The campaign of the cluster: servers, database and networks in trouble.

Builds on tools/campaign.
"""

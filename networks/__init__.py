"""Populations, connections, the network graph and its schedule."""

"""Capacity plans: memory by rank and phase, throughput, cost and traffic, from headers or a config alone."""

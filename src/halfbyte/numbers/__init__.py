"""Means with honest intervals, over quantities that come in documents."""

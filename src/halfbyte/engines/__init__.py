"""What is known about engines: one file each, facts and small formulas, no sums."""

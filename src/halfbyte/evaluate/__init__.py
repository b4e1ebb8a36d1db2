"""`evaluate`: benchmarks of a candidate against its baseline, with a verdict that can be defended."""

"""One package, so that `python -m benchmarks.FOLDER.NAME` finds this one and no other of the name."""

"""Written by tests/deploy/record_kinds.py from published definitions; never edited."""

"""Recipe and policy files: typed, one reader."""

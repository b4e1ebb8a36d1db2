"""Checkpoints on disk: headers, index, roles, ModelOpt layout and metadata. No weights are interpreted here."""

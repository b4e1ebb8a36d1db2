"""`halfbyte report`: one page of what is known about a checkpoint, from its dossier and nothing else."""

"""What the documents are called where they lie beside the weights."""

DOSSIER = "halfbyte.json"
DECISION = "gate.json"

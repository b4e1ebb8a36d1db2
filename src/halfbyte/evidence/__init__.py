"""The documents that travel: halfbyte.json, gate.json, plan.json. Typed, one reader, one atomic writer."""

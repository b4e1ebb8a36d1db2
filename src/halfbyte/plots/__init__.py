"""Pictures and the pages that hold them: charts from plain rows, drawn once, without script or address."""

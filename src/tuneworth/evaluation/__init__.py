"""Arms answer the same test rows: prompt forms, the classical floor, metrics, per-row scores and their summary."""

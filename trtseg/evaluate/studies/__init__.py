"""Studies: many evaluations as one table, the networks that they train, and the page."""

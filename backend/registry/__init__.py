"""Models and their lineage: what a name means, where it lies, and what it was made from."""

"""Evaluation: benchmarks, metrics, statistics that say how sure a difference is, and the report."""

"""Hosts and jobs: run, follow, copy, watch GPUs. Knows nothing of what the jobs are for."""

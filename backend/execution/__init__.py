"""Execution: answers assembled by asar and run in a SNES core, in children that can do nothing else."""

"""Keeping a workspace and its machine in order: doctor, backup, prune."""

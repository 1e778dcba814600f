"""What both sides share: recipes, job specifications and event records. Standard library only.

It travels to the host inside the worker's bundle, so it runs on any Python from 3.10 and imports
nothing but the standard library.
"""

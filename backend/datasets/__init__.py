"""Datasets: reading and writing every known row format, and splits that part no family."""

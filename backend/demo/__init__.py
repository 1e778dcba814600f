"""The demo: the whole loop on the embedded model, through the same functions that a person's own work uses."""

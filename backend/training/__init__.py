"""Training: recipes, and the runs that are launched, watched and resumed."""

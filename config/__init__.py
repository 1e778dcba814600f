"""What people edit: TOML settings, domains, recipes, rubrics, templates. Data only, no code."""

"""Between `remote/` and the rows: the host list, launching jobs, and mirroring what they tell."""

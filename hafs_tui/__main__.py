"""`python -m hafs_tui` is `hafs-tui`."""

from hafs_tui.cli import main

main()

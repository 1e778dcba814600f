"""What people see: the Textual app and the command line. Knows `backend`, and nothing of how it works.

Where things are
----------------
`actions.py`      every action in one table (data): keymap, footer, help and palette are made from it
`mode_screen.py`  what all mode screens share: bars, reading snapshots, possible actions, told errors
`screens/X.py`    the screen of mode X: its widgets, and for each action `X.name` a method `do_name`
                  (beside them what several share: `recipe_fields`, `dataset_forms`, `job_log`, `report`,
                  and the chat of Deploy, `conversation`)
`snapshots/X.py`  what mode X shows, as frozen dataclasses, and `read(...)`, which reads it from the rows
`widgets/`        widgets of more than one screen; they take raw text and sanitize it themselves
`feed.py`         watches `PRAGMA data_version`; only the screen that is shown reads again
`sanitize.py`     the gate for text that we did not write
`cli/`            every action without a screen; it calls the same functions of `backend/`

To add to a screen
------------------
1. Add the `Action` to `actions.py`, with the `Need`s that must hold and, for a new need, its reason.
2. Write `do_<name>` in the screen: ask with a `Form` or `Confirm` if needed, then
   `self.work(backend_function(...), then=...)`. No rule of the product is written here.
3. If it shows something new, add it to the snapshot's dataclass and its `read`, and to `show`, which
   updates widgets in place and never mounts any.
"""

"""One file a figure. `python -m experiments` runs them all, `python -m experiments NAME` one."""

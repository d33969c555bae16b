"""Trouble on purpose: mutated files, kills, faults of the machine and commands side by side, with fixed seeds.

`make chaos` runs all of it and renews the table in docs/reliability.md.
"""

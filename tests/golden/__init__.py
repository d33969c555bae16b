"""Keys and numbers as they were: a change of either without a raised REVISION fails.

`python -m tests.golden` writes them anew (tests/golden/golden.json), which is for after a REVISION was raised.
"""

"""`python -m winticket` is the command."""

from winticket.cli import main

main()

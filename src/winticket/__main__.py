"""`python -m winticket` is the command."""

from winticket.cli import main

if __name__ == "__main__":
    main()

"""`python -m forge_cli` is the same as `forge`."""

from forge_cli.cli.main import main

if __name__ == "__main__":
    main()

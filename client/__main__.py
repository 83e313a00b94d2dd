"""`python -m client` is `pcehr`."""

from client.cli import main

if __name__ == "__main__":
    main()

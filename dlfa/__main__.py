"""`python -m dlfa` is `dlfa`."""

from .cli import main

if __name__ == "__main__":
    main()

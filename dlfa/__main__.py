"""Run `dlfa` as `python -m dlfa`."""

from .cli import main

if __name__ == "__main__":
    main()

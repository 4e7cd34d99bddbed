"""``python -m imgtool``."""

from imgtool.cli.app import main

if __name__ == "__main__":
    main()

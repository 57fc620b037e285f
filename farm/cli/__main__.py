"""``python -m farm.cli``, where the script is not on the path."""

from farm.cli import main

main()

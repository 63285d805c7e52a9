"""`python -m squeezenet` is the `squeezenet` command."""

from .cli import main

main()

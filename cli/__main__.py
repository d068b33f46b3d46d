"""`python -m cli` is `ambit`."""

from cli.main import main

main()

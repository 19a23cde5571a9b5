"""`python -m theoryrl.cli`."""

from theoryrl.cli.app import main

main()

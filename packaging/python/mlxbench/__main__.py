"""`python -m mlxbench` is `mlxbench`."""

from . import main

main()

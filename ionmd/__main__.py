"""`python -m ionmd` is the command line."""

from ionmd.cli import main

main(prog_name="ionmd")

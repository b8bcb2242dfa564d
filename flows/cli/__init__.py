"""The command line `covers`: `commands` lists all commands, `tables` prints their results."""

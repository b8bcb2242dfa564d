"""The command line `covers`."""

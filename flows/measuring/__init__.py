"""Measurements that publish a trial collection and ask it what a user would."""

"""Runs as data: a configuration, what it stands for, and the folder that it is trained in."""

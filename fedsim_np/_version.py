"""The version: read by the packaging, by ``fedsim-np --version`` and by every run's ``config.json``."""

__version__ = "0.1.0"

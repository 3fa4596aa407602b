"""The version: read by the packaging, by ``fedsim-np --version`` and by all that a run stores."""

import platform

__version__ = "0.2.0.dev0"


def versions(*libraries: str) -> dict[str, str]:
    """Return the versions that a result may depend on: this package's, Python's and those of installed libraries.

    Examples
    --------
    >>> list(versions("numpy"))
    ['fedsim_np', 'python', 'numpy']
    """
    import importlib.metadata  # takes longer to import than it is often needed

    installed = {}
    for name in libraries:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # in a frozen application
            installed[name] = "unknown"
    return {"fedsim_np": __version__, "python": platform.python_version(), **installed}

"""``python -m fedsim_np.docs --out site`` makes the site of the guides and the API.

It needs the extra ``docs``. What it finds wrong (a link that leads nowhere, a public name without a place) is told line
by line, with exit status 1, and nothing is written.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from fedsim_np.files import replacing


def main(argv: Sequence[str] | None = None) -> int:
    """Make the site and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m fedsim_np.docs", description="Make the site of guides and API.")
    parser.add_argument(
        "--out", metavar="DIR", required=True, help="the folder of the site; its first page: index.html"
    )
    parser.add_argument("--overwrite", action="store_true", help="write into a folder that is there")
    arguments = parser.parse_args(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a path may have letters that a console has not
    out = Path(arguments.out)
    if not arguments.out or (out.exists() and not out.is_dir()):
        return _refused(f"--out must be a folder. Got '{arguments.out}'.")
    if out.is_dir() and any(out.iterdir()) and not arguments.overwrite:
        return _refused(f"'{out}' is there already: use --overwrite to write into it.")
    try:
        from fedsim_np.docs.site import build
    except ModuleNotFoundError as error:
        return _refused(f'{error.name} is missing. Install what the site is made with: pip install "fedsim_np[docs]".')
    files, faults = build()
    for fault in faults:
        print(fault, file=sys.stderr)
    if faults:
        return 1
    try:
        for path, content in files.items():
            (out / path).parent.mkdir(parents=True, exist_ok=True)
            with replacing(out / path) as new:
                new.write_bytes(content.encode() if isinstance(content, str) else content)
    except OSError as error:
        return _refused(f"'{error.filename}' cannot be written: {error.strerror}.")
    print(f"written {os.path.join(arguments.out, 'index.html')}: {sum(path.endswith('.html') for path in files)} pages")
    return 0


def _refused(message: str) -> int:
    print(f"fedsim_np.docs: error: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())

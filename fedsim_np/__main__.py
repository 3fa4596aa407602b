"""``python -m fedsim_np`` is the command ``fedsim-np``."""

import sys

from fedsim_np.cli import main

if __name__ == "__main__":
    sys.exit(main())

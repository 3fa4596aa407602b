"""Labs: notebooks of 45 to 60 minutes, whose exercises are checked by a function that explains.

``fedsim-np notebook --list`` says which there are, ``fedsim-np notebook 1`` writes the first, ``--solutions`` with its
solutions. A lab is a text for each language (``1_drift.en.md``, see `source`) and a module of its exercises
(``lab_1``, see `exercises`). The right answers are computed when they are asked for.

Examples
--------
>>> from fedsim_np import labs
>>> check = labs.checker("1")
>>> check("1.1", "1/2").is_right
False
>>> check("1.1", ...)
1.1: Not answered yet. It asks for a number (right within 1 %), such as check("1.1", 0.25).
"""

from fedsim_np.labs.checking import Checker, LabError, check, checker
from fedsim_np.labs.exercises import Verdict
from fedsim_np.labs.pictures import Sliders, panels, sliders
from fedsim_np.labs.source import Lab, labs

__all__ = ["Checker", "Lab", "LabError", "Sliders", "Verdict", "check", "checker", "labs", "panels", "sliders"]

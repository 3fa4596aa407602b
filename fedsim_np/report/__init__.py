"""A run told as a page: one HTML file with everything in it, to be read, passed on and printed.

Everything a page shows is stored with the run: figures of the data and the model as pictures with their texts
(`pictures`), everything else as numbers (`stored`). So a page can be made again without the data (`run_page`), runs can
be compared (`comparison`), and those of a grid told as a study (`study`). Nothing is loaded from elsewhere: no script,
no font, no style sheet (`page`).
"""

from fedsim_np.report.comparison import write_comparison
from fedsim_np.report.pictures import Picture, read_pictures, save_pictures
from fedsim_np.report.run_page import write_pages, write_report
from fedsim_np.report.study import write_study_report
from fedsim_np.runs.stored import Run, read_run

__all__ = [
    "Picture",
    "Run",
    "read_pictures",
    "read_run",
    "save_pictures",
    "write_comparison",
    "write_pages",
    "write_report",
    "write_study_report",
]

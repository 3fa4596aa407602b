"""Arrays in, matplotlib figures out: what data, a run and a model look like.

Every function takes data and, optionally, where to draw: ``axes`` (one picture) or ``figure`` (several; a part of a
figure, such as ``figure.subfigures(1, 2)[0]``, will do). Without it a figure is made. Every function returns the whole
figure and shows nothing: ``figure.savefig("drift.png", dpi=200)`` keeps it, and a notebook shows it as a cell's value,
or by ``display(figure)`` where it is not the last one.

``matplotlib.pyplot`` is never imported, so nothing here knows of a current figure, needs a display, or chooses a
backend; and no ``rcParams`` are changed, since colours and sizes are handed to the artists themselves (`style`).

Colours are told apart by the colour-blind, and have a marker, a line style or an outline beside them for a print in
grey; the scale of shares runs evenly from white, for none, to dark. No text is smaller than 9 points: a figure that is
printed 8 cm wide is made 8 cm wide, ``figure=Figure(figsize=(3.15, 4), layout="constrained")``, and panels that do not
fit side by side go below each other.

==============================  ==================================================================================
the data                        `image`, `client_images`, `label_counts`, `mean_images`, `label_distribution`,
                                `client_sizes`
a run                           `learning_curves` (`legend_from_configs`, `histories_by_config`), `client_accuracy`
                                (`accuracy_of_clients`), `round_costs` (`bytes_of_round`); of what `fedsim_np.analysis`
                                knows, `suboptimality_curves` and `round_parts`
runs of a grid                  `heat_map`
one round                       `client_drift`, of the updates that `fedsim_np.learning.client_updates` gives
a model                         `class_weights`; `confusion_matrix`, of what `fedsim_np.learning.confusion_counts` gives
==============================  ==================================================================================

Examples
--------
>>> import fedsim_np as fed
>>> train, test = fed.datasets.load_sample()
>>> figure = fed.plots.client_images(train.create_dataset_for_client("f0000_14"))
>>> len(figure.axes), figure.axes[0].get_title()
(40, '8')
"""

from fedsim_np.plots.accuracy import accuracy_of_clients, client_accuracy
from fedsim_np.plots.canvas import NotebookFigure
from fedsim_np.plots.confusion import confusion_matrix
from fedsim_np.plots.convergence import round_parts, suboptimality_curves
from fedsim_np.plots.costs import RoundBytes, bytes_of_round, round_costs
from fedsim_np.plots.curves import learning_curves
from fedsim_np.plots.drift import client_drift
from fedsim_np.plots.heat import heat_map
from fedsim_np.plots.heterogeneity import client_sizes, label_counts, label_distribution
from fedsim_np.plots.images import client_images, image, mean_images
from fedsim_np.plots.legends import histories_by_config, legend_from_configs
from fedsim_np.plots.weights import class_weights

__all__ = [
    "NotebookFigure",
    "RoundBytes",
    "accuracy_of_clients",
    "bytes_of_round",
    "class_weights",
    "client_accuracy",
    "client_drift",
    "client_images",
    "client_sizes",
    "confusion_matrix",
    "heat_map",
    "histories_by_config",
    "image",
    "label_counts",
    "label_distribution",
    "learning_curves",
    "legend_from_configs",
    "mean_images",
    "round_costs",
    "round_parts",
    "suboptimality_curves",
]

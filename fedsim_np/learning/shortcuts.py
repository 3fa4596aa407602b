"""Shortcuts: faster ways to compute what methods compute, offered as methods of their own. Engines ask for them.

A model, an optimizer, a local training or an aggregator is complete without any. A class that overrides the methods
computes something else, and does not inherit the shortcuts: nobody would hear its own methods. It offers them anew, or
has none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, runtime_checkable

from fedsim_np.trees import Array, Arrays

if TYPE_CHECKING:  # models, optimizers, local trainings and aggregators are what this is for
    from fedsim_np.learning.losses import Head, SoftmaxHead
    from fedsim_np.learning.models.model import BatchOutput


class WithShortcuts:
    """A class whose subclasses inherit no shortcut from further up than a method that it is for.

    The methods are named by the class at the top, in `_computed_by`.

    Examples
    --------
    >>> class Base(WithShortcuts):
    ...     _computed_by = ("next",)
    ...     def next(self): ...
    >>> class Quick(Base):
    ...     def as_sgd(self): ...
    >>> class Other(Quick):
    ...     def next(self): ...
    >>> Other.as_sgd is None  # which no protocol takes for a method
    True
    """

    _computed_by: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **keywords: Any) -> None:
        """Put what the class at the top has, if anything, in the place of shortcuts that are not to be inherited."""
        super().__init_subclass__(**keywords)
        top = next(base for base in cls.__mro__ if "_computed_by" in vars(base))

        def place(name: str) -> int:
            return next(i for i, base in enumerate(cls.__mro__) if name in vars(base))

        overridden = min(map(place, cls._computed_by))
        for name in SHORTCUTS:
            if hasattr(cls, name) and place(name) > overridden:
                setattr(cls, name, getattr(top, name, None))


@runtime_checkable
class Stackable(Protocol):
    """A model that computes batches of many clients at once, each with weights of its own.

    Its fields are x and y, and the rows of each have one shape.
    """

    def stacked_forward_and_gradient(
        self, weights: Arrays, x: Array, y: Array, mask: Array
    ) -> tuple[BatchOutput, Arrays]:
        """Return a batch of each of k clients, forward and backward at once.

        Parameters
        ----------
        weights : tuple of ndarray, each (k, ...)
            The clients' trainable tensors.
        x, y : ndarray, shapes (k, b, ...)
        mask : ndarray of bool, shape (k, b)
            Which of the rows are examples; the others count for nothing.

        Returns
        -------
        BatchOutput
            ``loss`` (k,) and ``predictions`` (k, b, ...).
        gradients : tuple of ndarray, each (k, ...)
        """


@runtime_checkable
class EndsInHead(Protocol):
    """A model whose outputs are made row by row, and whose predictions and losses a `losses.Head` makes of them."""

    head: Head

    def head_outputs(self, trainable: Arrays, x: Array) -> Array:
        """Return the outputs z (..., b, c) of x (..., b, d)."""


@runtime_checkable
class IsSoftmaxRegression(Protocol):
    """Softmax regression: a softmax head on x W + b, ``trainable = (W, b)``, and l2/2 |W, b|^2 beside the loss."""

    l2: float

    def softmax_head(self) -> SoftmaxHead:
        """Return the head."""


class SGDSteps(NamedTuple):
    r"""What steps of gradient descent are; engines know a shorter way to take them.

    .. math:: g \leftarrow \nabla + \mu (w - w_0) + d, \qquad a \leftarrow m a + g, \qquad w \leftarrow w - \eta a

    (Nesterov: :math:`w \leftarrow w - \eta (g + m a)`.)

    Attributes
    ----------
    learning_rate : float
        :math:`\eta`.
    momentum : float
    nesterov : bool
    pull : float
        :math:`\mu`, towards the server's weights.
    drift : str or None
        Where d is, which stays the same over a client's steps, in what `LocalTraining.begin` gives; None for no d.
    """

    learning_rate: float
    momentum: float = 0.0
    nesterov: bool = False
    pull: float = 0.0
    drift: str | None = None


@runtime_checkable
class DeclaresElementwise(Protocol):
    """A local training that says whether its steps are elementwise.

    Where its state counts the rounds, the first two find out whether that is so.
    """

    def is_elementwise(self, state: Any) -> bool:
        """Return whether each weight moves by its own gradient and by what belongs to it alone."""


@runtime_checkable
class SumsParts(Protocol):
    """An aggregator that takes sums of parts of the cohort as well as all updates at once.

    ``next(state, updates, weights)`` is then ``of_sums(state, sums, weights)``, where the sums are those of `summed` of
    the parts, added up. So no more than a part's updates are ever in memory. It sees all clients, those that do not
    count as updates of zeros.
    """

    def summed(self, updates: Arrays, client_weights: Array) -> Arrays:
        """Return what a part of the cohort adds, in float64, of arrays (k, ...) one array (...) each."""

    def of_sums(self, state: Any, sums: Arrays, client_weights: Array) -> tuple[Any, Arrays, Any]:
        """Return what `Aggregator.next` does, of the sums and all clients' weights."""


_PROTOCOLS = Stackable, EndsInHead, IsSoftmaxRegression, DeclaresElementwise, SumsParts
_METHODS = [name for protocol in _PROTOCOLS for name in vars(protocol) if not name.startswith("_")]
SHORTCUTS = ("forward_and_gradient", "as_sgd", *_METHODS)

"""Who answers when a round's clients are asked: some drop out, some do less than they were asked to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from fedsim_np.errors import argument_error, check_bool, check_float, check_int
from fedsim_np.learning.client import Attendance
from fedsim_np.learning.cohort import client_stream
from fedsim_np.learning.models.checks import ClientBatches

_PARTICIPATION = 4_000_001  # a word of the streams, so that they are nobody else's


@dataclass(frozen=True)
class Participation:
    """Dropouts and stragglers, drawn for each client of each round.

    What becomes of a client depends on the seed, the round and its id alone: not on who else was asked, nor on the
    algorithm. So algorithms are compared on the same absences, and a run that is resumed sees the same ones.

    Parameters
    ----------
    dropout : float
        Probability that a client is absent.
    stragglers : float
        Probability that one who is there does fewer epochs than it was asked to: of `min_epochs` to one less, each as
        likely.
    min_epochs : int
    seed : int
    drop_stragglers : bool
        Whether the server does not wait for them: they are absent then, as in Li et al.'s federated averaging.

    Raises
    ------
    ValueError
        If an argument is out of range.

    References
    ----------
    Li et al., "Federated optimization in heterogeneous networks", MLSys 2020, https://arxiv.org/abs/1812.06127

    Examples
    --------
    >>> participation = Participation(dropout=0.2, stragglers=0.5, seed=5)
    >>> [participation.num_epochs(1, client_id, 20) for client_id in ("ann", "bob", "cem", "dia")]
    [20, 0, 18, 1]
    """

    dropout: float = 0.0
    stragglers: float = 0.0
    min_epochs: int = 1
    seed: int = 0
    drop_stragglers: bool = False

    def __post_init__(self) -> None:
        """Check the arguments."""
        for name in ("dropout", "stragglers"):
            if check_float(name, getattr(self, name), minimum=0.0) > 1:
                raise argument_error(name, "a probability, from 0 to 1", getattr(self, name))
        check_int("min_epochs", self.min_epochs, minimum=1)
        check_int("seed", self.seed, minimum=0)
        check_bool("drop_stragglers", self.drop_stragglers)

    def num_epochs(self, round_num: int, client_id: str, asked: int) -> int:
        """Return how many epochs a client does of those that it is asked for; 0 if it is absent."""
        check_int("asked", asked, minimum=1)
        rng = client_stream(client_id, _PARTICIPATION, check_int("round_num", round_num, minimum=0), self.seed)
        is_absent, is_straggler = rng.random(2) < (self.dropout, self.stragglers)
        if is_absent:
            return 0
        if not is_straggler or asked <= self.min_epochs:
            return asked
        return 0 if self.drop_stragglers else int(rng.integers(self.min_epochs, asked))

    def cohort(
        self, round_num: int, client_ids: Sequence[str], dataset_fn: Callable[[str, int], ClientBatches], epochs: int
    ) -> list[Attendance]:
        """Return a cohort for ``process.next``.

        Parameters
        ----------
        round_num : int
        client_ids : sequence of str
            Who is asked.
        dataset_fn : callable
            Client id and number of epochs -> what the client reads:
            ``lambda c, epochs: data.create_dataset_for_client(c).repeat(epochs).batch(20)``.
        epochs : int
            That everybody is asked for.

        Returns
        -------
        list of Attendance
            One for each, those who are absent among them.
        """
        attendance = []
        for client_id in client_ids:
            done = self.num_epochs(round_num, client_id, epochs)
            data = dataset_fn(client_id, done) if done else None
            attendance.append(Attendance(client_id, data, _status(done, epochs)))
        return attendance


def _status(done: int, asked: int) -> Literal["full", "partial", "absent"]:
    if not done:
        return "absent"
    return "partial" if done < asked else "full"

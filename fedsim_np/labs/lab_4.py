"""Lab 4's exercises: what epsilon says and what it costs."""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

from fedsim_np import privacy
from fedsim_np.labs.answers import Function, Number, YesNo
from fedsim_np.labs.exercises import Exercise, Mistake
from fedsim_np.labs.languages import Text
from fedsim_np.learning.aggregators import DifferentiallyPrivateFactory

Array = npt.NDArray[np.float64]

NUM_PUBLISHED = 300  # of these one is published, exercise 4.5
MOST_EPSILON, DELTA, POPULATION, COHORT = 3.0, 1e-4, 1000, 50  # exercise 4.6
TRAININGS, ROUNDS, CLIENTS = 5, 20, 300  # exercise 4.8


def invert(kernel: Array, bias: Array) -> Array:
    """Return the one example that an update of softmax regression was made from."""
    return np.asarray(kernel @ bias / (bias @ bias))


def noisy_mean(updates: Array, clip: float, z: float, standard_normal: Array) -> Array:
    """Return the mean of clipped updates, with the given noise in place of the aggregator's."""
    aggregator = DifferentiallyPrivateFactory.gaussian_fixed(0.0, len(updates), clip)
    mean = aggregator.next(aggregator.initialize((updates,)), (updates,), np.ones(len(updates)))[1][0]
    return np.asarray(mean + z * clip * standard_normal / len(updates))


def most_sure(prior: float, epsilon: float) -> float:
    """Return the greatest probability after odds were multiplied by e^epsilon.

    Examples
    --------
    >>> [[round(100 * most_sure(prior, epsilon), 2) for epsilon in (1, 3, 8)] for prior in (0.5, 0.01)]
    [[73.11, 95.26, 99.97], [2.67, 16.87, 96.79]]
    """
    odds = prior / (1 - prior) * np.exp(epsilon)
    return float(odds / (1 + odds))


def epsilon_of(rounds: int, noise: float = 1.0, delta: float = DELTA, sampling: privacy.Sampling = "poisson") -> float:
    """Return epsilon in exercise 4.6."""
    return privacy.epsilon(noise, rounds, delta, population=POPULATION, clients_per_round=COHORT, sampling=sampling)


@functools.cache
def affordable(noise: float = 1.0, delta: float = DELTA) -> int:
    """Return the most rounds whose epsilon is not above `MOST_EPSILON`.

    Examples
    --------
    >>> affordable(), affordable(noise=2.0), round(epsilon_of(1), 1)
    (73, 750, 1.2)
    """
    few, many = 0, 2**14
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (middle, many) if epsilon_of(middle, noise, delta) <= MOST_EPSILON else (few, middle)
    return few


def noise_ratio(cohort: int, other: int) -> float:
    """Return the noise of a mean of `other` clients over that of `cohort` clients, with equal z and clip."""
    nothing = (np.zeros((1, 100), np.float64),)
    noises = []
    for clients in (cohort, other):
        aggregator = DifferentiallyPrivateFactory.gaussian_fixed(1.0, clients, clip=1.0)
        noises.append(np.std(aggregator.next(aggregator.initialize(nothing), nothing, np.ones(1))[1][0]))
    return float(noises[1] / noises[0])


@functools.cache
def epsilon_together(trainings: int, delta: float = 0.1 / CLIENTS) -> float:
    """Return the epsilon of so many trainings, each with the noise for epsilon 2."""
    share = CLIENTS // 10
    noise = privacy.noise_multiplier(2.0, ROUNDS, 0.1 / CLIENTS, population=CLIENTS, clients_per_round=share)
    return privacy.epsilon(noise, trainings * ROUNDS, delta, population=CLIENTS, clients_per_round=share)


def _norms(updates: Array) -> Array:
    return np.asarray(np.linalg.norm(updates, axis=1, keepdims=True))


def _clipped(updates: Array, clip: float) -> Array:
    return np.asarray(updates * np.minimum(1, clip / _norms(updates)))


def _update(pixels: list[float], probabilities: Array, label: int, rate: float) -> tuple[Array, Array]:
    """Return what one step on one image changes: kernel and bias of softmax regression."""
    bias = rate * (probabilities - np.eye(10)[label])
    return np.outer(pixels, bias), bias


_UPDATES = (
    _update([0.9, 0.5, 0.1, 0.6], np.full(10, 0.1), 5, 0.1),
    _update([0.8, 0.2, 1.0, 0.3], np.arange(1, 11) / 55, 0, 0.5),
)


def _is_scaled(found: tuple[Array, ...]) -> bool:
    """Return whether all that was found are the pixels, but for a factor."""
    for update, got in zip(_UPDATES, found, strict=True):
        pixels = invert(*update)
        if got.shape != pixels.shape or not got.all() or not np.allclose(got / got[0], pixels / pixels[0]):
            return False
    return True


_MEANS = (
    (np.array([[3.0, 4.0], [0.3, 0.4], [-1.0, 2.0]]), 2.0, 0.5, np.array([0.7, -1.2])),
    (np.array([[0.1, -0.2, 0.2], [6.0, 0.0, 8.0]]), 0.5, 1.5, np.array([-0.4, 1.1, 0.3])),
)

EXERCISES = {
    "4.1": Exercise(
        Function("invert(kernel, bias)", _UPDATES),
        lambda: invert,
        Text(
            "No learning rate, no label, no guessing: the bias says by what each column has been multiplied. And the "
            "sign of the bias says the label as well: only the right digit's number is negative. An update is data.",
            "Sin tasa de aprendizaje, sin etiqueta y sin adivinar nada: el sesgo dice por cuánto se ha multiplicado "
            "cada columna. Y el signo del sesgo delata además la etiqueta, porque solo el número del dígito correcto "
            "es negativo. Una actualización son datos.",
        ),
        (
            Mistake(
                Text(
                    "The columns add up to nothing: the probabilities add up to 1, and so does what is subtracted. "
                    "Take a single column.",
                    "Las columnas suman cero: las probabilidades suman 1, y lo que se les resta también. Tome una sola "
                    "columna.",
                ),
                lambda: lambda kernel, bias: kernel.sum(axis=1),
            ),
            Mistake(
                Text(
                    "This multiplies once more by what should be taken out: the number of the bias stands in the "
                    "column twice now.",
                    "Así se multiplica otra vez por lo que había que quitar: ahora el número del sesgo está dos veces "
                    "en la columna.",
                ),
                lambda: lambda kernel, bias: kernel[:, 0] * bias[0],
            ),
            Mistake(
                Text(
                    "The number of the bias belongs to another column than that of the kernel.",
                    "El número del sesgo y la columna de la matriz no se corresponden: son de dígitos distintos.",
                ),
                lambda: lambda kernel, bias: kernel[:, 0] / bias[1],
            ),
            Mistake(
                Text(
                    "Upside down: kernel = image times bias. What is to be divided by what?",
                    "Está al revés: la matriz es la imagen por el sesgo. ¿Qué hay que dividir entre qué?",
                ),
                lambda: lambda kernel, bias: bias[0] / kernel[:, 0],
            ),
            Mistake(
                Text(
                    "That has the image's shape, but not its scale: a column is the image *times* a number. Where does "
                    "this number stand?",
                    "Eso tiene la forma de la imagen, pero no su escala: una columna es la imagen *por* un número. "
                    "¿Dónde está ese número?",
                ),
                when=_is_scaled,
            ),
        ),
        Text(
            "From the update of an image whose pixels are {right} it gets {got}. Take one column of the kernel, "
            "`kernel[:, c]`, and ask by which number the image has been multiplied in it.",
            "De la actualización de una imagen con los píxeles {right} obtiene {got}. Tome una columna de la matriz, "
            "`kernel[:, c]`, y pregúntese por qué número se ha multiplicado en ella la imagen.",
        ),
    ),
    "4.2": Exercise(
        YesNo(),
        lambda: False,
        Text(
            "Secure aggregation keeps its word: no single update is seen. But a sum of which all other parts are known "
            "is Ana's update, and exercise 4.1 does the rest. The next cell shows it.",
            "La agregación segura cumple su palabra: nadie ve una actualización suelta. Pero si se conocen todos los "
            "demás sumandos, la suma es la actualización de Ana, y el ejercicio 4.1 hace el resto. La celda siguiente "
            "lo muestra.",
        ),
        (
            Mistake(
                Text(
                    "Ana's upload is noise to the server, that is true. But what does it have besides? Write down the "
                    "sum, and underline what it knows.",
                    "Es cierto que, para el servidor, lo que envía Ana es ruido. Pero ¿qué más tiene? Escriba la suma "
                    "y subraye lo que conoce.",
                ),
                lambda: True,
            ),
        ),
        Text("Answer yes or no.", "Responda sí o no."),
    ),
    "4.3": Exercise(
        Function("noisy_mean(updates, clip, z, standard_normal)", _MEANS),
        lambda: noisy_mean,
        Text(
            "That is the whole *Gaussian mechanism*. The clip sees to it that one client moves the sum by C at most, "
            "and the noise is measured by the clip: so nothing has to be known of the data to say what it promises.",
            "Ese es todo el *mecanismo gaussiano*. El recorte garantiza que un cliente mueve la suma a lo sumo en C, y "
            "el ruido se mide en unidades del recorte: por eso, para decir qué garantiza, no hace falta saber nada de "
            "los datos.",
        ),
        (
            Mistake(
                Text(
                    "This scales every update to the norm C, the small ones up as well. Clipping only shortens: the "
                    "factor is never above 1.",
                    "Esto lleva todas las actualizaciones a la norma C, también las pequeñas, que crecen. Recortar "
                    "solo acorta: el factor nunca pasa de 1.",
                ),
                lambda: lambda u, clip, z, noise: ((u * clip / _norms(u)).sum(axis=0) + z * clip * noise) / len(u),
            ),
            Mistake(
                Text(
                    "Each *number* is clipped here. It is the norm of the whole row that must not exceed C: else a "
                    "client with many numbers moves the sum far.",
                    "Aquí se recorta cada *número*. Lo que no debe pasar de C es la norma de la fila entera; si no, un "
                    "cliente con muchos números mueve mucho la suma.",
                ),
                lambda: lambda u, clip, z, noise: (np.clip(u, -clip, clip).sum(axis=0) + z * clip * noise) / len(u),
            ),
            Mistake(
                Text(
                    "The noise is added after dividing, and so it is as many times too large as there are clients. It "
                    "belongs to the sum.",
                    "El ruido se ha sumado después de dividir, y resulta tantas veces mayor como clientes hay. Va en "
                    "la suma.",
                ),
                lambda: lambda u, clip, z, noise: _clipped(u, clip).mean(axis=0) + z * clip * noise,
            ),
            Mistake(
                Text(
                    "The noise's standard deviation is z here, and should be z times C: it must grow with what one "
                    "client can do.",
                    "Aquí la desviación típica del ruido es z, y debe ser z por C: tiene que crecer con lo que puede "
                    "hacer un cliente.",
                ),
                lambda: lambda u, clip, z, noise: (_clipped(u, clip).sum(axis=0) + z * noise) / len(u),
            ),
            Mistake(
                Text(
                    "There is no noise in it yet: this is the mean of the clipped updates.",
                    "Todavía no hay ruido: esto es la media de las actualizaciones recortadas.",
                ),
                lambda: lambda u, clip, z, noise: _clipped(u, clip).mean(axis=0),
            ),
            Mistake(
                Text(
                    "Nothing is clipped: one client could move the sum as far as it likes, and no noise would be "
                    "enough.",
                    "No se ha recortado nada: un solo cliente podría mover la suma cuanto quisiera, y ningún ruido "
                    "bastaría.",
                ),
                lambda: lambda u, clip, z, noise: (u.sum(axis=0) + z * clip * noise) / len(u),
            ),
            Mistake(
                Text(
                    "That is the sum. Divide it, noise and all, by the number of clients.",
                    "Eso es la suma. Divídala, con ruido y todo, entre el número de clientes.",
                ),
                lambda: lambda u, clip, z, noise: _clipped(u, clip).sum(axis=0) + z * clip * noise,
            ),
            Mistake(
                Text(
                    "Here the *mean* is clipped. By then one client has already moved it as far as it likes; clip each "
                    "row.",
                    "Aquí se recorta la *media*. Para entonces un cliente ya la ha movido cuanto quería; recorte cada "
                    "fila.",
                ),
                lambda: (
                    lambda u, clip, z, noise: (
                        _clipped(u.mean(axis=0, keepdims=True), clip)[0] + z * clip * noise / len(u)
                    )
                ),
            ),
        ),
        Text(
            "{call} gives {got}, and {right} was looked for. Four steps: the norm of each row; rows that are too long "
            "times C over their norm; the sum, plus z times C times the noise; over the number of rows.",
            "{call} da {got}, y se buscaba {right}. Son cuatro pasos: la norma de cada fila; las filas demasiado "
            "largas, por C entre su norma; la suma, más z por C por el ruido; y todo entre el número de filas.",
        ),
    ),
    "4.4": Exercise(
        Function("most_sure(prior, epsilon)", ((0.5, 1.0), (0.01, 2.0), (0.9, 0.5))),
        lambda: most_sure,
        Text(
            "An even guess becomes 73 % at most with epsilon 1, 95 % with epsilon 3, and 99.97 % with epsilon 8. A "
            "suspicion of 1 % becomes 2.7 %, 17 % and 97 %. So small epsilons say much, and large ones next to "
            "nothing.",
            "Quien estaba al 50 % llega como mucho al 73 % con épsilon 1, al 95 % con épsilon 3 y al 99.97 % con "
            "épsilon 8. Quien tenía una sospecha del 1 %, al 2.7 %, al 17 % y al 97 %. Así que un épsilon pequeño dice "
            "mucho, y uno grande, casi nada.",
        ),
        (
            Mistake(
                Text(
                    "That is right for an even guess only: what the attacker believed before has to come in.",
                    "Eso solo vale si antes se dudaba a partes iguales: tiene que intervenir lo que el atacante creía.",
                ),
                lambda: lambda prior, epsilon: np.exp(epsilon) / (1 + np.exp(epsilon)),
            ),
            Mistake(
                Text(
                    "This multiplies the *probability*, and gets more than 1. Odds are what is multiplied.",
                    "Aquí se multiplica la *probabilidad*, y sale más de 1. Lo que se multiplica es la razón entre el "
                    "sí y el no.",
                ),
                lambda: lambda prior, epsilon: prior * np.exp(epsilon),
            ),
            Mistake(
                Text(
                    "True, but more than need be: it multiplies the probability and stops at 1. With odds the limit is "
                    "lower.",
                    "Es cierto, pero se queda largo: multiplica la probabilidad y la corta en 1. Con la razón entre el "
                    "sí y el no, el límite es más bajo.",
                ),
                lambda: lambda prior, epsilon: min(1.0, prior * np.exp(epsilon)),
            ),
            Mistake(
                Text(
                    "These are the odds afterwards. Which probability is that? (Odds of 3 to 1 are 3/4.)",
                    "Esa es la razón entre el sí y el no después de mirar. ¿Qué probabilidad es? (Tres a uno son 3/4.)",
                ),
                lambda: lambda prior, epsilon: prior / (1 - prior) * np.exp(epsilon),
            ),
            Mistake(
                Text(
                    "The factor is e to the power of epsilon, not epsilon itself.",
                    "El factor es e elevado a épsilon, no épsilon.",
                ),
                lambda: lambda prior, epsilon: prior * epsilon / (1 - prior + prior * epsilon),
            ),
            Mistake(
                Text(
                    "That is the *least* sure that it can be: the odds were divided by the factor.",
                    "Eso es lo *menos* seguro que puede quedar: se ha dividido por el factor en vez de multiplicar.",
                ),
                lambda: lambda prior, epsilon: most_sure(prior, -epsilon),
            ),
        ),
        Text(
            "{call} gives {got}, and {right} was looked for. The odds are prior / (1 - prior); multiply them by "
            "e^epsilon; odds of r to 1 are the probability r / (1 + r).",
            "{call} da {got}, y se buscaba {right}. La razón entre el sí y el no es prior / (1 - prior); multiplíquela "
            "por e^epsilon; una razón de r a 1 es la probabilidad r / (1 + r).",
        ),
    ),
    "4.5": Exercise(
        Number(),
        lambda: 1 / NUM_PUBLISHED,
        Text(
            "A procedure that lays somebody bare every time it is run has epsilon 0 and a delta of 1/N. That is why a "
            "delta of 1/N is too large, whatever epsilon is. This lab takes a tenth of it, which is still modest.",
            "Un procedimiento que deja a alguien al descubierto cada vez que se ejecuta tiene épsilon 0 y un delta de "
            "1/N. Por eso un delta de 1/N es demasiado grande, sea cual sea épsilon. En esta práctica se toma la "
            "décima parte, y aun así es poco exigente.",
        ),
        (
            Mistake(
                Text(
                    "With delta 0 nothing may be seen that could not be seen without Ana. But her data are published "
                    "now and then: how often?",
                    "Con delta 0 no podría verse nada que no pudiera verse también sin Ana. Pero sus datos se publican "
                    "de vez en cuando: ¿cada cuánto?",
                ),
                lambda: 0,
            ),
            Mistake(
                Text(
                    "*Somebody* is laid bare with certainty, and Ana is nearly always left in peace. The promise is "
                    "made to each client: how often does it hit *this* one?",
                    "*Alguien* queda al descubierto con seguridad, y a Ana casi siempre la dejan en paz. Pero la "
                    "garantía se le da a cada cliente: ¿cada cuánto le toca a *este*?",
                ),
                lambda: 1,
            ),
            Mistake(
                Text(
                    "Delta is a probability, from 0 to 1.",
                    "Delta es una probabilidad, de 0 a 1.",
                ),
                when=lambda got: not 0 <= got <= 1,
            ),
        ),
        Text(
            "With epsilon 0 the inequality says: what is seen with Ana is at most delta more likely than without. What "
            "is seen only with Ana, and how likely is it?",
            "Con épsilon 0, la desigualdad dice que lo que se ve con Ana es como mucho delta más probable que sin "
            "ella. ¿Qué se ve solo con Ana, y con qué probabilidad?",
        ),
    ),
    "4.6": Exercise(
        Number(0.0, 0.0, units=("rounds?", "rondas?")),
        affordable,
        Text(
            "{got} rounds, though a single one already costs 1.2: epsilons add up more slowly than numbers do, because "
            "not every round is unlucky. With twice the noise 750 rounds are affordable.",
            "{got} rondas, aunque una sola ya cuesta 1.2: los épsilon se acumulan más despacio que una suma, porque no "
            "en todas las rondas hay mala suerte. Con el doble de ruido alcanza para 750 rondas.",
        ),
        (
            Mistake(
                Text(
                    "That is the first number of rounds that is too much.",
                    "Ese es el primer número de rondas que ya es excesivo.",
                ),
                lambda: affordable() + 1,
            ),
            Mistake(
                Text(
                    "This adds up the epsilon of a single round. It holds, but far more is affordable: ask for the "
                    "epsilon of all rounds together, `fed.privacy.epsilon(1.0, rounds, ...)`.",
                    "Eso suma el épsilon de una sola ronda. Es válido, pero alcanza para muchas más: pida el épsilon "
                    "de todas las rondas juntas, `fed.privacy.epsilon(1.0, rounds, ...)`.",
                ),
                lambda: MOST_EPSILON // epsilon_of(1),
            ),
            Mistake(
                Text(
                    "Without sampling not even one round is affordable. Say how many there are to draw from: "
                    "`population=1000, clients_per_round=50`.",
                    "Sin muestreo no alcanza ni para una ronda. Diga entre cuántos se elige: `population=1000, "
                    "clients_per_round=50`.",
                ),
                lambda: 0,
            ),
            Mistake(
                Text(
                    "With a delta of 1/1000 that would be so. In exercise 4.5 it was seen why that is too large.",
                    "Eso saldría con un delta de 1/1000. En el ejercicio 4.5 se vio por qué es demasiado.",
                ),
                lambda: affordable(delta=1 / POPULATION),
            ),
        ),
        Text(
            "Look at `fed.privacy.epsilon(1.0, {got}, 1e-4, population=1000, clients_per_round=50)`, and at one round "
            "more: the one must be at most 3, the other above.",
            "Mire `fed.privacy.epsilon(1.0, {got}, 1e-4, population=1000, clients_per_round=50)` y lo mismo con una "
            "ronda más: lo primero debe ser como mucho 3, y lo segundo, mayor.",
        ),
    ),
    "4.7": Exercise(
        Number(),
        lambda: noise_ratio(10, 100),
        Text(
            "One noise, made for one client's clip, is shared by all. That is why privacy is cheap in a crowd, and why "
            "federated learning with noise is done with thousands of clients in a round.",
            "Un solo ruido, a la medida del recorte de un cliente, se reparte entre todos. Por eso la privacidad sale "
            "barata entre muchos, y por eso el aprendizaje federado con ruido se hace con miles de clientes por ronda.",
        ),
        (
            Mistake(
                Text(
                    "It would be so if each client added noise of its own. Here it is added once, to the sum.",
                    "Así sería si cada cliente añadiera su propio ruido. Aquí se añade una sola vez, a la suma.",
                ),
                lambda: 10**-0.5,
            ),
            Mistake(
                Text(
                    "That holds for the *sum*: its noise is z C with any number of clients. And the mean?",
                    "Eso vale para la *suma*, cuyo ruido es z C con cualquier número de clientes. ¿Y la media?",
                ),
                lambda: 1,
            ),
            Mistake(
                Text(
                    "The noise of the mean grows with fewer clients, not with more. Which way round is the factor?",
                    "El ruido de la media crece cuando hay menos clientes, no más. ¿Hacia qué lado va el factor?",
                ),
                lambda: 10,
            ),
            Mistake(
                Text(
                    "That is the factor of its variance. The standard deviation was asked for.",
                    "Ese es el factor de la varianza. Se pide la desviación típica.",
                ),
                lambda: 0.01,
            ),
        ),
        Text(
            "Write down the last line of your `noisy_mean`: what is added to the sum, and what is it divided by?",
            "Mire la última línea de su `noisy_mean`: ¿qué se le suma a la suma, y entre qué se divide?",
        ),
    ),
    "4.8": Exercise(
        Number(),
        lambda: epsilon_together(TRAININGS),
        Text(
            "The four models that were thrown away have been seen all the same, and the choice among them tells of the "
            "data. Who searches has to count every try, or to search on other data. (There are ways to search for "
            "less, in which the number of tries is drawn at random; they are not free either.)",
            "Los cuatro modelos descartados también se vieron, y la elección entre ellos dice algo de los datos. Quien "
            "busca tiene que contar todos los intentos, o buscar con otros datos. (Hay maneras de buscar por menos, en "
            "las que el número de intentos se sortea; tampoco son gratis.)",
        ),
        (
            Mistake(
                Text(
                    "That is the promise of the one that was published. But which one that is was decided by all five.",
                    "Esa es la garantía del que se publicó. Pero cuál se publica se decidió mirando los cinco.",
                ),
                lambda: 2,
            ),
            Mistake(
                Text(
                    "Adding up epsilons holds, but is too dear (and the deltas would add up, too). The accountant sees "
                    "five trainings of 20 rounds: how many rounds are these?",
                    "Sumar los épsilon es válido, pero sale caro (y además se sumarían los delta). El contador ve "
                    "cinco entrenamientos de 20 rondas: ¿cuántas rondas son?",
                ),
                lambda: 10,
            ),
            Mistake(
                Text(
                    "Epsilon grows with the root of the rounds only where there are very many. Ask the accountant.",
                    "Épsilon solo crece como la raíz del número de rondas cuando hay muchísimas. Pregunte al contador.",
                ),
                lambda: 2 * TRAININGS**0.5,
            ),
            Mistake(
                Text(
                    "It is the epsilon of a larger delta: it stays `0.1 / 300`.",
                    "Ese es el épsilon de un delta mayor: sigue siendo `0.1 / 300`.",
                ),
                lambda: epsilon_together(TRAININGS, TRAININGS * 0.1 / CLIENTS),
            ),
        ),
        Text(
            "To the accountant a training is a number of rounds, and so are five: `fed.privacy.epsilon(noise_for(2, "
            "300), rounds, 0.1 / 300, population=300, clients_per_round=30)`.",
            "Para el contador, un entrenamiento es un número de rondas, y cinco también: "
            "`fed.privacy.epsilon(noise_for(2, 300), rounds, 0.1 / 300, population=300, clients_per_round=30)`.",
        ),
    ),
}

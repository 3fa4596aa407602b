"""Lab 6's exercises: bytes and time."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fedsim_np.datasets import Dataset, load_sample, partition
from fedsim_np.labs.answers import Choice, Function, Number
from fedsim_np.labs.exercises import Exercise, Mistake
from fedsim_np.labs.languages import Text
from fedsim_np.learning import build_fed_buff, build_weighted_fed_avg, compression, num_to_begin, optimizers
from fedsim_np.learning.compression import Compressor
from fedsim_np.learning.models import LinearRegression, SoftmaxRegression
from fedsim_np.program import Network

Vector = npt.NDArray[np.float64]

NUM_CLIENTS, NUM_PARAMETERS = 10, 784 * 10 + 10
SLOW_SHARE = 0.1
CONCURRENCY, BUFFER_SIZE = 20, 5
MOST_KILOBYTES = 28
_TARGET, _SEED = 0.75, 1
_SGD = optimizers.build_sgdm(0.5)


@functools.cache
def bytes_of_a_round() -> int:
    """Return the bytes that travel, both ways, in a round of the tutorial's model with ten clients."""
    batch = {"x": np.zeros((1, 784), np.float32), "y": np.zeros((1, 1), np.int32)}
    process = build_weighted_fed_avg(SoftmaxRegression, _SGD)
    sent = process.next(process.initialize(), [[batch]] * NUM_CLIENTS).communication
    return int(sent["bytes_up"] + sent["bytes_down"])


def variance(x: Vector, step: float) -> Vector:
    """Return the variance of numbers that are rounded at random to a multiple of `step`."""
    share = np.asarray(x) / step % 1
    return np.asarray(step**2 * share * (1 - share))


def error_of_random_k() -> float:
    """Return the squared error of random-k with 5 %, as a multiple of the squared length: of ones, each draw's."""
    ones = np.ones((1, 100), np.float32)
    random_k = compression.random_k(0.05, error_feedback=False)
    decoded, _ = random_k.compress(ones, [np.random.default_rng(0)])
    return float(np.mean((decoded - ones) ** 2))


@functools.cache
def first_round_with_the_second_number() -> int:
    """Return the round in which what Ana and Leo agree on is sent for the first time, with feedback."""
    x = np.float32(np.sqrt(2)) * np.array([[1, 0], [-1, 0], [0, 1], [0, -1]], np.float32)
    cohort = [
        Dataset.from_arrays({"x": x, "y": x @ np.array([[first], [1]], np.float32)}).batch(4).with_client_id(name)
        for name, first in (("ana", 3.5), ("leo", -3.5))
    ]
    process = build_weighted_fed_avg(LinearRegression(2), optimizers.build_sgdm(0.1), compressor=compression.top_k(0.5))
    state, round_num = process.initialize(), 0
    while process.get_model_weights(state).trainable[0][1].item() == 0:
        state, round_num = process.next(state, cohort).state, round_num + 1
    return round_num


@functools.cache
def _digits() -> tuple[dict[str, Any], list[Dataset]]:
    """Return unseen digits, and the datasets of fifty clients."""

    def small(writers: Any, every: int) -> dict[str, Any]:
        pooled = partition.pool(writers)
        pixels = 1 - pooled["pixels"][::every].reshape(-1, 7, 4, 7, 4).mean(axis=(2, 4)).reshape(-1, 49)
        return {"x": pixels, "y": pooled["label"][::every, np.newaxis]}

    train, test = load_sample()
    dealt = partition.dirichlet(small(train, 3), num_clients=50, alpha=10)
    return small(test, 1), [dealt.create_dataset_for_client(client_id) for client_id in dealt.client_ids]


@functools.cache
def cost(compressor: Compressor | None, local_steps: int, *, is_buffered: bool = False) -> tuple[float, float]:
    """Return the kB that clients send and the simulated seconds until three quarters of unseen digits are right."""
    unseen, clients = _digits()
    model, clock = SoftmaxRegression(49, 10, "stable"), Network(8_000, 64_000, 2_000, spread=1.0, seed=_SEED)
    process = (
        build_fed_buff(model, _SGD, buffer_size=10, concurrency=20, clock=clock, compressor=compressor)
        if is_buffered
        else build_weighted_fed_avg(model, _SGD, compressor=compressor)
    )
    generator, state = np.random.default_rng(_SEED), process.initialize()
    kilobytes, seconds, accuracy = 0.0, 0.0, 0.0
    while accuracy < _TARGET:
        chosen = [clients[i] for i in generator.choice(50, num_to_begin(state) if is_buffered else 10, replace=False)]
        output = process.next(state, [one.repeat(local_steps).batch(one.num_examples) for one in chosen])
        state = output.state
        kilobytes += output.communication["bytes_up"] / 1000
        seconds += (output.metrics["network"] if is_buffered else clock.round(output.clients))["seconds"]
        matrix, intercepts = process.get_model_weights(state).trainable
        found = (unseen["x"] @ matrix + intercepts).argmax(axis=1)
        accuracy = float(np.mean(found == unseen["y"][:, 0]))
    return kilobytes, seconds


def _thriftiest() -> str:
    choices: Mapping[str, Compressor | None] = {
        "A": None,
        "B": compression.quantize(8),
        "C": compression.quantize(3),
        "D": compression.sign(),
    }
    return min(choices, key=lambda letter: cost(choices[letter], 5)[0])


def _quickest_within_the_budget() -> str:
    three_bits = compression.quantize(3)
    costs = {
        "A": cost(three_bits, 5),
        "B": cost(three_bits, 20),
        "C": cost(three_bits, 50),
        "D": cost(three_bits, 20, is_buffered=True),
    }
    affordable = [letter for letter, (kilobytes, _) in costs.items() if kilobytes <= MOST_KILOBYTES]
    return min(affordable, key=lambda letter: costs[letter][1])


@functools.cache
def staleness() -> float:
    """Return how many steps late an update is on average, measured once the buffer is running."""
    clock = Network(8_000, 64_000, 2_000, spread=1.0, seed=_SEED)
    batch = {"x": np.ones((1, 1), np.float32), "y": np.ones((1, 1), np.float32)}
    clients = [Dataset.from_batches([batch], str(i)) for i in range(50)]
    model = LinearRegression(1)
    process = build_fed_buff(model, _SGD, buffer_size=BUFFER_SIZE, concurrency=CONCURRENCY, clock=clock)
    generator, state, late = np.random.default_rng(_SEED), process.initialize(), []
    for _ in range(80):
        chosen = generator.choice(50, num_to_begin(state), replace=False)
        output = process.next(state, [clients[i] for i in chosen])
        state = output.state
        late.append(float(output.metrics["aggregator"]["mean_staleness"]))
    return float(np.mean(late[20:]))


def _share(x: Vector, step: float) -> Vector:
    return np.asarray(np.asarray(x) / step % 1)


EXERCISES = {
    "6.1": Exercise(
        Number(0.0, 0.0, units=("bytes?",)),
        bytes_of_a_round,
        Text(
            "More than half a megabyte, for a model as small as a model can be, in a single round. A network of ten "
            "million parameters takes 800 MB a round.",
            "Más de medio megabyte en una sola ronda, y con un modelo de lo más pequeño. Una red de diez millones de "
            "parámetros exige 800 MB por ronda.",
        ),
        (
            Mistake(
                Text(
                    "That is one direction. The model goes down to every client, and an update comes up from each.",
                    "Eso es un solo sentido. El modelo baja a cada cliente y de cada uno sube una actualización.",
                ),
                lambda: bytes_of_a_round() // 2,
            ),
            Mistake(
                Text(
                    "These are numbers, not bytes: how many bytes has a `float32`?",
                    "Eso son números, no bytes: ¿cuántos bytes ocupa un `float32`?",
                ),
                when=lambda got: got in (NUM_PARAMETERS, NUM_PARAMETERS * 10, NUM_PARAMETERS * 20),
            ),
            Mistake(
                Text(
                    "That is one client. Ten take part in a round.",
                    "Eso es un solo cliente, y en una ronda participan diez.",
                ),
                when=lambda got: got in (NUM_PARAMETERS * 4, NUM_PARAMETERS * 8),
            ),
            Mistake(
                Text(
                    "Nearly: beside the weights each digit has an intercept.",
                    "Casi: además de los pesos, cada dígito tiene un término independiente.",
                ),
                lambda: 784 * 10 * 4 * 20,
            ),
        ),
        Text(
            "Count the model's numbers first (28 x 28 weights for each of ten digits, and an intercept each). Then 4 "
            "bytes a number, ten clients, two directions.",
            "Cuente primero los números del modelo (28 x 28 pesos para cada uno de los diez dígitos, y un término "
            "independiente por dígito). Después, 4 bytes por número, diez clientes y dos sentidos.",
        ),
    ),
    "6.2": Exercise(
        Function(
            "variance(x, step)", ((0.3, 1.0), (np.array([0.5, 1.25, -0.7, 0.1]), 0.5), (np.array([2.0, 0.9]), 2.0))
        ),
        lambda: variance,
        Text(
            "Zero on a level, and largest half-way between two, where it is a quarter of the squared step. One bit "
            "less doubles the step and makes the variance about four times as large (less where numbers are far "
            "smaller than a step); averaging over n clients divides it by n.",
            "Es cero en los niveles y máxima a medio camino entre dos, donde vale un cuarto del cuadrado del paso. "
            "Con un bit menos, el paso se duplica y la varianza se multiplica por unos cuatro (por menos si los "
            "números son mucho menores que el paso); al promediar n clientes, se divide por n.",
        ),
        (
            Mistake(
                Text(
                    "That is the variance in units of the step: right if `step` is 1. The two levels are `step` apart, "
                    "and a variance grows with the square.",
                    "Esa es la varianza en unidades del paso: vale si `step` es 1. Los dos niveles distan `step`, y la "
                    "varianza crece con el cuadrado.",
                ),
                lambda: lambda x, step: _share(x, step) * (1 - _share(x, step)),
            ),
            Mistake(
                Text(
                    "The step comes in squared: a variance is a mean of squares.",
                    "El paso interviene al cuadrado: una varianza es una media de cuadrados.",
                ),
                lambda: lambda x, step: step * _share(x, step) * (1 - _share(x, step)),
            ),
            Mistake(
                Text(
                    "That is the variance if `x` lies anywhere between two levels, all places alike. Here `x` is "
                    "given.",
                    "Esa es la varianza si `x` está en cualquier lugar entre dos niveles, todos igual de probables. "
                    "Aquí `x` se conoce.",
                ),
                lambda: lambda x, step: step**2 / 12 + 0 * x,
            ),
            Mistake(
                Text(
                    "That is the largest that it can be, half-way between two levels. On a level there is nothing to "
                    "round.",
                    "Ese es el máximo, a medio camino entre dos niveles. En un nivel no hay nada que redondear.",
                ),
                lambda: lambda x, step: step**2 / 4 + 0 * x,
            ),
            Mistake(
                Text(
                    "That is the squared error of rounding down, always. It may be rounded up too: how likely is that?",
                    "Ese es el cuadrado del error si siempre se redondea hacia abajo. También puede redondearse hacia "
                    "arriba: ¿con qué probabilidad?",
                ),
                lambda: lambda x, step: step**2 * _share(x, step) ** 2,
            ),
            Mistake(
                Text(
                    "That is the squared error of rounding to the nearest. At random it is larger: that is the price "
                    "of being right on average.",
                    "Ese es el cuadrado del error al redondear al nivel más cercano. Al azar es mayor: es lo que "
                    "cuesta acertar en promedio.",
                ),
                lambda: lambda x, step: (x - step * np.round(np.asarray(x) / step)) ** 2,
            ),
            Mistake(
                Text(
                    "That is the standard deviation, the variance's root.",
                    "Esa es la desviación típica, la raíz de la varianza.",
                ),
                lambda: lambda x, step: np.sqrt(variance(x, step)),
            ),
            Mistake(
                Text(
                    "`x % 1` is the share of the way only if `step` is 1: first say where `x` lies in steps.",
                    "`x % 1` es la fracción recorrida solo si `step` es 1: exprese antes `x` en pasos.",
                ),
                lambda: lambda x, step: step**2 * (np.asarray(x) % 1) * (1 - np.asarray(x) % 1),
            ),
        ),
        Text(
            "{call} gives {got}, and {right} was looked for. With p the share of the way from the level below to the "
            "one above, the upper one comes with probability p. What is the variance of a coin with the sides 0 and "
            "1, and what if they are `step` apart?",
            "{call} da {got}, y se buscaba {right}. Si p es la fracción del camino desde el nivel de abajo hasta el de "
            "arriba, sale el de arriba con probabilidad p. ¿Cuál es la varianza de una moneda con caras 0 y 1? ¿Y si "
            "las caras distan `step`?",
        ),
    ),
    "6.3": Exercise(
        Number(units=("times", "veces", r"v(?:\^|\*\*)?[2²]")),
        error_of_random_k,
        Text(
            "n / K - 1. Sending nothing would be nineteen times less wrong! But sending nothing is wrong to one side, "
            "for ever; this is right on average, and the mean of n clients is n times better.",
            "n / K - 1. ¡No enviar nada tendría un error diecinueve veces menor! Pero no enviar nada yerra siempre "
            "hacia el mismo lado; esto acierta en promedio, y la media de n clientes es n veces mejor.",
        ),
        (
            Mistake(
                Text(
                    "That is the mean of the *square* that is read, 0.05 times 20 squared. The error is the distance "
                    "from `v`.",
                    "Esa es la media del *cuadrado* de lo que se lee, 0.05 por 20 al cuadrado. El error es la "
                    "distancia hasta `v`.",
                ),
                lambda: 20,
            ),
            Mistake(
                Text(
                    "That is the error without the factor 20: small, but always to the same side. What does the factor "
                    "do to a number that is sent?",
                    "Ese es el error sin el factor 20: pequeño, pero siempre hacia el mismo lado. ¿Qué le hace el "
                    "factor a un número que se envía?",
                ),
                lambda: 0.95,
            ),
            Mistake(
                Text(
                    "That counts only the numbers that are sent, with a squared error of 19 x 19. The others are wrong "
                    "too.",
                    "Ahí solo están los números que se envían, con un error de 19 al cuadrado. Los demás también "
                    "tienen error.",
                ),
                lambda: 0.05 * 19**2,
            ),
            Mistake(
                Text(
                    "That is the error of a number that *is* sent. It happens in one case of twenty.",
                    "Ese es el error de un número que *sí* se envía. Ocurre una vez de cada veinte.",
                ),
                lambda: 19**2,
            ),
            Mistake(
                Text(
                    "On average the error is 0, since it is right on average; its square is not.",
                    "En promedio el error es 0, porque acierta en promedio; su cuadrado, no.",
                ),
                lambda: 0,
            ),
        ),
        Text(
            "There are two cases. With probability 0.05 the server reads 20 v, otherwise 0. How far is each from v? "
            "Square both, and average.",
            "Hay dos casos. Con probabilidad 0.05 el servidor lee 20 v; si no, 0. ¿A qué distancia está cada uno de v? "
            "Eleve ambas al cuadrado y promedie.",
        ),
    ),
    "6.4": Exercise(
        Number(0.0, 0.0, units=("rounds?", "rondas?")),
        first_round_with_the_second_number,
        Text(
            "And both send 0.4 then, four rounds' worth: it comes late, but it comes, and the server moves by as much "
            "as if it had been sent all the time. What is kept never grows much beyond the largest number, so that "
            "what is missing at any time is little.",
            "Y entonces los dos envían 0.4, lo de cuatro rondas: llega tarde, pero llega, y el servidor avanza lo "
            "mismo que si se hubiera ido enviando. Lo guardado nunca supera en mucho al número mayor, de modo que en "
            "cada momento falta poco.",
        ),
        (
            Mistake(
                Text(
                    "After three rounds 0.3 has gathered. Is it the larger of the two by then?",
                    "Tras tres rondas se ha reunido 0.3. ¿Es ya el mayor de los dos?",
                ),
                lambda: 3,
            ),
            Mistake(
                Text(
                    "In the first round 0.1 stands against 0.35. Only one is sent.",
                    "En la primera ronda es 0.1 contra 0.35, y solo se envía uno.",
                ),
                lambda: 1,
            ),
            Mistake(
                Text(
                    "0.1 has joined what was kept, 0.1, and that is still less than 0.35. Go on.",
                    "A lo guardado, 0.1, se le suma otro 0.1, y sigue siendo menos que 0.35. Continúe.",
                ),
                lambda: 2,
            ),
            Mistake(
                Text(
                    "It would be so if the first number were larger, or if it gathered too. It is sent in full, so "
                    "that nothing of it is kept: 0.35 every time. (The first round is round 1.)",
                    "Sería así si el primer número fuera mayor o también se acumulara. Pero se envía entero y no queda "
                    "nada: es 0.35 cada vez. (La primera ronda es la 1.)",
                ),
                when=lambda got: got > first_round_with_the_second_number(),
            ),
        ),
        Text(
            "Write down Ana's two numbers, round by round: what is new, 0.35 and 0.1, and what was kept. Which is "
            "larger?",
            "Escriba los dos números de Ana ronda a ronda: lo nuevo, 0.35 y 0.1, más lo guardado. ¿Cuál es mayor?",
        ),
    ),
    "6.5": Exercise(
        Choice("ABCD"),
        _thriftiest,
        Text(
            "Neither the largest message nor the smallest. Bytes to a target are bytes a round times rounds, and a "
            "message that says too little is paid for in rounds. There are more to try: `top_k(0.02)` needs fewer "
            "bytes still.",
            "Ni el mensaje más grande ni el más pequeño. Los bytes hasta el objetivo son los de una ronda por el "
            "número de rondas, y un mensaje que dice demasiado poco se paga en rondas. Hay más que probar: "
            "`top_k(0.02)` necesita aún menos bytes.",
        ),
        (
            Mistake(
                Text(
                    "Full numbers save no round to speak of: compare their rounds with those of 3 bits, and the bytes.",
                    "Los números completos apenas ahorran rondas: compare las suyas con las de 3 bits, y los bytes.",
                ),
                lambda: "A",
            ),
            Mistake(
                Text(
                    "As good as full numbers, at a quarter of the bytes. But can it do with fewer bits?",
                    "Tan bueno como los números completos, con la cuarta parte de los bytes. Pero ¿no bastan menos "
                    "bits?",
                ),
                lambda: "B",
            ),
            Mistake(
                Text(
                    "It has the fewest bytes a round. How many rounds does it need?",
                    "Es el que menos bytes gasta por ronda. ¿Cuántas rondas necesita?",
                ),
                lambda: "D",
            ),
        ),
        Text("Choose one of the four.", "Elija una de las cuatro."),
    ),
    "6.6": Exercise(
        Number(),
        lambda: 1 - (1 - SLOW_SHARE) ** NUM_CLIENTS,
        Text(
            "Two rounds of three wait for one of the few. A client takes 3.8 seconds on average, a round 13.7, and "
            "with fifty clients in a round nearly all take 20. That is why systems ask more clients than they need "
            "and close the round without the last.",
            "Dos de cada tres rondas esperan a uno de los pocos lentos. Un cliente tarda 3.8 segundos de media; una "
            "ronda, 13.7, y con cincuenta clientes por ronda casi todas tardan 20. Por eso hay sistemas que invitan a "
            "más clientes de los necesarios y cierran la ronda sin los últimos.",
        ),
        (
            Mistake(
                Text(
                    "That is the share of slow *clients*. One of ten is enough to make a round slow.",
                    "Esa es la proporción de *clientes* lentos. Basta uno de diez para que la ronda sea lenta.",
                ),
                lambda: SLOW_SHARE,
            ),
            Mistake(
                Text(
                    "On average there is one slow client in a round, but some rounds have two and some have none.",
                    "En promedio hay un cliente lento por ronda, pero en unas hay dos y en otras ninguno.",
                ),
                lambda: 1.0,
            ),
            Mistake(
                Text(
                    "That is the share of rounds *without* a slow client.",
                    "Esa es la proporción de rondas *sin* ningún cliente lento.",
                ),
                lambda: (1 - SLOW_SHARE) ** NUM_CLIENTS,
            ),
            Mistake(
                Text(
                    "That is the share of rounds with *exactly* one slow client. Two are no quicker.",
                    "Esa es la proporción de rondas con *exactamente* un cliente lento. Con dos no se va más deprisa.",
                ),
                lambda: NUM_CLIENTS * SLOW_SHARE * (1 - SLOW_SHARE) ** (NUM_CLIENTS - 1),
            ),
            Mistake(
                Text(
                    "A share lies between 0 and 1 (or give it as a text, such as '40 %').",
                    "Una proporción está entre 0 y 1 (o escríbala como texto, por ejemplo '40 %').",
                ),
                when=lambda got: not 0 <= got <= 1,
            ),
        ),
        Text(
            "When does a round *not* take 20 seconds? If the first client is quick, and the second, and so on to the "
            "tenth.",
            "¿Cuándo *no* tarda 20 segundos una ronda? Si es rápido el primer cliente, y el segundo, y así hasta el "
            "décimo.",
        ),
    ),
    "6.7": Exercise(
        Number(0.08, units=("steps?", "late", "pasos?", "de", "retraso")),
        staleness,
        Text(
            "(M - 1) / K, 3.8 here, or nearly M / K; whatever the speeds. More clients under way, or a smaller buffer, "
            "and the server steps more often, on staler updates: at four steps late an update counts for 1 / sqrt(5), "
            "less than half.",
            "(M - 1) / K, aquí 3.8, o casi M / K, sean cuales sean las velocidades. Con más clientes en marcha o un "
            "búfer menor, el servidor da pasos más a menudo, pero con actualizaciones más atrasadas: con cuatro pasos "
            "de retraso, una actualización cuenta 1 / sqrt(5), menos de la mitad.",
        ),
        (
            Mistake(
                Text(
                    "It would be so if the server took a step at every arrival. It waits for five.",
                    "Así sería si el servidor diera un paso con cada llegada. Pero espera a que haya cinco.",
                ),
                when=lambda got: got in (CONCURRENCY - 1, CONCURRENCY),
            ),
            Mistake(
                Text(
                    "Nothing would be late if only K were under way, and all began together. Here the others go on.",
                    "No habría retraso si solo hubiera K en marcha y empezaran a la vez. Aquí los demás siguen.",
                ),
                lambda: 0,
            ),
            Mistake(
                Text(
                    "The wrong way round: more clients under way make updates later, a larger buffer makes them less "
                    "so.",
                    "Está al revés: con más clientes en marcha el retraso aumenta, y con un búfer mayor disminuye.",
                ),
                lambda: BUFFER_SIZE / CONCURRENCY,
            ),
            Mistake(
                Text(
                    "These have just arrived. Look at those who are still under way: 15 or more.",
                    "Esos acaban de llegar. Fíjese en los que siguen en marcha: son 15 o más.",
                ),
                lambda: BUFFER_SIZE,
            ),
            Mistake(
                Text(
                    "As if all five places were still empty at the step: but each who arrives is replaced at once, "
                    "except the last. How many are under way then?",
                    "Como si en el momento del paso los cinco puestos siguieran vacíos: cada cliente que llega se "
                    "sustituye enseguida, salvo el último. ¿Cuántos quedan en marcha?",
                ),
                lambda: (CONCURRENCY - BUFFER_SIZE) / BUFFER_SIZE,
            ),
        ),
        Text(
            "At a step of the server everybody who is under way becomes one step later. How many are these? And among "
            "how many arrivals, in each step, is that lateness shared?",
            "Con cada paso del servidor, todos los que están en marcha se retrasan un paso más. ¿Cuántos son? ¿Y entre "
            "cuántas llegadas por paso se reparte ese retraso?",
        ),
    ),
    "6.8": Exercise(
        Choice("ABCD"),
        _quickest_within_the_budget,
        Text(
            "Bytes and seconds are two budgets, and each setting spends them in its own proportion. Few local steps "
            "spend bytes, many spend seconds, and waiting for nobody saves seconds at the cost of bytes. Which is "
            "best depends on who pays for what: ask before you choose.",
            "Los bytes y los segundos son dos presupuestos, y cada opción los gasta en distinta proporción. Con pocos "
            "pasos locales se gastan bytes; con muchos, segundos; y no esperar a nadie ahorra segundos a costa de "
            "bytes. Lo mejor depende de quién paga qué: pregúntelo antes de elegir.",
        ),
        (
            Mistake(
                Text(
                    "Few local steps need many rounds, and every round has its bytes: look whether it stays within 28 "
                    "kB.",
                    "Con pocos pasos locales hacen falta muchas rondas, y cada una cuesta bytes: mire si cabe en 28 "
                    "kB.",
                ),
                lambda: "A",
            ),
            Mistake(
                Text(
                    "It has the fewest bytes, and bytes that are left over are worth nothing here. Look at the "
                    "seconds.",
                    "Es la que menos bytes gasta, pero los bytes que sobran aquí no valen nada. Mire los segundos.",
                ),
                lambda: "C",
            ),
            Mistake(
                Text(
                    "The quickest of the four. And its bytes?",
                    "Es la más rápida de las cuatro. ¿Y sus bytes?",
                ),
                lambda: "D",
            ),
        ),
        Text("Choose one of the four.", "Elija una de las cuatro."),
    ),
}

"""Lab 5's exercises: attackers, robust rules, and their price."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fedsim_np.datasets import load_sample, partition
from fedsim_np.labs.answers import Choice, Function, Number, Numbers
from fedsim_np.labs.exercises import Exercise, Mistake
from fedsim_np.labs.languages import Text
from fedsim_np.learning import aggregators, attacks, build_weighted_fed_avg, optimizers
from fedsim_np.learning.models import SoftmaxRegression, evaluate

MEAN, MEDIAN = aggregators.MeanFactory(), aggregators.MedianFactory()
HONEST = (0.7, 0.8, 0.9, 0.9, 1.0, 1.1, 1.1, 1.2, 1.3)
SIX = (-5.0, -3.0, -1.0, 3.0, 5.0, 7.0)
NINE_RULES = (MEAN, aggregators.TrimmedMeanFactory(0.25), MEDIAN)


def combine(rule: aggregators.Aggregator, numbers: Sequence[float]) -> float:
    """Return what a rule makes of updates that are one number each."""
    updates = (np.array(numbers, np.float32),)
    state = rule.initialize((np.zeros((), np.float32),))
    return float(rule.next(state, updates, np.ones(len(numbers)))[1][0])


def replacement(target: float = -1.0) -> float:
    """Return what a tenth client has to send, so that the mean is the target."""
    with_zero, with_one = combine(MEAN, [*HONEST, 0.0]), combine(MEAN, [*HONEST, 1.0])
    return (target - with_zero) / (with_one - with_zero)


def borne(rule: aggregators.Aggregator, num_clients: int = 9) -> int:
    """Return the greatest number of attackers far away with whom the result is among the honest values."""
    for m in range(1, num_clients):
        honest = list(range(num_clients - m))
        if not honest[0] <= combine(rule, [*honest, *[1e6] * m]) <= honest[-1]:
            return m - 1
    return num_clients - 1


def followed(num_attackers: int, num_clients: int, num_iterations: int) -> float:
    """Return how far on the way from the honest, at 0, to the attackers, at 1, the geometric median is."""
    rule = aggregators.GeometricMedianFactory(num_iterations)
    return combine(rule, [0.0] * (num_clients - num_attackers) + [1.0] * num_attackers)


def _odds(num_attackers: int, num_clients: int, power: int) -> float:
    return float((num_attackers / (num_clients - num_attackers)) ** power)


def manipulated() -> list[float]:
    """Return the mean and the median of six honest clients and two attackers."""
    updates, who = (np.array([*SIX, 0.0, 0.0]),), np.arange(8)
    streams = [np.random.default_rng(i) for i in who]
    seen = attacks.Seen(updates, np.ones(8), who[6:], who[:6], [None] * 8, streams)
    (sent,) = attacks.inner_product_manipulation(0.5)(seen)
    return [combine(rule, [*SIX, float(sent), float(sent)]) for rule in (MEAN, MEDIAN)]


@functools.cache
def worst_for_the_median() -> str:
    """Return the letter of the attack that costs the median most, where each client has about two digits."""
    digits, unseen = (_small(writers, step) for writers, step in zip(load_sample(), (4, 1), strict=True))
    clients = partition.shards(digits, 15, seed=0)
    who = attacks.choose(clients.client_ids, 0.2, seed=0)
    poisoned = attacks.poisoned(clients, attacks.flip_labels(10, field="y"), who)
    near = attacks.inner_product_manipulation(1.5), attacks.a_little_is_enough(1.0)
    rules = [attacks.attack_factory(attack, who, MEDIAN) for attack in (attacks.sign_flip(5.0), *near)]
    found = {
        letter: _accuracy(of, rule, unseen)
        for letter, of, rule in zip("ABCD", [clients] * 3 + [poisoned], [*rules, MEDIAN], strict=True)
    }
    return min(found, key=found.__getitem__)


def _small(writers: Any, step: int) -> dict[str, npt.NDArray[Any]]:
    pooled = partition.pool(writers)
    pixels = 1 - pooled["pixels"][::step].reshape(-1, 7, 4, 7, 4).mean(axis=(2, 4)).reshape(-1, 49)
    return {"x": pixels, "y": pooled["label"][::step, np.newaxis]}


def _accuracy(clients: Any, rule: aggregators.Aggregator, unseen: dict[str, npt.NDArray[Any]]) -> float:
    model = SoftmaxRegression(49, 10, "stable", l2=0.01)
    process = build_weighted_fed_avg(model, optimizers.build_sgdm(1.0), model_aggregator=rule)
    datasets = [clients.create_dataset_for_client(client_id) for client_id in clients.client_ids]
    state = process.initialize()
    for _ in range(10):
        state = process.next(state, [of.repeat(5).batch(of.num_examples) for of in datasets]).state
    return float(evaluate(model, process.get_model_weights(state), [unseen])["sparse_categorical_accuracy"])


def bucketed(minority: float = 9.0) -> float:
    """Return the median of four buckets of two, six clients at 1 and two elsewhere, over all ways to share buckets."""
    medians = []
    for places in itertools.combinations(range(8), 2):  # every one as likely
        sent = np.ones(8)
        sent[list(places)] = minority
        medians.append(combine(MEDIAN, [combine(MEAN, sent[i : i + 2].tolist()) for i in range(0, 8, 2)]))
    return float(np.mean(medians))


def least_error(num_odd: int, num_clients: int, distance: float) -> float:
    """Return half of the way between the mean of all and the mean of all but the odd ones."""
    most = [0.0] * (num_clients - num_odd)
    return abs(combine(MEAN, [*most, *[distance] * num_odd]) - combine(MEAN, most)) / 2


EXERCISES = {
    "5.1": Exercise(
        Number(),
        replacement,
        Text(
            "{got} takes the place of everybody: it makes up for what the nine send, and adds ten times what the "
            "attacker wants. The more clients there are, the longer its update has to be, but nothing stops it from "
            "being as long as it likes.",
            "{got} sustituye a todos: compensa lo que envían los nueve y añade diez veces lo que quiere el atacante. "
            "Cuantos más clientes haya, más larga tendrá que ser su actualización, pero nada le impide hacerla tan "
            "larga como quiera.",
        ),
        (
            Mistake(
                Text(
                    "That is what the *mean* is to be. The other nine take part in it and pull it back up.",
                    "Eso es lo que debe valer la *media*. En ella participan también los otros nueve, que tiran de "
                    "ella hacia el lado bueno.",
                ),
                lambda: -1,
            ),
            Mistake(
                Text(
                    "That would do if the others sent nothing. They send nine updates with a mean of 1: make up for "
                    "them too.",
                    "Eso bastaría si los demás no enviaran nada. Envían nueve actualizaciones de media 1, y también "
                    "hay que compensarlas.",
                ),
                lambda: -10,
            ),
            Mistake(
                Text(
                    "That is by how much the sum must change, compared with ten honest clients. The attacker does not "
                    "send an honest update beside it: count it once, in the place of its own.",
                    "Eso es lo que debe cambiar la suma respecto a la de diez clientes honestos. El atacante no envía "
                    "además una actualización honesta: la suya ya forma parte del cambio.",
                ),
                lambda: -20,
            ),
            Mistake(
                Text(
                    "You have divided by nine. The attacker is one of those who are averaged: there are ten.",
                    "Ha dividido entre nueve. El atacante también entra en la media: son diez.",
                ),
                lambda: -18,
            ),
            Mistake(
                Text(
                    "To the other side: the mean is to be negative, while the nine are positive.",
                    "Hacia el otro lado: la media debe ser negativa y los nueve son positivos.",
                ),
                when=lambda got: bool(got > 0),
            ),
        ),
        Text(
            "Write x for what it sends: the sum of the nine and x, over ten, is to be -1. "
            "`combine(aggregators.MeanFactory(), [*honest, x])` tries it.",
            "Llame x a lo que envía: la suma de los nueve y x, dividida entre diez, debe ser -1. Puede probarlo con "
            "`combine(aggregators.MeanFactory(), [*honest, x])`.",
        ),
    ),
    "5.2": Exercise(
        Numbers(3),
        lambda: [borne(rule) for rule in NINE_RULES],
        Text(
            "The mean bears none, the trimmed mean as many as it leaves out at one end, and the median any minority. "
            "The price of more trimming is that fewer updates count: the median is what is left if all but the middle "
            "is trimmed.",
            "La media no soporta ninguno; la media recortada, tantos como descarta en un extremo, y la mediana, "
            "cualquier minoría. Recortar más tiene un precio: cuentan menos actualizaciones. La mediana es lo que "
            "queda cuando se recorta todo menos el centro.",
        ),
        (
            Mistake(
                Text(
                    "The first number: one attacker moves the mean by a ninth of the way that it goes itself, and it "
                    "can go as far as it likes.",
                    "El primer número: un solo atacante mueve la media un noveno de lo que se aleja él. Y puede "
                    "alejarse cuanto quiera.",
                ),
                when=lambda got: bool(got[0] != borne(NINE_RULES[0])),
            ),
            Mistake(
                Text(
                    "The second number: a quarter is left out at *each* end, but the attackers may all stand at the "
                    "same end.",
                    "El segundo número: se descarta una cuarta parte en *cada* extremo, pero los atacantes pueden "
                    "estar todos en el mismo.",
                ),
                lambda: [0, 4, 4],
            ),
            Mistake(
                Text(
                    "The second number: how many values are a quarter of nine, when only whole ones can be left out? "
                    "If one attacker more is there than that, where is it?",
                    "El segundo número: ¿cuántos valores son la cuarta parte de nueve, si solo se descartan enteros? "
                    "Y si hay un atacante más, ¿dónde queda?",
                ),
                when=lambda got: bool(got[1] != borne(NINE_RULES[1])),
            ),
            Mistake(
                Text(
                    "The third number: five of nine are more than half. Write five values far away and four honest "
                    "ones in order: whose is the fifth?",
                    "El tercer número: cinco de nueve son más de la mitad. Escriba en orden cuatro valores honestos y "
                    "cinco muy lejanos: ¿de quién es el quinto?",
                ),
                lambda: [0, 2, 5],
            ),
            Mistake(
                Text(
                    "The third number: write the nine values in order, the attackers' at one end. The median is the "
                    "fifth; for how many attackers is the fifth still an honest client's?",
                    "El tercer número: escriba los nueve valores en orden, con los atacantes en un extremo. La mediana "
                    "es el quinto; ¿hasta cuántos atacantes sigue siendo de un cliente honesto?",
                ),
                when=lambda got: bool(got[2] != borne(NINE_RULES[2])),
            ),
        ),
        Text(
            "Put numbers of your own into `combine`, some of them as large as 1e6, and look whose side the result is "
            "on.",
            "Dele a `combine` números propios, algunos tan grandes como 1e6, y mire de qué lado cae el resultado.",
        ),
    ),
    "5.3": Exercise(
        Function("followed(num_attackers, num_clients, num_iterations)", ((1, 9, 3), (4, 9, 3), (2, 5, 1), (3, 8, 6))),
        lambda: followed,
        Text(
            "It is what the library's rule does, to the last digit that it stores. Each iteration multiplies the odds "
            "by the attackers' own, and so a handful does for few attackers and not for nearly a half of all: the "
            "theorem speaks of the limit, the server runs three.",
            "Es exactamente lo que hace la regla de la biblioteca. Cada iteración multiplica el cociente por el de los "
            "propios atacantes, así que con pocos atacantes bastan unas cuantas iteraciones y con casi la mitad, no: "
            "el teorema habla del límite, y el servidor hace tres.",
        ),
        (
            Mistake(
                Text(
                    "That is the mean, where the iterations begin. What does one of them do to it?",
                    "Eso es la media, que es donde empiezan las iteraciones. ¿Qué le hace cada una de ellas?",
                ),
                lambda: lambda m, k, n: m / k,
            ),
            Mistake(
                Text(
                    "One iteration is missing, or one too few is counted: the mean has the odds m / (k - m) before the "
                    "first one begins.",
                    "Falta una: la media ya tiene el cociente m / (k - m) antes de la primera iteración.",
                ),
                lambda: lambda m, k, n: _odds(m, k, n) / (1 + _odds(m, k, n)),
            ),
            Mistake(
                Text(
                    "That is s / (1 - s), the odds; s itself was asked for. Where they are small the two are nearly "
                    "the same.",
                    "Eso es el cociente s / (1 - s), y se pide s. Cuando son pequeños, casi coinciden.",
                ),
                lambda: lambda m, k, n: _odds(m, k, n + 1),
            ),
            Mistake(
                Text(
                    "The odds are not squared each time. The weights are one over the distance from the last result, "
                    "but the *number* of attackers and of honest clients is the same in each iteration: write down two "
                    "of them.",
                    "El cociente no se eleva al cuadrado cada vez. Los pesos son el inverso de la distancia al último "
                    "resultado, pero el *número* de atacantes y de honestos es siempre el mismo: escriba dos "
                    "iteraciones.",
                ),
                lambda: lambda m, k, n: _odds(m, k, 2**n) / (1 + _odds(m, k, 2**n)),
            ),
            Mistake(
                Text(
                    "(m / k) to a power: the shares do not multiply, the odds do, that is, m to k - m.",
                    "Es una potencia de m / k: lo que se multiplica no son las fracciones, sino los cocientes entre m "
                    "y k - m.",
                ),
                lambda: lambda m, k, n: (m / k) ** (n + 1),
            ),
            Mistake(
                Text(
                    "This is the way from the attackers to the result. What was asked for is how far the result is "
                    "from the *honest*.",
                    "Eso es lo que dista el resultado de los atacantes. Se pide lo que dista de los *honestos*.",
                ),
                lambda: lambda m, k, n: 1 / (1 + _odds(m, k, n + 1)),
            ),
        ),
        Text(
            "{call} gives {got}, and the library's rule goes {right} of the way. Begin with s = m / k; the new s is "
            "the attackers' weight, m / (1 - s), over the weight of all, m / (1 - s) + (k - m) / s.",
            "{call} da {got}, y la regla de la biblioteca recorre {right} del camino. Empiece con s = m / k; el nuevo "
            "s es el peso de los atacantes, m / (1 - s), entre el peso de todos, m / (1 - s) + (k - m) / s.",
        ),
    ),
    "5.4": Exercise(
        Numbers(2),
        manipulated,
        Text(
            "The mean has lost some of its length. The median has changed its sign, and points the wrong way, with two "
            "attackers of eight, both within the honest values. That a rule bears attackers says that they cannot take "
            "it out of the honest cloud; it does not say that the cloud is small.",
            "La media se ha acortado. La mediana ha cambiado de signo y apunta hacia donde no debe, con solo dos "
            "atacantes entre ocho y sin que ninguno salga del intervalo de los honestos. Que una regla soporte "
            "atacantes quiere decir que no pueden sacarla de la nube honesta; no que la nube sea pequeña.",
        ),
        (
            Mistake(
                Text(
                    "That is without the attackers. They are near, but they count: there are eight now.",
                    "Eso es sin los atacantes. Están cerca, pero cuentan: ahora son ocho.",
                ),
                lambda: [1, 1],
            ),
            Mistake(
                Text(
                    "The first number: the sum of all eight is to be divided by eight.",
                    "El primer número: hay que dividir entre ocho la suma de los ocho.",
                ),
                when=lambda got: bool(abs(got[0] - manipulated()[0]) > 0.02),
            ),
            Mistake(
                Text(
                    "The second number: the median has not stayed. Write all eight in order and look at the fourth and "
                    "the fifth.",
                    "El segundo número: la mediana no se ha quedado donde estaba. Escriba los ocho en orden y mire el "
                    "cuarto y el quinto.",
                ),
                lambda: [0.625, 1],
            ),
            Mistake(
                Text(
                    "The second number: you have taken the third and the fourth. Of eight values, three are to be on "
                    "either side of the two in the middle.",
                    "El segundo número: ha tomado el tercero y el cuarto. De los ocho valores, tiene que haber tres a "
                    "cada lado de los dos centrales.",
                ),
                lambda: [0.625, -0.75],
            ),
            Mistake(
                Text(
                    "The second number: you have taken the fifth and the sixth. Of eight values, three are to be on "
                    "either side of the two in the middle.",
                    "El segundo número: ha tomado el quinto y el sexto. De los ocho valores, tiene que haber tres a "
                    "cada lado de los dos centrales.",
                ),
                lambda: [0.625, 1.25],
            ),
        ),
        Text(
            "Write all eight in order, from -5 to 7. The mean is a sum over eight, and the median is halfway between "
            "the fourth and the fifth.",
            "Escriba los ocho en orden, de -5 a 7. La media es una suma entre ocho, y la mediana está a medio camino "
            "entre el cuarto y el quinto.",
        ),
    ),
    "5.5": Exercise(
        Choice("ABCD"),
        lambda: "C",
        Text(
            "Wide apart, the honest leave the middle empty, and whoever stands there is taken for the most trustworthy "
            "of all. So the same rule is safe or lost with the same number of attackers: what decides is how much "
            "*honest* clients differ.",
            "Al estar tan separados, los honestos dejan vacío el centro, y quien se pone ahí pasa por ser el más "
            "fiable de todos. De ahí que la misma regla, con el mismo número de atacantes, aguante o no: lo que decide "
            "es cuánto se diferencian los clientes *honestos*.",
        ),
        (
            Mistake(
                Text(
                    "The attackers send the same in every coordinate, and they are three of fifteen in each.",
                    "Los atacantes envían lo mismo en todas las coordenadas, y en todas son tres de quince.",
                ),
                lambda: "A",
            ),
            Mistake(
                Text(
                    "They are at -1.5, which is 2.5 from the honest mean, wherever in the picture. At a spread of 10, "
                    "how far from it is a usual honest client?",
                    "Están en -1.5, es decir, a 2.5 de la media honesta, en toda la figura. Con una dispersión de 10, "
                    "¿a qué distancia de ella está un cliente honesto corriente?",
                ),
                lambda: "B",
            ),
            Mistake(
                Text(
                    "It is 1 for every spread: `noise -= noise.mean(axis=0)` sees to that, and the curve of the mean "
                    "would not be flat otherwise.",
                    "Es 1 con cualquier dispersión: de eso se ocupa `noise -= noise.mean(axis=0)`; si no, la curva de "
                    "la media no sería plana.",
                ),
                lambda: "D",
            ),
        ),
        Text("Choose one of the four.", "Elija una de las cuatro."),
    ),
    "5.6": Exercise(
        Choice("ABCD"),
        worst_for_the_median,
        Text(
            "It is the quietest of the four in one way: a short update, near the middle of clients who differ. The "
            "attack that stops the mean is another one than the attack that stops the median, and attackers may choose "
            "after they have read which rule you use.",
            "En cierto modo es el más discreto de los cuatro: una actualización corta, cerca del centro de unos "
            "clientes que se diferencian mucho. El ataque que detiene la media no es el mismo que detiene la mediana, "
            "y los atacantes pueden elegir después de haber leído qué regla usa usted.",
        ),
        (
            Mistake(
                Text(
                    "It is the loudest, and it hurts; but a median does not care how loud one is. Another one, much "
                    "shorter, takes it further.",
                    "Es el más ruidoso y hace daño; pero a la mediana le da igual el ruido que haga uno. Hay otro, "
                    "mucho más corto, que la lleva más lejos.",
                ),
                lambda: "A",
            ),
            Mistake(
                Text(
                    "It stays near the honest, but it begins at their mean and goes the same way in each coordinate, "
                    "whether that harms or not. Is there one that goes exactly the wrong way?",
                    "Se queda cerca de los honestos, pero parte de su media y se desvía siempre hacia el mismo lado, "
                    "le convenga o no. ¿No hay alguno que vaya justo en sentido contrario?",
                ),
                lambda: "C",
            ),
            Mistake(
                Text(
                    "With wrong data an attacker still trains as all others do, and cannot choose its update. Those "
                    "who forge it can do more.",
                    "Con datos falsos el atacante sigue entrenando como los demás y no puede elegir su actualización. "
                    "Quien la falsifica puede hacer más.",
                ),
                lambda: "D",
            ),
        ),
        Text("Choose one of the four.", "Elija una de las cuatro."),
    ),
    "5.7": Exercise(
        Number(),
        bucketed,
        Text(
            "From 1 without buckets to {got}, with the optimum at 3: the two have most of their say again. Unless they "
            "share a bucket, two of four means have one of them in it, and half of all is no minority.",
            "De 1 sin grupos a {got}, cuando el óptimo es 3: los dos recuperan casi toda su voz. Salvo cuando caen en "
            "el mismo grupo, dos de las cuatro medias llevan a uno de ellos, y la mitad ya no es una minoría.",
        ),
        (
            Mistake(
                Text(
                    "That is the median without buckets, or of rounds in which the two share a bucket. How often do "
                    "they?",
                    "Eso es la mediana sin grupos, o la de las rondas en que los dos caen en el mismo. ¿Cuántas veces "
                    "ocurre?",
                ),
                lambda: 1,
            ),
            Mistake(
                Text(
                    "That is the mean, and the median of the rounds in which the two are in different buckets. In some "
                    "rounds they are in the same one.",
                    "Eso es la media, y también la mediana de las rondas en que los dos están en grupos distintos. En "
                    "algunas caen en el mismo.",
                ),
                lambda: 3,
            ),
            Mistake(
                Text(
                    "5 is the mean of a bucket with one of the two. Of the four means 5, 5, 1, 1 the median is halfway "
                    "between the two in the middle.",
                    "5 es la media de un grupo con uno de los dos. La mediana de las cuatro medias, 5, 5, 1 y 1, está "
                    "a medio camino entre las dos centrales.",
                ),
                lambda: 5,
            ),
            Mistake(
                Text(
                    "The two cases are the right ones, with their probabilities exchanged: sharing a bucket is the "
                    "rare one.",
                    "Los dos casos son esos, pero con las probabilidades cambiadas: lo raro es compartir grupo.",
                ),
                lambda: 6 / 7 * 1 + 1 / 7 * 3,
            ),
            Mistake(
                Text(
                    "The two cases are not equally likely. One of the two has one companion: of how many others?",
                    "Los dos casos no son igual de probables. Uno de los dos tiene un compañero: ¿entre cuántos?",
                ),
                lambda: 2,
            ),
            Mistake(
                Text(
                    "A companion in the bucket is drawn from all clients but oneself: not of eight.",
                    "El compañero de grupo se sortea entre todos los clientes menos uno mismo: no son ocho.",
                ),
                lambda: 1 / 8 * 1 + 7 / 8 * 3,
            ),
            Mistake(
                Text(
                    "A quarter would be right if the two chose a bucket each, and there were room for both in any. "
                    "But a bucket has two places, and one of them is taken by the first of the two.",
                    "Una cuarta parte sería lo correcto si cada uno eligiera grupo y siempre hubiera sitio. Pero un "
                    "grupo tiene dos plazas, y una la ocupa ya el primero.",
                ),
                lambda: 1 / 4 * 1 + 3 / 4 * 3,
            ),
        ),
        Text(
            "There are two cases: the two share a bucket or they do not. What are the four means in each case, and "
            "their median? And how likely is each?",
            "Hay dos casos: los dos comparten grupo o no. ¿Cuáles son las cuatro medias en cada caso, y su mediana? ¿Y "
            "con qué probabilidad se da cada uno?",
        ),
    ),
    "5.8": Exercise(
        Function("least_error(num_odd, num_clients, distance)", ((2, 8, 8.0), (3, 10, 1.0), (1, 100, 40.0))),
        lambda: least_error,
        Text(
            "Half of what separates the two right answers, and no rule, however clever, does better: the mean is right "
            "in one story and twice as wrong in the other, and the median the other way round. The more honest clients "
            "differ, the more it costs to be ready for attackers.",
            "La mitad de lo que separa las dos respuestas correctas, y ninguna regla, por ingeniosa que sea, puede "
            "mejorarlo: la media acierta en una historia y yerra el doble en la otra, y la mediana, al revés. Cuanto "
            "más se diferencian los clientes honestos, más cuesta estar preparado para los atacantes.",
        ),
        (
            Mistake(
                Text(
                    "That is the error of the mean in the second story, and of the median in the first. An answer "
                    "between these two is less wrong in the worse one.",
                    "Ese es el error de la media en la segunda historia y el de la mediana en la primera. Una "
                    "respuesta intermedia yerra menos en la peor de las dos.",
                ),
                lambda: lambda m, k, distance: m / k * distance,
            ),
            Mistake(
                Text(
                    "Halfway between the two groups is not halfway between the two right answers: what is the mean of "
                    "all clients?",
                    "A medio camino entre los dos grupos no es a medio camino entre las dos respuestas correctas: "
                    "¿cuál es la media de todos los clientes?",
                ),
                lambda: lambda m, k, distance: distance / 2,
            ),
            Mistake(
                Text(
                    "The error cannot be zero in both stories: the same numbers come in, so the same answer goes out, "
                    "and two different ones would be right.",
                    "El error no puede ser cero en las dos historias: entran los mismos números, sale la misma "
                    "respuesta, y las correctas son dos distintas.",
                ),
                lambda: lambda m, k, distance: 0.0,
            ),
            Mistake(
                Text(
                    "In the first story all clients are averaged, the odd ones too: they are m of k, not m to k - m.",
                    "En la primera historia se promedian todos los clientes, también los raros: son m de k, no m "
                    "frente a k - m.",
                ),
                lambda: lambda m, k, distance: m / (k - m) * distance / 2,
            ),
            Mistake(
                Text(
                    "That is measured from the number of the odd clients. Measure from that of all others: where is "
                    "the right answer of each story, and how far apart are the two?",
                    "Eso está medido desde el número de los clientes raros. Mida desde el de los demás: ¿dónde está la "
                    "respuesta correcta de cada historia y cuánto distan las dos?",
                ),
                lambda: lambda m, k, distance: (k - m) / k * distance / 2,
            ),
        ),
        Text(
            "{call} gives {got}, and a rule can be sure of {right}. Write down the right answer of each story; one "
            "number has to do for both.",
            "{call} da {got}, y una regla puede garantizar {right}. Escriba la respuesta correcta de cada historia; un "
            "solo número tiene que servir para las dos.",
        ),
    ),
}

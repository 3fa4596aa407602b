"""Lab 2's exercises: FedProx, SCAFFOLD, FedNova and the server's optimizer."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fedsim_np import analysis
from fedsim_np.datasets import load_sample, partition
from fedsim_np.labs.answers import Choice, Function, Number
from fedsim_np.labs.exercises import Exercise, Mistake
from fedsim_np.labs.lab_1 import CURVATURES, MINIMA, RATE, clients, optimum
from fedsim_np.labs.languages import Text
from fedsim_np.learning import (
    ClientWeighting,
    LearningAlgorithmState,
    LearningProcess,
    build_scaffold,
    build_unweighted_fed_avg,
    build_unweighted_fed_prox,
    optimizers,
)
from fedsim_np.learning.models import LinearRegression, ModelWeights, SoftmaxRegression

Vector = npt.NDArray[np.float64]

UNEQUAL = np.array([4, 20])
LOCAL_STEPS, DIGITS_RATE, NUM_CLIENTS, GAP = 20, 0.5, 10, 0.05
_MODEL = LinearRegression(num_features=1)


def after(process: LearningProcess, local_steps: Sequence[int], num_rounds: int) -> LearningAlgorithmState:
    """Return the state after so many rounds of both clients."""
    cohort = [
        dataset.repeat(int(steps)).with_client_id(name)
        for dataset, steps, name in zip(clients(CURVATURES, MINIMA), local_steps, ("ana", "leo"), strict=True)
    ]
    state: LearningAlgorithmState = process.initialize()
    for _ in range(num_rounds):
        state = process.next(state, cohort).state
    return state


def slope(state: LearningAlgorithmState) -> float:
    """Return the model's slope."""
    return float(state.global_model_weights.trainable[0][0, 0])


@functools.cache
def end_of_ana(start: float = 2.0, mu: float = 3.0) -> float:
    """Return where Ana ends who trains as long as she likes, on a spring."""
    process = build_unweighted_fed_prox(_MODEL, mu, optimizers.build_sgdm(RATE))
    weights = ModelWeights((np.array([[start]], np.float32), np.zeros(1, np.float32)))
    state = process.set_model_weights(process.initialize(), weights)
    return slope(process.next(state, [clients(CURVATURES, MINIMA)[0].repeat(100)]).state)


def prox_fixed_point(curvatures: Vector, minima: Vector, mu: float) -> float:
    """Return the slope at which FedProx settles whose clients train to the end."""
    found = analysis.fed_prox_fixed_point(_MODEL, clients(curvatures, minima), mu, RATE, 3_000)
    return float(found.trainable[0].item())


@functools.cache
def variate_of_leo() -> float:
    """Return Leo's control variate when SCAFFOLD has settled."""
    state = after(build_scaffold(_MODEL, RATE, num_clients=2), [LOCAL_STEPS] * 2, 25)
    return float(state.client_work.clients["leo"][0].item())


def mean_gradient(start: Vector, end: Vector, rate: float, num_steps: int, c_i: Vector, c: Vector) -> Vector:
    """Return SCAFFOLD's new control variate."""
    return (start - end) / (rate * num_steps) + c_i - c


@functools.cache
def unequal_fixed_point(rate: float, server_rate: float = 1.0) -> float:
    """Return the slope at which FedAvg settles where Ana takes 4 steps and Leo 20."""
    process = build_unweighted_fed_avg(_MODEL, optimizers.build_sgdm(rate), optimizers.build_sgdm(server_rate))
    return slope(after(process, UNEQUAL.tolist(), 25))


def fed_nova_update(updates: Vector, num_steps: Vector) -> float:
    """Return what FedNova's server adds to its model."""
    return float(np.mean(num_steps) * np.mean(updates / num_steps))


@functools.cache
def scaffold_on_digits() -> tuple[int, int]:
    """Return the first round after which SCAFFOLD is less than 0.05 above the optimum, and the bytes until then."""
    pooled = partition.pool(load_sample()[0])
    pixels = 1 - pooled["pixels"][::6].reshape(-1, 7, 4, 7, 4).mean(axis=(2, 4)).reshape(-1, 49)
    digits = {"x": pixels, "y": pooled["label"][::6, np.newaxis]}
    dealt = partition.dirichlet(digits, num_clients=NUM_CLIENTS, alpha=0.1)
    ten = [dealt.create_dataset_for_client(client_id) for client_id in dealt.client_ids]
    model = SoftmaxRegression(49, 10, "stable", l2=0.01)
    whole, uniform = [dataset.batch(dataset.num_examples) for dataset in ten], ClientWeighting.UNIFORM
    least = analysis.minimize(model, whole, client_weighting=uniform)
    objective = analysis.Objective.of(model, whole, client_weighting=uniform)
    process = build_scaffold(model, DIGITS_RATE, num_clients=NUM_CLIENTS)
    cohort = [dataset.repeat(LOCAL_STEPS).batch(dataset.num_examples) for dataset in ten]
    state, num_rounds, num_bytes, gap = process.initialize(), 0, 0, np.inf
    while gap >= GAP:
        output = process.next(state, cohort)
        state, num_rounds = output.state, num_rounds + 1
        num_bytes += int(np.sum(output.clients["bytes_up"]) + np.sum(output.clients["bytes_down"]))
        gap = analysis.suboptimality(objective, process.get_model_weights(state), least)
    return num_rounds, num_bytes


def kilobytes() -> float:
    """Return what SCAFFOLD sends, both ways, until it is less than 0.05 above the optimum."""
    return scaffold_on_digits()[1] / 1000


def _weighted(weights: Vector, minima: Vector) -> float:
    return float(weights @ minima / weights.sum())


_SPRINGS: Sequence[tuple[Vector, Vector, float]] = (
    (CURVATURES, MINIMA, 1.0),
    (np.array([0.5, 1.0, 2.0]), np.array([1.0, 2.0, -1.0]), 0.3),
    (CURVATURES, MINIMA, 10.0),
)
_WALKS: Sequence[tuple[Vector, Vector, float, int, Vector, Vector]] = (
    (np.array([2.0]), np.array([2.5]), 0.1, 20, np.array([-0.4]), np.array([0.1])),
    (np.array([1.0, -1.0]), np.array([0.5, 2.0]), 0.5, 4, np.array([0.2, 0.0]), np.array([-0.3, 1.0])),
)
_UPDATES: Sequence[tuple[Vector, Vector]] = (
    (np.array([0.4, -1.0]), UNEQUAL),
    (np.array([1.0, 2.0, 3.0]), np.array([1, 5, 30])),
)

EXERCISES = {
    "2.1": Exercise(
        Number(),
        end_of_ana,
        Text(
            "Where the pull of her data, 1 (w - 3), and that of the spring, 3 (w - 2), cancel: at the mean of where "
            "she wants to be and where she set out, with the curvature and mu as the weights. The steeper her own "
            "loss, the less the spring holds her.",
            "Donde se compensan lo que tiran sus datos, 1 (w - 3), y lo que tira el muelle, 3 (w - 2): es la media "
            "entre adonde quiere ir y de donde salió, con la curvatura y mu como pesos. Cuanto más empinada es su "
            "propia pérdida, menos la retiene el muelle.",
        ),
        (
            Mistake(
                Text(
                    "That is where she would end without a spring.",
                    "Ahí acabaría si no hubiera muelle.",
                ),
                lambda: MINIMA[0],
            ),
            Mistake(
                Text(
                    "That is where she set out. There the spring does not pull yet, and her data do.",
                    "De ahí es de donde salió. En ese punto el muelle aún no tira, y sus datos sí.",
                ),
                lambda: 2,
            ),
            Mistake(
                Text(
                    "The weights are the wrong way round: the spring, with mu = 3, is stronger than her data, whose "
                    "curvature is 1.",
                    "Los pesos están al revés: el muelle, con mu = 3, puede más que sus datos, cuya curvatura es 1.",
                ),
                lambda: _weighted(np.array([3.0, 1.0]), np.array([3.0, 2.0])),
            ),
            Mistake(
                Text(
                    "That is the point half way. It would be right if the spring and her data were equally strong.",
                    "Ese es el punto medio. Sería correcto si el muelle y sus datos tuvieran la misma fuerza.",
                ),
                lambda: 2.5,
            ),
            Mistake(
                Text(
                    "Her data pull her up to 3 and the spring back to 2: she ends between the two.",
                    "Sus datos tiran de ella hacia 3 y el muelle, hacia 2: tiene que acabar entre los dos.",
                ),
                when=lambda got: not 2 <= got <= 3,
            ),
        ),
        Text(
            "Write the derivative of her loss, 1 (w - 3), and that of the spring, mu (w - 2), and ask where the sum "
            "is zero.",
            "Escriba la derivada de su pérdida, 1 (w - 3), y la del muelle, mu (w - 2), y vea dónde se anula la suma.",
        ),
    ),
    "2.2": Exercise(
        Function("prox_fixed_point(curvatures, minima, mu)", tuple(_SPRINGS)),
        lambda: prox_fixed_point,
        Text(
            "It agrees with the library's `fed_prox_fixed_point`. Each minimum counts by a / (a + mu): all alike "
            "without a spring, nearly as a, the curvature, with a strong one. So the optimum is approached and never "
            "reached: at mu = infinity nobody moves.",
            "Coincide con `fed_prox_fixed_point`, de la biblioteca. Cada mínimo cuenta según a / (a + mu): sin "
            "muelle, todos igual; con uno fuerte, casi según a, la curvatura. De modo que uno se acerca al óptimo sin "
            "llegar nunca: con mu infinito no se mueve nadie.",
        ),
        (
            Mistake(
                Text(
                    "That is the optimum, and mu is not in it. For a strong spring it comes close; compute how far "
                    "each client moves.",
                    "Eso es el óptimo, y en él no interviene mu. Con un muelle fuerte se parece; calcule cuánto "
                    "avanza cada cliente.",
                ),
                lambda: lambda a, c, mu: _weighted(a, c),
            ),
            Mistake(
                Text(
                    "That is the plain mean of the minima, where they settle without a spring.",
                    "Eso es la media simple de los mínimos, que es donde acaban si no hay muelle.",
                ),
                lambda: lambda a, c, mu: c.mean(),
            ),
            Mistake(
                Text(
                    "mu / (a + mu) is the share of the way that is still *left* when a client is held. It counts by "
                    "what it has walked.",
                    "mu / (a + mu) es la fracción del camino que le *falta* al cliente cuando el muelle lo detiene. "
                    "Cuenta lo que ha recorrido.",
                ),
                lambda: lambda a, c, mu: _weighted(mu / (a + mu), c),
            ),
            Mistake(
                Text(
                    "mu has been added to the curvatures. Where a client ends, it stands below: divide by it.",
                    "Ha sumado mu a las curvaturas. En el punto donde acaba un cliente está en el denominador: hay "
                    "que dividir por esa suma.",
                ),
                lambda: lambda a, c, mu: _weighted(a + mu, c),
            ),
            Mistake(
                Text(
                    "That is the sum of the moves from zero; divide it by the sum of the shares.",
                    "Eso es la suma de los avances desde cero; divídala por la suma de las fracciones.",
                ),
                lambda: lambda a, c, mu: (a / (a + mu)) @ c,
            ),
        ),
        Text(
            "{call} gives {got}, and the rounds settle at {right}. A client that sets out from w ends at (a c + mu w) "
            "/ (a + mu). Write how far it has moved, set the sum of the moves to zero, and solve for w.",
            "{call} da {got}, y las rondas se estabilizan en {right}. Un cliente que sale de w acaba en (a c + mu w) "
            "/ (a + mu). Escriba cuánto ha avanzado, iguale la suma de los avances a cero y despeje w.",
        ),
    ),
    "2.3": Exercise(
        Number(),
        variate_of_leo,
        Text(
            "His own gradient at the optimum, by which he would leave it. Ana's is as large and points the other way. "
            "What is subtracted is thus exactly what makes the two differ, and what is common to both stays.",
            "Su propio gradiente en el óptimo, que es lo que lo haría marcharse. El de Ana es igual de grande y de "
            "signo contrario. Lo que se resta es, por tanto, justo lo que distingue a uno del otro; lo que tienen en "
            "común se queda.",
        ),
        (
            Mistake(
                Text(
                    "That is Ana's: look at the sign. Leo's loss *rises* at the optimum, since his minimum, 1, lies "
                    "below.",
                    "Ese es el de Ana: fíjese en el signo. En el óptimo la pérdida de Leo *crece*, porque su mínimo, "
                    "1, queda por debajo.",
                ),
                lambda: -variate_of_leo(),
            ),
            Mistake(
                Text(
                    "Then nothing would correct him, and he would walk as in FedAvg: his gradient is not zero there.",
                    "Entonces nada lo corregiría y se marcharía como en FedAvg: ahí su gradiente no es cero.",
                ),
                lambda: 0,
            ),
            Mistake(
                Text(
                    "That is his distance from his minimum. His gradient is that times the curvature.",
                    "Esa es la distancia hasta su mínimo. El gradiente es eso multiplicado por la curvatura.",
                ),
                when=lambda got: bool(np.isclose(abs(got), optimum() - MINIMA[1], rtol=0.01)),
            ),
            Mistake(
                Text(
                    "The rate does not belong in it: it stands outside the brackets.",
                    "La tasa no interviene: está fuera del paréntesis.",
                ),
                lambda: RATE * variate_of_leo(),
            ),
        ),
        Text(
            "With c = 0 he stays if his gradient minus c_i is zero. His gradient at w is a (w - 1), and w is the "
            "optimum.",
            "Con c = 0, se queda donde está si su gradiente menos c_i es cero. Su gradiente en w es a (w - 1), y w es "
            "el óptimo.",
        ),
    ),
    "2.4": Exercise(
        Function("mean_gradient(start, end, rate, num_steps, c_i, c)", tuple(_WALKS)),
        lambda: mean_gradient,
        Text(
            "It costs no look at the data: a walk tells its own mean gradient. The library's `build_scaffold` does "
            'the same (the paper\'s "option ii"; in "option i" a client computes its gradient at the server\'s model '
            "instead, with another pass over its data).",
            "No hace falta volver a mirar los datos: el recorrido ya dice cuál fue su gradiente medio. Es lo que hace "
            "`build_scaffold`, de la biblioteca (la «opción ii» del artículo; en la «opción i», el cliente calcula su "
            "gradiente en el modelo del servidor, para lo que tiene que recorrer sus datos otra vez).",
        ),
        (
            Mistake(
                Text(
                    "That is the mean of the *corrected* directions. Take the correction out again.",
                    "Esa es la media de las direcciones ya *corregidas*. Quíteles la corrección.",
                ),
                lambda: lambda start, end, rate, steps, c_i, c: (start - end) / (rate * steps),
            ),
            Mistake(
                Text(
                    "The correction is taken out the wrong way round. A step had *minus* c_i and *plus* c in it.",
                    "La corrección se ha quitado al revés. En cada paso c_i iba *restando* y c, *sumando*.",
                ),
                lambda: lambda start, end, rate, steps, c_i, c: (start - end) / (rate * steps) - c_i + c,
            ),
            Mistake(
                Text(
                    "The sign of the walk: a step goes *against* the gradient, so a client that went up met a "
                    "negative one.",
                    "El signo del recorrido: los pasos van en contra del gradiente, así que quien ha subido se ha "
                    "encontrado con gradientes negativos.",
                ),
                lambda: lambda start, end, rate, steps, c_i, c: (end - start) / (rate * steps) + c_i - c,
            ),
            Mistake(
                Text(
                    "That is the sum over all steps. The mean is asked for.",
                    "Eso es la suma de todos los pasos. Se pide la media.",
                ),
                lambda: lambda start, end, rate, steps, c_i, c: (start - end) / rate + c_i - c,
            ),
            Mistake(
                Text(
                    "The rate is missing: a walk is the rate times the sum of the directions.",
                    "Falta la tasa: el recorrido es la tasa por la suma de las direcciones.",
                ),
                lambda: lambda start, end, rate, steps, c_i, c: (start - end) / steps + c_i - c,
            ),
        ),
        Text(
            "{call} gives {got}, and {right} was looked for. Add up num_steps steps: start - end = rate * num_steps * "
            "(mean gradient - c_i + c). Solve it for the mean gradient.",
            "{call} da {got}, y se buscaba {right}. Sume num_steps pasos: start - end = rate * num_steps * (gradiente "
            "medio - c_i + c). Despeje el gradiente medio.",
        ),
    ),
    "2.5": Exercise(
        Number(),
        lambda: unequal_fixed_point(0.0005, 100.0),
        Text(
            "Each minimum counts by curvature *times steps*. There is hardly any drift left at such a rate, and still "
            "the rounds settle far from 2.6: they have minimised another objective, in which Leo counts five times.",
            "Cada mínimo cuenta según la curvatura *por los pasos*. Con una tasa así apenas queda deriva y, sin "
            "embargo, las rondas se estabilizan lejos de 2.6: han minimizado otro objetivo, en el que Leo cuenta "
            "cinco veces.",
        ),
        (
            Mistake(
                Text(
                    "That would be the optimum: it holds if both take equally many steps.",
                    "Ese es el óptimo: ahí se llegaría si los dos dieran el mismo número de pasos.",
                ),
                optimum,
            ),
            Mistake(
                Text(
                    "That is the plain mean of the minima. Nobody trains to the end here: with a tiny rate all walks "
                    "are short.",
                    "Esa es la media simple de los mínimos. Aquí nadie entrena hasta el final: con una tasa diminuta, "
                    "todos los recorridos son cortos.",
                ),
                MINIMA.mean,
            ),
            Mistake(
                Text(
                    "The steps are in it, but not the curvatures.",
                    "Ha tenido en cuenta los pasos, pero no las curvaturas.",
                ),
                lambda: _weighted(UNEQUAL, MINIMA),
            ),
            Mistake(
                Text(
                    "The steps are divided by. That is a remedy already, and too much of it; here nobody corrects "
                    "anything.",
                    "Ha dividido por los pasos. Eso ya es un remedio, y excesivo; aquí nadie corrige nada.",
                ),
                lambda: _weighted(CURVATURES / UNEQUAL, MINIMA),
            ),
            Mistake(
                Text(
                    "The steps count twice here. Did you run `build_weighted_fed_avg`? It weighs clients by what they "
                    "have read; here both count alike.",
                    "Aquí los pasos cuentan dos veces. ¿Ha usado `build_weighted_fed_avg`? Pondera a los clientes "
                    "según lo que han leído; aquí los dos cuentan igual.",
                ),
                lambda: _weighted(CURVATURES * UNEQUAL**2, MINIMA),
            ),
            Mistake(
                Text(
                    "That is where the rate 0.1 settles. Near, but the rate is to go to zero.",
                    "Ahí se estabiliza con la tasa 0.1. Está cerca, pero la tasa tiene que tender a cero.",
                ),
                lambda: unequal_fixed_point(RATE),
            ),
        ),
        Text(
            "Set the sum of the two moves, H a (c - w) with H = 4 for Ana and H = 20 for Leo, to zero, and solve for "
            "w. The rate cancels.",
            "Iguale a cero la suma de los dos avances, H a (c - w), con H = 4 para Ana y H = 20 para Leo, y despeje "
            "w. La tasa se cancela.",
        ),
    ),
    "2.6": Exercise(
        Function("fed_nova_update(updates, num_steps)", tuple(_UPDATES)),
        lambda: fed_nova_update,
        Text(
            "The mean says where to go, by a step's worth of each client; the factor says how far. With equal steps "
            "it is federated averaging again. With momentum or a spring at the clients, steps do not count alike, and "
            "FedNova divides by another number: it has to know what their optimizer does.",
            "La media dice adónde ir, con un paso de cada cliente; el factor dice cuánto. Con el mismo número de "
            "pasos vuelve a ser el promediado federado. Si los clientes tienen inercia o un muelle, los pasos no "
            "valen todos lo mismo y FedNova divide por otro número: tiene que saber qué hace el optimizador del "
            "cliente.",
        ),
        (
            Mistake(
                Text(
                    "That is federated averaging: who takes more steps counts for more.",
                    "Eso es el promediado federado: quien da más pasos cuenta más.",
                ),
                lambda: lambda updates, steps: np.mean(updates),
            ),
            Mistake(
                Text(
                    "The direction is right, but it is only as long as one step. Multiply by the mean number of steps.",
                    "La dirección es correcta, pero solo tiene la longitud de un paso. Multiplique por el número "
                    "medio de pasos.",
                ),
                lambda: lambda updates, steps: np.mean(updates / steps),
            ),
            Mistake(
                Text(
                    "Here the mean is divided by the mean: the ratio between the clients stays as it was. Divide each "
                    "update by its own number first.",
                    "Aquí se ha dividido una media por otra, y la proporción entre clientes queda como estaba. Divida "
                    "primero cada actualización por su propio número de pasos.",
                ),
                lambda: lambda updates, steps: np.mean(updates) / np.mean(steps),
            ),
            Mistake(
                Text(
                    "That weighs updates *by* their steps: twice as much of the ill.",
                    "Así las actualizaciones se ponderan *por* sus pasos: es agravar el mal.",
                ),
                lambda: lambda updates, steps: (updates * steps).sum() / steps.sum(),
            ),
            Mistake(
                Text(
                    "Multiplied by the sum of the steps: a round becomes as long as all clients' steps together.",
                    "Ha multiplicado por la suma de los pasos: la ronda sería tan larga como los pasos de todos "
                    "juntos.",
                ),
                lambda: lambda updates, steps: np.sum(steps) * np.mean(updates / steps),
            ),
        ),
        Text(
            "{call} gives {got}, and FedNova adds {right}. First divide each update by its number of steps; take the "
            "mean; multiply it by the mean number of steps.",
            "{call} da {got}, y FedNova suma {right}. Primero divida cada actualización por su número de pasos; haga "
            "la media; multiplíquela por el número medio de pasos.",
        ),
    ),
    "2.7": Exercise(
        Choice("ABCD"),
        lambda: "D",
        Text(
            "Smaller steps at the clients are shorter walks, which cancel nearer to the optimum; the larger rate at "
            "the server only makes up for the pace. The others work on the mean of the walks, and of zero they all "
            "make zero.",
            "Pasos más pequeños en los clientes son recorridos más cortos, que se compensan más cerca del óptimo; la "
            "tasa mayor del servidor solo devuelve el ritmo. Los demás actúan sobre la media de los recorridos, y con "
            "una media de cero no hacen nada.",
        ),
        (
            Mistake(
                Text(
                    "Momentum adds up past means. When they have been zero for a while, so is the sum.",
                    "La inercia acumula medias anteriores. Cuando llevan un rato siendo cero, la acumulación también "
                    "lo es.",
                ),
                lambda: "A",
            ),
            Mistake(
                Text(
                    "They divide the mean by its usual size. Zero divided by anything remains zero.",
                    "Dividen la media por su tamaño habitual. Cero dividido por lo que sea sigue siendo cero.",
                ),
                lambda: "B",
            ),
            Mistake(
                Text(
                    "That multiplies the mean by 1.5. Lab 1, exercise 1.2, was about the same thing.",
                    "Eso multiplica la media por 1.5. De lo mismo trataba el ejercicio 1.2 de la práctica 1.",
                ),
                lambda: "C",
            ),
        ),
        Text("Choose one of the four.", "Elija una de las cuatro."),
    ),
    "2.8": Exercise(
        Number(units=("kb", "kilobytes?")),
        kilobytes,
        Text(
            "A round of SCAFFOLD costs twice a round of FedAvg, since model and variate go down, and both their "
            "changes come up. For the same bytes FedAvg has twice as many rounds, and is still stuck above: with "
            "twenty steps rounds are not what it lacks.",
            "Una ronda de SCAFFOLD cuesta el doble que una de FedAvg: bajan el modelo y la variable de control, y "
            "suben los cambios de ambos. Con los mismos bytes, FedAvg tiene el doble de rondas y, aun así, se queda "
            "atascado más arriba: con veinte pasos, no son rondas lo que le falta.",
        ),
        (
            Mistake(
                Text(
                    "That is half of it. Either one of the two directions is missing, or the variates that go with "
                    "model and update: look at `table_of_clients` of SCAFFOLD, not of FedAvg.",
                    "Eso es la mitad. O falta uno de los dos sentidos, o faltan las variables de control que "
                    "acompañan al modelo y a la actualización: mire `table_of_clients` para SCAFFOLD, no para FedAvg.",
                ),
                lambda: kilobytes() / 2,
            ),
            Mistake(
                Text(
                    "That is what one client sends and is sent. There are ten of them.",
                    "Eso es lo que envía y recibe un solo cliente. Hay diez.",
                ),
                lambda: kilobytes() / NUM_CLIENTS,
            ),
            Mistake(
                Text(
                    "One of the two directions of FedAvg only, it seems: a quarter of it.",
                    "Es la cuarta parte: parece que solo ha contado un sentido, y con los bytes de FedAvg.",
                ),
                lambda: kilobytes() / 4,
            ),
            Mistake(
                Text(
                    "That is what a single round sends. How many are there until then?",
                    "Eso es lo que se envía en una sola ronda. ¿Cuántas hay hasta entonces?",
                ),
                lambda: kilobytes() / scaffold_on_digits()[0],
            ),
            Mistake(
                Text(
                    "Those are the rounds. Multiply by what a round sends.",
                    "Esas son las rondas. Multiplique por lo que se envía en cada una.",
                ),
                lambda: scaffold_on_digits()[0],
            ),
            Mistake(
                Text(
                    "One round too few: the first entry of `gaps` is what *one* round has reached.",
                    "Falta una ronda: el primer valor de `gaps` es lo que se alcanza con *una* ronda.",
                ),
                lambda: kilobytes() * (1 - 1 / scaffold_on_digits()[0]),
            ),
            Mistake(
                Text(
                    "Those are bytes. A kilobyte has 1000 of them.",
                    "Eso son bytes. Un kilobyte tiene 1000.",
                ),
                lambda: kilobytes() * 1000,
            ),
        ),
        Text(
            'Count the rounds until `gaps("SCAFFOLD")` is below 0.05, and multiply by the sums of both columns of '
            '`table_of_clients("SCAFFOLD")`; divide by 1000.',
            'Cuente las rondas hasta que `gaps("SCAFFOLD")` baja de 0.05 y multiplíquelas por la suma de las dos '
            'columnas de `table_of_clients("SCAFFOLD")`; divida por 1000.',
        ),
    ),
}

"""Lab 1's exercises: heterogeneity and drift."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fedsim_np import analysis
from fedsim_np.datasets import Dataset
from fedsim_np.labs.answers import Choice, Function, Number, YesNo
from fedsim_np.labs.exercises import Exercise, Mistake
from fedsim_np.labs.languages import Text
from fedsim_np.learning import build_weighted_fed_avg, optimizers
from fedsim_np.learning.models import LinearRegression

Vector = npt.NDArray[np.float64]

CURVATURES, MINIMA = np.array([1.0, 0.25]), np.array([3.0, 1.0])
RATE, NUM_ROUNDS, LOCAL_STEPS = 0.1, 10, (1, 2, 5, 10, 20, 50)
_MODEL = LinearRegression(num_features=1)


def clients(curvatures: Vector, minima: Vector) -> list[Dataset]:
    """Return clients of two examples whose losses are a / 2 (w - c)^2."""
    x = [np.array([[np.sqrt(a)], [-np.sqrt(a)]], np.float32) for a in curvatures]
    return [Dataset.from_arrays({"x": of, "y": np.float32(c) * of}).batch(2) for of, c in zip(x, minima, strict=True)]


def optimum(curvatures: Vector = CURVATURES, minima: Vector = MINIMA) -> float:
    """Return the slope at which the mean of the losses is least."""
    return float(analysis.minimize(_MODEL, clients(curvatures, minima)).weights.trainable[0].item())


def fixed_point(curvatures: Vector, minima: Vector, rate: float, local_steps: int) -> float:
    """Return the slope at which FedAvg settles."""
    found = analysis.fed_avg_fixed_point(_MODEL, clients(curvatures, minima), rate, local_steps)
    return float(found.trainable[0].item())


@functools.cache
def best_local_steps() -> int:
    """Return the number of local steps that is nearest to the optimum after ten rounds."""
    gaps = {}
    for steps in LOCAL_STEPS:
        process = build_weighted_fed_avg(_MODEL, optimizers.build_sgdm(RATE))
        cohort = [dataset.repeat(steps) for dataset in clients(CURVATURES, MINIMA)]
        state = process.initialize()
        for _ in range(NUM_ROUNDS):
            state = process.next(state, cohort).state
        gaps[steps] = abs(float(process.get_model_weights(state).trainable[0].item()) - optimum())
    return min(gaps, key=lambda steps: gaps[steps])


def _weighted(weights: Vector, minima: Vector) -> float:
    return float(weights @ minima / weights.sum())


def _extrapolated(at_rate: Vector, at_half_rate: Vector) -> Vector:
    return 2 * at_half_rate - at_rate


_FIXED_POINTS: Sequence[tuple[Vector, Vector, float, int]] = (
    (CURVATURES, MINIMA, RATE, 10),
    (np.array([0.5, 1.0, 2.0]), np.array([1.0, 2.0, -1.0]), 0.2, 7),
    (CURVATURES, MINIMA, 0.5, 1),
)

EXERCISES = {
    "1.1": Exercise(
        Number(),
        optimum,
        Text(
            "The derivative of the mean is zero at {got}: the mean of the two minima, in which each counts by its "
            "*curvature*, 1 and 0.25. Gradient descent weighs them so without being told. Averaging models is another "
            "matter: there a client counts by the number of its examples.",
            "La derivada de la media se anula en {got}: es la media de los dos mínimos, en la que cada uno cuenta "
            "según su *curvatura*, 1 y 0.25. El descenso de gradiente los pondera así sin que nadie se lo diga. "
            "Promediar modelos es otra cosa: ahí un cliente cuenta según su número de ejemplos.",
        ),
        (
            Mistake(
                Text(
                    "That is the plain mean of the minima. It would be the optimum if both parabolas were equally "
                    "steep; look at which of them rises faster.",
                    "Esa es la media simple de los mínimos. Sería el óptimo si las dos parábolas fueran igual de "
                    "empinadas; fíjese en cuál sube más deprisa.",
                ),
                MINIMA.mean,
            ),
            Mistake(
                Text(
                    "Here the minima are weighted by the size of the inputs. The loss is a square: so is the weight.",
                    "Aquí los mínimos se han ponderado por el tamaño de las entradas. La pérdida es un cuadrado, y el "
                    "peso también lo es.",
                ),
                lambda: _weighted(np.sqrt(CURVATURES), MINIMA),
            ),
            Mistake(
                Text(
                    "That is where one client's own loss is least. The objective is the mean of both losses.",
                    "Ahí es mínima la pérdida de un solo cliente. El objetivo es la media de las dos pérdidas.",
                ),
                when=lambda got: bool(np.isclose(got, MINIMA).any()),
            ),
            Mistake(
                Text(
                    "The weights are the wrong way round: the steeper loss, Ana's, pulls more and not less.",
                    "Los pesos están al revés: la pérdida más empinada, la de Ana, tira más, no menos.",
                ),
                lambda: _weighted(1 / CURVATURES, MINIMA),
            ),
            Mistake(
                Text(
                    "Outside the two clients' minima, 1 and 3, both losses rise: the optimum lies between them.",
                    "Fuera del intervalo entre los dos mínimos, 1 y 3, suben las dos pérdidas: el óptimo está dentro.",
                ),
                when=lambda got: not MINIMA.min() <= got <= MINIMA.max(),
            ),
        ),
        Text(
            "Write the derivative of each loss, a (w - c), add them up, and ask where the sum is zero.",
            "Escriba la derivada de cada pérdida, a (w - c), súmelas y vea dónde se anula la suma.",
        ),
    ),
    "1.2": Exercise(
        Choice("ABCD"),
        lambda: "C",
        Text(
            "The place where the rounds settle is decided by what a round does, that is, by the local steps and their "
            "rate. Everything else only changes how fast one gets there.",
            "El lugar donde se estabilizan las rondas lo decide lo que se hace en una ronda, es decir, los pasos "
            "locales y su tasa. Todo lo demás solo cambia lo deprisa que se llega.",
        ),
        (
            Mistake(
                Text(
                    "The curve has been flat for a long time. Give `slopes` more rounds and look: the last digits do "
                    "not change. It has not failed to arrive, it has arrived somewhere else.",
                    "Hace tiempo que la curva es plana. Dele más rondas a `slopes` y lo verá: ni la última cifra "
                    "cambia. No es que no haya llegado: ha llegado a otro sitio.",
                ),
                lambda: "A",
            ),
            Mistake(
                Text(
                    "The server's rate multiplies the mean of the updates. Where that mean is zero, it stays zero "
                    "whatever it is multiplied by: the rounds take longer to come to the same place.",
                    "La tasa del servidor multiplica la media de las actualizaciones. Donde esa media es cero, sigue "
                    "siendo cero, se multiplique por lo que se multiplique: se tarda más en llegar al mismo sitio.",
                ),
                lambda: "B",
            ),
            Mistake(
                Text(
                    "More measurements of the same kind leave both parabolas as they are, and only they matter here: "
                    "nothing in this lab is noise.",
                    "Con más mediciones del mismo tipo las dos parábolas quedan como están, y aquí solo importan "
                    "ellas: en esta práctica no hay ruido.",
                ),
                lambda: "D",
            ),
        ),
        Text("Choose one of the four.", "Elija una de las cuatro."),
    ),
    "1.3": Exercise(
        YesNo(),
        lambda: abs(fixed_point(np.ones(2), MINIMA, RATE, 10) - optimum(np.ones(2), MINIMA)) > 1e-6,
        Text(
            "With equal curvatures both walk the same share of their way, however many steps they take, and the mean "
            "of their models walks that share of the way to the optimum. That clients want different things is not "
            "enough for averaging to be wrong: they must also go there at different speeds.",
            "Con la misma curvatura, los dos recorren la misma fracción de su camino, den los pasos que den, y la "
            "media de sus modelos recorre esa fracción del camino hacia el óptimo. Que los clientes quieran cosas "
            "distintas no basta para que promediar falle: además tienen que avanzar a velocidades distintas.",
        ),
        (
            Mistake(
                Text(
                    "Try it: `client(1.0, slope=1.0)` for Leo, and run the cells again. Where are the rounds then, and "
                    "where is the optimum, which has moved too?",
                    "Pruébelo: ponga `client(1.0, slope=1.0)` para Leo y vuelva a ejecutar las celdas. ¿Dónde acaban "
                    "ahora las rondas, y dónde está el óptimo, que también se ha movido?",
                ),
                lambda: True,
            ),
        ),
        Text("Answer yes or no.", "Responda sí o no."),
    ),
    "1.4": Exercise(
        Function("fixed_point(curvatures, minima, rate, local_steps)", tuple(_FIXED_POINTS)),
        lambda: fixed_point,
        Text(
            "It agrees with the library's `fed_avg_fixed_point`, where the same is done with matrices. The share of "
            "the way that a client walks, 1 - (1 - s a)^H, has taken the place of its curvature; with one step it is "
            "s a, and the optimum is back.",
            "Coincide con `fed_avg_fixed_point`, que hace lo mismo con matrices. La fracción del camino que recorre un "
            "cliente, 1 - (1 - s a)^H, ocupa el lugar de su curvatura; con un solo paso vale s a, y vuelve a salir el "
            "óptimo.",
        ),
        (
            Mistake(
                Text(
                    "That is the optimum: each minimum counts by its curvature. It is where one step settles; with "
                    "more of them a client moves less far than that many times its first step (look at Ana's curve).",
                    "Eso es el óptimo: cada mínimo cuenta según su curvatura. Ahí se estabiliza con un solo paso; con "
                    "más, un cliente avanza menos que ese número de veces su primer paso (mire la curva de Ana).",
                ),
                lambda: lambda a, c, rate, steps: _weighted(a, c),
            ),
            Mistake(
                Text(
                    "That is the plain mean of the minima, where infinitely many steps settle. The rate and the number "
                    "of steps have to come in.",
                    "Eso es la media simple de los mínimos, donde se estabilizaría con infinitos pasos. Tienen que "
                    "intervenir la tasa y el número de pasos.",
                ),
                lambda: lambda a, c, rate, steps: c.mean(),
            ),
            Mistake(
                Text(
                    "(1 - s a)^H is the share of the way that is still *left*. A client counts by what it has walked.",
                    "(1 - s a)^H es la fracción del camino que *queda*. Un cliente cuenta por lo que ha recorrido.",
                ),
                lambda: lambda a, c, rate, steps: _weighted((1 - rate * a) ** steps, c),
            ),
            Mistake(
                Text(
                    "The rate is missing: a step leaves 1 - s a of the way, not 1 - a.",
                    "Falta la tasa: un paso deja 1 - s a del camino, no 1 - a.",
                ),
                lambda: lambda a, c, rate, steps: _weighted(1 - (1 - a) ** steps, c),
            ),
            Mistake(
                Text(
                    "That is the sum of the moves; divide it by the sum of the shares, or nothing is averaged.",
                    "Eso es la suma de los avances; hay que dividirla por la suma de las fracciones o no habrá media.",
                ),
                lambda: lambda a, c, rate, steps: (1 - (1 - rate * a) ** steps) @ c,
            ),
        ),
        Text(
            "{call} gives {got}, and the rounds settle at {right}. Write how far each client moves from w, "
            "(1 - (1 - s a)^H) (c - w), set the sum of these moves to zero, and solve for w.",
            "{call} da {got}, y las rondas se estabilizan en {right}. Escriba cuánto se mueve cada cliente desde w, "
            "(1 - (1 - s a)^H) (c - w), iguale a cero la suma de todos y despeje w.",
        ),
    ),
    "1.5": Exercise(
        Number(),
        lambda: fixed_point(CURVATURES, MINIMA, RATE, 10_000),
        Text(
            "Everybody trains to the end, and the server averages what comes back: one round says it all, and no "
            "further round changes anything. It is the answer to a different question from the one that was asked.",
            "Cada cliente entrena hasta el final y el servidor promedia lo que vuelve: con una ronda está todo dicho y "
            "ninguna otra cambia nada. Es la respuesta a una pregunta distinta de la que se hizo.",
        ),
        (
            Mistake(
                Text(
                    "That is the optimum, where *one* local step settles. What is (1 - s a)^H for a very large H?",
                    "Eso es el óptimo, donde se estabiliza con *un* paso local. ¿Cuánto vale (1 - s a)^H si H es muy "
                    "grande?",
                ),
                optimum,
            ),
            Mistake(
                Text(
                    "Leo is the slower one, but he is not the last to have a say: both arrive, and both count alike.",
                    "Leo es el más lento, pero no es el único que cuenta: llegan los dos, y los dos cuentan igual.",
                ),
                lambda: MINIMA[1],
            ),
            Mistake(
                Text(
                    "Ana arrives first, but Leo arrives too if he may take as many steps as he likes.",
                    "Ana llega antes, pero Leo también llega si puede dar todos los pasos que quiera.",
                ),
                lambda: MINIMA[0],
            ),
        ),
        Text(
            "Where is each client after very many steps of its own? And what is the mean of these two?",
            "¿Dónde está cada cliente después de muchísimos pasos propios? ¿Y cuál es la media de los dos?",
        ),
    ),
    "1.6": Exercise(
        Number(0.0, 0.0, units=("local", "steps?", "pasos?", "locales")),
        best_local_steps,
        Text(
            "Fewer steps have not arrived yet, more have arrived at the wrong place. Rounds are what federated "
            "learning pays for, so this is the trade that everybody makes: the more rounds you can afford, the fewer "
            "local steps you should take.",
            "Con menos pasos aún no se ha llegado; con más, se ha llegado a donde no era. Lo caro en el aprendizaje "
            "federado son las rondas, así que es un compromiso inevitable: cuantas más rondas pueda permitirse, menos "
            "pasos locales conviene dar.",
        ),
        (
            Mistake(
                Text(
                    "One step would win if there were rounds without end. After ten it is still on its way: print the "
                    "last slope.",
                    "Un paso ganaría si hubiera infinitas rondas. Con diez todavía va de camino: imprima la última "
                    "pendiente.",
                ),
                lambda: 1,
            ),
            Mistake(
                Text(
                    "It is the fastest to settle, but where? Compare the distance from the optimum, not from the last "
                    "round.",
                    "Es el que antes se estabiliza, pero ¿dónde? Compare la distancia hasta el óptimo, no hasta la "
                    "ronda anterior.",
                ),
                lambda: 50,
            ),
            Mistake(
                Text(
                    "Choose one of the six: 1, 2, 5, 10, 20 or 50 local steps.",
                    "Elija uno de los seis: 1, 2, 5, 10, 20 o 50 pasos locales.",
                ),
                when=lambda got: got not in LOCAL_STEPS,
            ),
        ),
        Text(
            "There is one that comes nearer. For each of the six, take the last of "
            "`slopes(local_steps, num_rounds=10)` and its distance from `optimum`.",
            "Hay otro que se acerca más. Para cada uno de los seis, tome el último valor de "
            "`slopes(local_steps, num_rounds=10)` y su distancia hasta `optimum`.",
        ),
    ),
    "1.7": Exercise(
        Choice("ABC"),
        lambda: "B",
        Text(
            "At the optimum the gradients cancel; they do not vanish. Every client leaves at once, each in its own "
            "direction, and after several steps what cancelled does not cancel any more. Zeta squared is how hard they "
            "pull, and it is what the bounds on FedAvg's error have in them.",
            "En el óptimo los gradientes se compensan, pero no son cero. Todos los clientes se marchan enseguida, cada "
            "uno en su dirección, y al cabo de varios pasos lo que se compensaba ya no se compensa. Zeta al cuadrado "
            "dice con cuánta fuerza tiran, y es lo que aparece en las cotas del error de FedAvg.",
        ),
        (
            Mistake(
                Text(
                    "It is the optimum: the gradient of the *mean* is below 1e-8, `minimize` sees to it. Zeta squared "
                    "speaks of each client's own gradient.",
                    "Sí es el óptimo: el gradiente de la *media* está por debajo de 1e-8; de eso se ocupa `minimize`. "
                    "Zeta al cuadrado habla del gradiente propio de cada cliente.",
                ),
                lambda: "A",
            ),
            Mistake(
                Text(
                    "There are no small batches here: every step reads all examples of a client, and nothing is drawn.",
                    "Aquí no hay lotes pequeños: cada paso lee todos los ejemplos del cliente, sin azar alguno.",
                ),
                lambda: "C",
            ),
        ),
        Text("Choose one of the three.", "Elija una de las tres."),
    ),
    "1.8": Exercise(
        Function(
            "extrapolate(at_rate, at_half_rate)",
            ((2.489, 2.55), (np.array([1.0, -2.0]), np.array([0.75, 4.0])), (0.0, 1.0)),
        ),
        lambda: _extrapolated,
        Text(
            "The error that is proportional to the rate is the same in both, twice as large in the first: it cancels, "
            "and what is left shrinks by nearly four where the rate is halved. It is called Richardson-Romberg "
            "extrapolation, and costs two trainings, but no other algorithm.",
            "El error proporcional a la tasa está en los dos, en el primero el doble de grande: se cancela, y lo que "
            "queda se divide casi por cuatro cuando la tasa se divide por dos. Se llama extrapolación de "
            "Richardson-Romberg y cuesta dos entrenamientos, pero ningún algoritmo nuevo.",
        ),
        (
            Mistake(
                Text(
                    "Both errors point the same way: a mean lies between the two, and the optimum beyond the second.",
                    "Los dos errores apuntan en el mismo sentido: la media queda entre ambos, y el óptimo, más allá "
                    "del segundo.",
                ),
                lambda: lambda full, half: (full + half) / 2,
            ),
            Mistake(
                Text(
                    "The wrong way: this goes from the better of the two to the worse, and on.",
                    "Es el sentido contrario: así se va del mejor de los dos al peor, y más allá.",
                ),
                lambda: lambda full, half: 2 * full - half,
            ),
            Mistake(
                Text(
                    "The half rate alone halves the error. With both at hand all of it can go.",
                    "Con la mitad de la tasa, el error se queda en la mitad. Con los dos se puede eliminar.",
                ),
                lambda: lambda full, half: half,
            ),
            Mistake(
                Text(
                    "This is the error itself (half of it, or all). Take it away from one of the two.",
                    "Eso es el propio error (la mitad o todo). Réstelo de uno de los dos.",
                ),
                lambda: lambda full, half: full - half,
            ),
        ),
        Text(
            "{call} gives {got}, and {right} was looked for. Write the first as w + e and the second as w + e / 2, "
            "and find w.",
            "{call} da {got}, y se buscaba {right}. Escriba el primero como w + e, el segundo como w + e / 2 y "
            "despeje w.",
        ),
    ),
}

"""Lab 3's exercises: participation, fairness, personalisation."""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

from fedsim_np import analysis
from fedsim_np.datasets import InMemoryClientData
from fedsim_np.labs.answers import Function, Number
from fedsim_np.labs.exercises import Exercise, Mistake
from fedsim_np.labs.languages import Text
from fedsim_np.learning import build_weighted_fed_avg, optimizers
from fedsim_np.learning.models import LinearRegression
from fedsim_np.program import build_power_of_choice_sampling_fn, client_losses_fn

Vector = npt.NDArray[np.float64]

PUPILS, MINUTES = np.array([40, 20, 20, 10, 10]), np.array([10.0, 12.0, 8.0, 20.0, 40.0])
VILLAGE = 4
SIGMA, TAU = 12.0, 4.0
_MODEL = LinearRegression(num_features=1)


def schools() -> InMemoryClientData:
    """Return the five schools, each with its mean for every pupil."""
    return InMemoryClientData(
        {
            str(i): {"x": np.zeros((count, 1), np.float32), "y": np.full((count, 1), mean, np.float32)}
            for i, (count, mean) in enumerate(zip(PUPILS, MINUTES, strict=True))
        }
    )


def pupils_mean(without: int | None = None) -> float:
    """Return where the mean loss of all pupils is least, or of all but those of one school."""
    data = schools()
    batches = [data.create_dataset_for_client(str(i)).batch(100) for i in range(len(PUPILS)) if i != without]
    return float(analysis.minimize(_MODEL, batches).weights.trainable[1].item())


def schools_mean() -> float:
    """Return the mean of the schools' own optima."""
    data = schools()
    batches = [data.create_dataset_for_client(str(i)).batch(100) for i in range(len(PUPILS))]
    return float(np.mean([found.weights.trainable[1].item() for found in analysis.minimize_each(_MODEL, batches)]))


def with_village_half_the_time() -> float:
    """Return the average of the means with the village and without."""
    return (pupils_mean() + pupils_mean(without=VILLAGE)) / 2


@functools.cache
def loudest_first() -> float:
    """Return around which number rounds settle that take the school with the largest loss."""
    data = schools()
    choose = build_power_of_choice_sampling_fn(data, lambda d: d.batch(100), client_losses_fn(_MODEL), len(PUPILS))
    process = build_weighted_fed_avg(_MODEL, optimizers.build_sgdm(1.0), optimizers.build_sgdm(0.1))
    state, found = process.initialize(), []
    for round_num in range(40):
        cohort = [data.create_dataset_for_client(school).batch(100) for school in choose(round_num, 1, state)]
        state = process.next(state, cohort).state
        found.append(float(process.get_model_weights(state).trainable[1].item()))
    return float(np.mean(found[20:]))


def _weights(pupils: Vector, chances: Vector) -> Vector:
    shares: Vector = pupils / pupils.sum()
    return shares / chances


def _worst_tenth(of_clients: Vector) -> float:
    return float(np.sort(of_clients)[: len(of_clients) // 10].mean())


def _best_lambda(sigma: float, tau: float, n: int) -> float:
    return sigma**2 / (n * tau**2)


_CHANCES = (
    (PUPILS, np.full(5, 0.2)),
    (PUPILS, PUPILS / 100),
    (np.array([30, 10]), np.array([0.5, 0.5])),
    (np.array([1, 1, 2]), np.array([0.2, 0.4, 0.4])),
)
_ACCURACIES = (
    (np.array([0.9, 0.7, 0.2, 0.8, 0.6, 0.85, 0.4, 0.75, 0.95, 0.5]),),
    (np.array([0.8, 0.3, 0.9, 0.7, 0.1, 0.6, 0.5, 0.95, 0.85, 0.65] * 2) + np.repeat([0.0, 0.02], 10),),
)
_MINUTES = ("minutes?", "minutos?", "min")

EXERCISES = {
    "3.1": Exercise(
        Number(units=_MINUTES),
        pupils_mean,
        Text(
            "The mean of all 100 pupils is {got}: every school counts by its size. It is what federated averaging is "
            "after, and only one of several things that one may want. Keep the number in mind.",
            "La media de los 100 alumnos es {got}: cada escuela cuenta según su tamaño. Eso es lo que busca el "
            "promediado federado, y solo es una de las cosas que cabe querer. No pierda de vista este número.",
        ),
        (
            Mistake(
                Text(
                    "That is the mean of the five schools. North has four times as many pupils as the village: they "
                    "all have a say.",
                    "Esa es la media de las cinco escuelas. La del norte tiene cuatro veces más alumnos que la del "
                    "pueblo, y todos cuentan.",
                ),
                schools_mean,
            ),
            Mistake(
                Text(
                    "That is the middle between the least and the largest. A squared loss asks for a mean.",
                    "Ese es el punto medio entre el menor y el mayor. Una pérdida cuadrática pide una media.",
                ),
                lambda: (MINUTES.min() + MINUTES.max()) / 2,
            ),
            Mistake(
                Text(
                    "That is the median, which minimises the absolute error. Here the error is squared.",
                    "Esa es la mediana, que minimiza el error absoluto. Aquí el error va al cuadrado.",
                ),
                lambda: np.median(np.repeat(MINUTES, PUPILS)),
            ),
            Mistake(
                Text(
                    "That is the sum of the minutes of all pupils. Divide it by how many they are.",
                    "Esa es la suma de los minutos de todos los alumnos. Divídala por cuántos son.",
                ),
                lambda: PUPILS @ MINUTES,
            ),
        ),
        Text(
            "The number with the least mean squared error is a mean. Of whom? Each pupil counts once.",
            "El número con menor error cuadrático medio es una media. ¿De quiénes? Cada alumno cuenta una vez.",
        ),
    ),
    "3.2": Exercise(
        Number(units=_MINUTES),
        schools_mean,
        Text(
            "A weighted mean of one is that one, whatever its weight: counting by size does nothing, and every school "
            "is drawn as often as the others. So the village counts as much as north, which has four times as many "
            "pupils. With larger cohorts the weights come back to life, as you see next.",
            "La media ponderada de una sola escuela es esa escuela, pese lo que pese: contar según el tamaño no sirve "
            "de nada, y todas salen elegidas con la misma frecuencia. Así, el pueblo cuenta tanto como el norte, que "
            "tiene cuatro veces más alumnos. Con cohortes mayores los pesos vuelven a actuar, como verá enseguida.",
        ),
        (
            Mistake(
                Text(
                    "That is the pupils' mean. But what does FedAvg do with the weight of a school that is alone in "
                    "its round? It divides by the sum of the weights.",
                    "Esa es la media de los alumnos. Pero ¿qué hace FedAvg con el peso de una escuela que está sola en "
                    "su ronda? Divide por la suma de los pesos.",
                ),
                pupils_mean,
            ),
            Mistake(
                Text(
                    "That is the middle between the extremes. All five are drawn, each as likely as the others.",
                    "Ese es el punto medio entre los extremos. Se eligen las cinco, todas con la misma probabilidad.",
                ),
                lambda: (MINUTES.min() + MINUTES.max()) / 2,
            ),
        ),
        Text(
            "With one school in the round, to which number does the server go? It is another one each time: average "
            "over the five schools that it can be.",
            "Si en la ronda hay una sola escuela, ¿hacia qué número va el servidor? Cada vez es otro: promedie sobre "
            "las cinco escuelas que pueden salir.",
        ),
    ),
    "3.3": Exercise(
        Function("weights(pupils, chances)", _CHANCES),
        lambda: _weights,
        Text(
            "Share over chance: what is drawn seldom has to count for more when it is. Drawn by size it is 1 for all, "
            "which is why one counts alike then; drawn evenly it is five times the share, 2 for north and 0.5 for the "
            "village. The same formula mends any known chance, also that of a client which does not always answer. "
            "Only a chance of zero cannot be mended.",
            "Cuota entre probabilidad: lo que sale pocas veces tiene que contar más cuando sale. Si se elige según el "
            "tamaño, vale 1 para todas, y por eso entonces se cuenta a todas igual; si se elige por igual, es cinco "
            "veces la cuota: 2 para el norte y 0.5 para el pueblo. La misma fórmula corrige cualquier probabilidad "
            "conocida, también la de un cliente que no siempre contesta. Solo una probabilidad cero no tiene arreglo.",
        ),
        (
            Mistake(
                Text(
                    "These are the shares alone. A school that is drawn by its size would then count by size twice: "
                    "the chances have to come in.",
                    "Estas son solo las cuotas. Si la escuela se elige según su tamaño, este contaría dos veces: "
                    "tienen que intervenir las probabilidades.",
                ),
                lambda: lambda pupils, chances: pupils / pupils.sum(),
            ),
            Mistake(
                Text(
                    "One over the chance makes up for the drawing, but where is the size of the school? And the sum of "
                    "the shares must be 1.",
                    "El inverso de la probabilidad compensa el sorteo, pero ¿dónde está el tamaño de la escuela? "
                    "Además, las cuotas deben sumar 1.",
                ),
                lambda: lambda pupils, chances: 1 / chances,
            ),
            Mistake(
                Text(
                    "This counts all schools alike, whatever their size: its average is the schools' mean.",
                    "Así cuentan igual todas las escuelas, sea cual sea su tamaño: en promedio sale la media de las "
                    "escuelas.",
                ),
                lambda: lambda pupils, chances: 1 / (len(pupils) * chances),
            ),
            Mistake(
                Text(
                    "The wrong way up: with it those that are drawn often would count for even more.",
                    "Está al revés: así contarían todavía más las que salen a menudo.",
                ),
                lambda: lambda pupils, chances: chances * pupils.sum() / pupils,
            ),
            Mistake(
                Text(
                    "Almost: the pupils have to be shares, that is, divided by the sum of all pupils.",
                    "Casi: en lugar del número de alumnos hace falta la cuota, es decir, dividir por el total.",
                ),
                lambda: lambda pupils, chances: pupils / chances,
            ),
            Mistake(
                Text(
                    "Share times chance is what a school counts for if it is counted by size *and* drawn. Undo the "
                    "drawing.",
                    "Cuota por probabilidad es lo que cuenta una escuela a la que se pondera por su tamaño *y* se "
                    "sortea. Hay que deshacer el efecto del sorteo.",
                ),
                lambda: lambda pupils, chances: pupils / pupils.sum() * chances,
            ),
        ),
        Text(
            "{call} gives {got}, and should give {right}. On average, school i contributes chance times weight times "
            "answer. That must be its share of the pupils times its answer: solve for the weight.",
            "{call} da {got} y debería dar {right}. En promedio, la escuela i aporta probabilidad por peso por "
            "respuesta. Eso ha de ser su cuota de alumnos por su respuesta: despeje el peso.",
        ),
    ),
    "3.4": Exercise(
        Number(0.005, units=_MINUTES),
        with_village_half_the_time,
        Text(
            "Half-way between the mean of all and the mean without the village. Those who come seldom count for "
            "little, and more rounds do not help. Exercise 3.3 says what does: count the village twice whenever it "
            "comes. That gives 13.7, and not quite 14, because FedAvg divides by the weights that are there. If it "
            "never came, no weight could help.",
            "A medio camino entre la media de todas y la media sin el pueblo. Quien viene poco cuenta poco, y eso no "
            "se arregla con más rondas. El ejercicio 3.3 dice con qué: contar el pueblo dos veces cuando viene. Así "
            "sale 13.7, no del todo 14, porque FedAvg divide por los pesos que están. Si no viniera nunca, no habría "
            "peso que valiera.",
        ),
        (
            Mistake(
                Text(
                    "That would be so if absence averaged out. But when the village is missing, nobody takes its "
                    "place: these rounds pull to another mean.",
                    "Así sería si las ausencias se compensaran. Pero cuando falta el pueblo nadie ocupa su lugar: esas "
                    "rondas tiran hacia otra media.",
                ),
                pupils_mean,
            ),
            Mistake(
                Text(
                    "That is the mean of the rounds in which the village is missing. In the other half it is there.",
                    "Esa es la media de las rondas en las que falta el pueblo. En la otra mitad está.",
                ),
                lambda: pupils_mean(without=VILLAGE),
            ),
            Mistake(
                Text(
                    "You have counted the village as half as many pupils. That is near, but the mean is divided by "
                    "those who are there: average the two kinds of rounds instead.",
                    "Ha contado el pueblo como si tuviera la mitad de alumnos. Se acerca, pero la media se divide por "
                    "quienes están: promedie los dos tipos de ronda.",
                ),
                lambda: np.average(MINUTES, weights=[40, 20, 20, 10, 5]),
            ),
            Mistake(
                Text(
                    "These are means of schools. FedAvg counts those who are there by their pupils.",
                    "Son medias de escuelas. FedAvg cuenta a quienes están según sus alumnos.",
                ),
                lambda: (MINUTES.mean() + MINUTES[:VILLAGE].mean()) / 2,
            ),
        ),
        Text(
            "There are two kinds of rounds, equally many of each. What is the pupils' mean with the village, and what "
            "without? Average the two.",
            "Hay dos tipos de ronda, tantas de uno como de otro. ¿Cuánto vale la media de los alumnos con el pueblo? "
            "¿Y sin él? Promedie las dos.",
        ),
    ),
    "3.5": Exercise(
        Number(0.05, units=_MINUTES),
        loudest_first,
        Text(
            "It swings around 24, the middle between the least and the largest, where the two worst-served schools "
            "complain equally. Sizes have dropped out altogether, and so have the three schools in the middle. It is "
            "where the largest loss is least: a good answer, but to another question.",
            "Oscila en torno a 24, el punto medio entre el menor y el mayor, donde las dos escuelas peor servidas se "
            "quejan por igual. Los tamaños han dejado de contar, y también las tres escuelas de en medio. Ahí es "
            "mínima la mayor de las pérdidas: una buena respuesta, pero a otra pregunta.",
        ),
        (
            Mistake(
                Text(
                    "It comes by there, in the fourth round. But even there the village has the largest loss.",
                    "Pasa por ahí, en la cuarta ronda. Pero también ahí es el pueblo quien tiene la mayor pérdida.",
                ),
                pupils_mean,
            ),
            Mistake(
                Text(
                    "The village is the loudest as long as w is small. Suppose that w were 40: whose loss would be the "
                    "largest then?",
                    "El pueblo es el que más se queja mientras w es pequeño. Suponga que w fuera 40: ¿de quién sería "
                    "entonces la mayor pérdida?",
                ),
                MINUTES.max,
            ),
            Mistake(
                Text(
                    "That would be so if all five were drawn equally often. See who is drawn: put "
                    "`print(largest_loss(round_num, 1, state))` into `loudest`.",
                    "Así sería si las cinco salieran con la misma frecuencia. Vea quién sale: añada "
                    "`print(largest_loss(round_num, 1, state))` a `loudest`.",
                ),
                schools_mean,
            ),
        ),
        Text(
            "Run `rounds(loudest)` and look at its last values. Between which two numbers does it swing, and which two "
            "schools does it hear?",
            "Ejecute `rounds(loudest)` y mire los últimos valores. ¿Entre qué dos números oscila, y a qué dos escuelas "
            "escucha?",
        ),
    ),
    "3.6": Exercise(
        Function("worst_tenth(of_clients)", _ACCURACIES),
        lambda: _worst_tenth,
        Text(
            "It needs a figure for every client, and it says more than the lowest alone, which with few examples is "
            "often bad luck. Report it beside the mean: two trainings with nearly the same mean can differ in it by a "
            "factor of two and more, as here.",
            "Exige una cifra por cliente y dice más que el mínimo por sí solo, que con pocos ejemplos es muchas veces "
            "mala suerte. Publíquela junto a la media: dos entrenamientos con casi la misma media pueden diferir en "
            "ella en un factor de dos o más, como aquí.",
        ),
        (
            Mistake(
                Text(
                    "That is a quantile: the accuracy below which the worst tenth lies. The mean of those below is "
                    "asked for.",
                    "Eso es un cuantil: la exactitud por debajo de la cual queda el peor diez por ciento. Se pide la "
                    "media de los que quedan por debajo.",
                ),
                lambda: lambda accuracies: np.quantile(accuracies, 0.1),
            ),
            Mistake(
                Text(
                    "That is the worst client. Of twenty clients the worst tenth is two.",
                    "Ese es el peor cliente. De veinte clientes, la peor décima parte son dos.",
                ),
                lambda: np.min,
            ),
            Mistake(
                Text(
                    "That is the *best* tenth: `np.sort` puts the smallest first.",
                    "Esa es la *mejor* décima parte: `np.sort` pone primero los valores menores.",
                ),
                lambda: lambda accuracies: np.sort(accuracies)[-(len(accuracies) // 10) :].mean(),
            ),
            Mistake(
                Text(
                    "That is the first tenth as the clients happen to come. Put them in order.",
                    "Esa es la primera décima parte según llegan los clientes. Ordénelos antes.",
                ),
                lambda: lambda accuracies: accuracies[: len(accuracies) // 10].mean(),
            ),
            Mistake(
                Text(
                    "That is the sum of the worst tenth. Divide by how many they are.",
                    "Esa es la suma de la peor décima parte. Divida por cuántos son.",
                ),
                lambda: lambda accuracies: np.sort(accuracies)[: len(accuracies) // 10].sum(),
            ),
        ),
        Text(
            "{call} gives {got}, and should give {right}. Put the accuracies in order, take a tenth of them from the "
            "lower end, and average.",
            "{call} da {got} y debería dar {right}. Ordene las exactitudes, tome por el extremo inferior la décima "
            "parte y promedie.",
        ),
    ),
    "3.7": Exercise(
        Number(units=("pupils?", "alumnos?")),
        lambda: SIGMA**2 / TAU**2,
        Text(
            "With fewer than {got} pupils a school is better served by the others' mean, with more by its own. So it "
            "is the clients with little data that gain most from the others, and all of them do where clients hardly "
            "differ.",
            "Con menos de {got} alumnos, a una escuela le sirve más la media de las demás; con más, la suya. Quienes "
            "más ganan con los otros son, pues, los clientes con pocos datos; y si los clientes apenas se diferencian, "
            "ganan todos.",
        ),
        (
            Mistake(
                Text(
                    "The errors are squares: compare the variances, not the standard deviations.",
                    "Los errores son cuadrados: compare las varianzas, no las desviaciones típicas.",
                ),
                lambda: SIGMA / TAU,
            ),
            Mistake(
                Text(
                    "The wrong way up. Noisier pupils need more of them.",
                    "Está al revés. Cuanto más varían los alumnos, más hacen falta.",
                ),
                lambda: TAU**2 / SIGMA**2,
            ),
            Mistake(
                Text(
                    "That is the pupils' variance over tau, but tau is a standard deviation: square it too.",
                    "Eso es la varianza de los alumnos entre tau, pero tau es una desviación típica: elévela también "
                    "al cuadrado.",
                ),
                lambda: SIGMA**2 / TAU,
            ),
        ),
        Text(
            "Write down both errors, one with n and one without, and set them equal.",
            "Escriba los dos errores, uno con n y otro sin n, e iguálelos.",
        ),
    ),
    "3.8": Exercise(
        Function("best_lambda(sigma, tau, n)", ((12.0, 4.0, 9), (12.0, 4.0, 3), (1.0, 2.0, 5))),
        lambda: _best_lambda,
        Text(
            "The noise of the own mean over the spread of the schools: 1 where both are equally good, and then the "
            "best is the plain middle of the two. It is below both ends of the valley, so personalisation is not all "
            "or nothing. That the formula holds for the mean of any number of schools, also of ten, is in the paper.",
            "El ruido de la media propia entre la dispersión de las escuelas: vale 1 cuando las dos son igual de "
            "buenas, y entonces lo mejor es el punto medio. El error es menor que en los dos extremos del valle, así "
            "que personalizar no es todo o nada. El artículo demuestra que la fórmula vale para la media de cualquier "
            "número de escuelas, también de diez.",
        ),
        (
            Mistake(
                Text(
                    "The wrong way up: with it, schools that differ much would be held *nearer* to the common number.",
                    "Está al revés: así, las escuelas muy distintas quedarían *más* sujetas al número común.",
                ),
                lambda: lambda sigma, tau, n: n * tau**2 / sigma**2,
            ),
            Mistake(
                Text(
                    "That is the number of pupils of exercise 3.7. Lambda has to fall as a school asks more pupils.",
                    "Ese es el número de alumnos del ejercicio 3.7. Lambda tiene que disminuir si se pregunta a "
                    "más alumnos.",
                ),
                lambda: lambda sigma, tau, n: sigma**2 / tau**2,
            ),
            Mistake(
                Text(
                    "Standard deviations again: it is variances that add up.",
                    "Otra vez las desviaciones típicas: las que se suman son las varianzas.",
                ),
                lambda: lambda sigma, tau, n: sigma / (np.sqrt(n) * tau),
            ),
            Mistake(
                Text(
                    "That is the common number's *share*, lambda / (1 + lambda), and a good one. Which lambda gives "
                    "it?",
                    "Esa es la *parte* del número común, lambda / (1 + lambda), y está bien. ¿Qué lambda la da?",
                ),
                lambda: lambda sigma, tau, n: sigma**2 / (sigma**2 + n * tau**2),
            ),
            Mistake(
                Text(
                    "The noise counts once for each pupil here; in a mean of n it is divided by n.",
                    "Aquí el ruido se multiplica por cada alumno; en una media de n se divide por n.",
                ),
                lambda: lambda sigma, tau, n: n * sigma**2 / tau**2,
            ),
        ),
        Text(
            "{call} gives {got}, and the error is least at {right}. The two parts do not know of each other, so their "
            "mean squares add up: (lambda^2 tau^2 + sigma^2 / n) / (1 + lambda)^2. Set the derivative to zero.",
            "{call} da {got}, y el error es mínimo en {right}. Las dos partes son independientes, así que se suman sus "
            "cuadrados medios: (lambda^2 tau^2 + sigma^2 / n) / (1 + lambda)^2. Iguale la derivada a cero.",
        ),
    ),
}

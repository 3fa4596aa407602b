"""Spanish.

Decimals have a point, as code, files and the notebook have it, and as the Academy allows; from five digits on, groups
are parted by a narrow space, never by a comma, which would be read as a decimal one.
"""

TEXTS: dict[str, str | tuple[str, str]] = {
    # Things that are counted
    "rounds": ("{n} ronda", "{n} rondas"),
    "clients": ("{n} cliente", "{n} clientes"),
    "about_clients": ("Alrededor de {n} cliente", "Alrededor de {n} clientes"),
    "examples": ("{n} ejemplo", "{n} ejemplos"),
    "images": ("{n} imagen", "{n} imágenes"),
    "epochs": ("{n} época", "{n} épocas"),
    "from_to": "de {least} a {greatest}",
    "percent": "{value}\u202f%",
    # What metrics, parts of paths, statuses and steps are called
    "metric_of_group": "{group}: {name}",
    "metric_loss": "pérdida",
    "metric_accuracy": "exactitud",
    "metric_sparse_categorical_accuracy": "exactitud",
    "metric_mean_squared_error": "error cuadrático medio",
    "metric_num_examples": "ejemplos",
    "metric_num_batches": "lotes",
    "metric_train": "entrenamiento",
    "metric_test": "prueba",
    "metric_evaluation": "evaluación",
    "metric_finalizer": "servidor",
    "metric_update_non_finite": "actualizaciones no finitas",
    "metric_communication": "comunicación",
    "metric_bytes_up": "bytes de subida",
    "metric_bytes_down": "bytes de bajada",
    "metric_network": "red",
    "metric_seconds": "segundos",
    "metric_participation": "participación",
    "metric_full": "completa",
    "metric_partial": "parcial",
    "metric_absent": "ausentes",
    "metric_privacy": "privacidad",
    "metric_epsilon": "épsilon",
    "metric_aggregator": "agregación",
    "metric_mean_value": "valor medio",
    "metric_mean_weight": "peso medio",
    "metric_zeroing": "anulación",
    "metric_zeroing_norm": "norma de anulación",
    "metric_zeroed_count": "anuladas",
    "metric_clipping": "recorte",
    "metric_clipping_norm": "norma de recorte",
    "metric_clipped_count": "recortadas",
    "metric_num_attackers": "atacantes",
    "status_empty": "sin ejemplos",
    "status_non_finite_update": "con una actualización no finita",
    "part_centralized": "centralizado",
    "part_sampling": "muestreo",
    "part_drift": "deriva",
    # Axes that several figures have
    "round": "ronda",
    "client": "cliente",
    "label": "etiqueta",
    "accuracy": "exactitud (proporción)",
    "median": "mediana {value}",
    "mean": "media {value}",
    # fed.plots: the data
    "column_axis": "columna (píxeles)",
    "row_axis": "fila (píxeles)",
    "client_named": "cliente {name}",
    "no_examples_of": "{name}: sin ejemplos",
    "no_examples": "sin ejemplos",
    "mean_by_label": "{name}: {examples}, media por etiqueta",
    "none": "ninguna",
    "examples_axis": "ejemplos",
    "labels_of_clients": ("Etiquetas de {n} cliente", "Etiquetas de {n} clientes"),
    "hatched": "{title} (rayados, sin ejemplos: {empty})",
    "share_of_client": "proporción de los ejemplos del cliente",
    "sizes_of_clients": ("Tamaño de {n} cliente, {examples}", "Tamaños de {n} clientes, {examples}"),
    "size_axis": "ejemplos de un cliente",
    "clients_axis": "clientes",
    # fed.plots: a run
    "loss": "pérdida",
    "loss_in_nats": "pérdida (nats)",
    "title_training": "{what} de entrenamiento, antes de cada paso",
    "title_evaluation": "{what} de evaluación, tras una ronda",
    "title_of_group": "{group}: {what}",
    "bytes_sent_axis": "bytes enviados por los clientes",
    "bytes_received_axis": "bytes recibidos por los clientes",
    "seconds_axis": "segundos simulados",
    "means_of_runs": "medias de {n} ejecuciones",
    "means": "medias",
    "band_range": "{means}; bandas: del mínimo al máximo de las ejecuciones",
    "band_sd": "{means}; bandas: una desviación típica de las ejecuciones",
    "of_runs": "{text} ({n} ejecuciones)",
    "all_runs": "todas las ejecuciones",
    "no_key": "sin {key}",
    "all_clients": "todos los clientes",
    "middle_clients": "mitad central de los clientes",
    "median_client": "mediana de los clientes",
    "mean_of_clients": "media de los clientes",
    "title_accuracy": (
        "Exactitud por cliente, {many} cliente por ronda",
        "Exactitud por cliente, {many} clientes por ronda",
    ),
    "title_time": "Tiempo",
    "time_axis": "tiempo de la ronda (ms)",
    "median_time": "mediana {value} ms",
    "off_the_scale": "ronda {number}: {value} ms, fuera de escala",
    "title_bytes": "Bytes: {amount} en total",
    "bytes_axis": "{unit} de la ronda",
    "bytes_down": "bajada: pesos a los clientes",
    "bytes_up": "subida: actualizaciones",
    "title_optimum": "A qué distancia del óptimo",
    "title_step": "De qué se compone el paso de una ronda",
    "length_axis": "longitud de la parte (l2)",
    "all_zero": "todo es 0: en el óptimo",
    # fed.plots: one round, and a model
    "drift_client": "cliente tras entrenar",
    "drift_server": "servidor tras la ronda",
    "drift_start": "inicio: el modelo del servidor",
    "title_drift": "Deriva de los clientes: {clients}, {agreement}",
    "no_movement": "sin movimiento",
    "mean_cosine": "coseno medio con el paso global {value}",
    "drift_axis_1": "eje 1: cambio de los pesos ({share} de la longitud al cuadrado)",
    "drift_axis_2": "eje 2: cambio de los pesos ({share})",
    "title_confusion": "{correct} de {examples} ejemplos acertados",
    "title_confusion_share": "{title} ({share})",
    "predicted_class": "clase predicha",
    "true_class": "clase verdadera",
    "share_of_true_class": "proporción de los ejemplos de la clase verdadera",
    "weight_axis": "peso (logit por unidad de brillo)",
    "weights_legend": "la tinta habla a favor de la clase donde hay azul con contorno y en contra donde hay naranja",
    # The page of a run
    "page_title": "Aprendizaje federado: una ejecución",
    "page_lead": (
        "{clients} por ronda entrenó un modelo en {rounds} sin entregar sus datos: se entrenó con sus propios ejemplos "
        "y solo se transmitió lo aprendido.",
        "{clients} por ronda entrenaron juntos un modelo en {rounds} sin entregar sus datos: cada uno entrenó con sus "
        "propios ejemplos y solo envió lo aprendido.",
    ),
    "page_lead_short": "Una ejecución de {rounds} con {algorithm}, en la carpeta {folder}.",
    "heading_data": "Los datos",
    "heading_rounds": "Las rondas",
    "heading_evaluation": "La evaluación",
    "heading_model": "El modelo",
    "heading_repeat": "Para repetirla",
    "who_writers": (
        "Un cliente es una persona, y un ejemplo es la imagen de un carácter que esa persona escribió. Las personas se "
        "diferencian en cuánto escribieron, en qué y en cómo: sus datos no son muestras de una misma distribución (no "
        "son i.i.d.), y eso es lo que hace del aprendizaje federado un campo aparte."
    ),
    "who_anybody": (
        "Un cliente es cualquiera que tenga ejemplos propios. Los clientes se diferencian en cuántos tienen, de qué y "
        "cómo son: sus datos no son muestras de una misma distribución (no son i.i.d.), y eso es lo que hace del "
        "aprendizaje federado un campo aparte."
    ),
    "head_split": "parte",
    "head_file": "archivo",
    "head_clients": "clientes",
    "took_part": "Participantes: {clients}. Ejemplos por ronda: {of_round}; por cliente: {of_client}.",
    "took_part_same": (
        "Participantes, los mismos en todas las rondas: {clients}. Ejemplos por ronda: {of_round}; por cliente: "
        "{of_client}."
    ),
    "repetitions": (
        "Los {total} ejemplos de una ronda son repeticiones de {images}: un cliente lee {n} veces cada uno de los "
        "suyos, una por época, y cada vez cuenta."
    ),
    "repetitions_vary": (
        "Estas cifras incluyen repeticiones: un cliente lee sus {what} {n} veces, una por época, y cada vez cuenta."
    ),
    "repetitions_at_most": (
        "Estas cifras incluyen repeticiones: un cliente lee sus {what} {n} veces, una por época, o menos si hace menos "
        "épocas, y cada vez cuenta."
    ),
    "own_images": "imágenes",
    "own_examples": "ejemplos",
    "training_fedsgd": (
        "En cada ronda, cada cliente calcula el gradiente de la pérdida sobre todos sus ejemplos, con los pesos del "
        "servidor. El servidor da un paso con la media de los gradientes ({server})."
    ),
    "measured_fedsgd": (
        "Las métricas de entrenamiento se miden con los pesos de los que parte una ronda, antes de su paso."
    ),
    "training": (
        "En cada ronda, cada cliente parte de los pesos del servidor y entrena durante {epochs} con lotes de {batch} "
        "({client}). El servidor promedia las actualizaciones de los clientes y da un paso con la media ({server})."
    ),
    "measured": (
        "Las métricas de entrenamiento se miden durante el entrenamiento local: con cada lote, antes del paso que se "
        "da con él, y con el propio modelo del cliente a medida que cambia. No son, por tanto, las del nuevo modelo "
        "global. Empiezan donde terminó la ronda anterior, de modo que van con retraso; y cada modelo local acaba "
        "ajustándose a los mismos ejemplos con los que se mide, de modo que parecen buenas cuando los clientes "
        "entrenan mucho."
    ),
    "clients_absent": "Un cliente faltó a una ronda con una probabilidad de {share}.",
    "stragglers": "Con una probabilidad de {share}, un cliente se rezagó e hizo menos épocas, al menos {least}.",
    "stragglers_dropped": (
        "Con una probabilidad de {share}, un cliente se rezagó, y el servidor no lo esperó: también faltó."
    ),
    "some_epochs": "algunas épocas",
    "some": "algunos",
    "no_optimizer": "su optimizador no está guardado",
    "learning_rate": "tasa de aprendizaje {value}",
    "momentum": "inercia {value}",
    "another_rule": "En lugar de la media se usó otra regla: {rule}.",
    "of_buckets": "{rule} de grupos de {size}",
    "clipped": "Las actualizaciones se recortaron (recorte {clip}).",
    "clipped_noise": "Las actualizaciones se recortaron (recorte {clip}), con un ruido de {noise} veces el recorte.",
    "clipped_adaptive": (
        "Las actualizaciones se recortaron a una norma adaptativa, con un ruido de {noise} veces el recorte."
    ),
    "compressed": "Las actualizaciones se comprimieron: {how}.",
    "attacked": "Algunos clientes eran atacantes (ataque: {attack}; número o proporción: {who}).",
    "promised": (
        "Después de la última ronda, el ruido de las actualizaciones garantiza a cada cliente {promise}. Vale solo "
        "para los modelos, y en un sistema cuya aleatoriedad nadie conozca: ninguna métrica de esta página lleva ruido."
    ),
    "promise_epsilon": "épsilon",
    "promise_sampling": "muestreo:",
    "promise_neighbours": "vecinos:",
    "promise_accountant": "contabilidad:",
    "promise_added": "un cliente más o menos",
    "promise_replaced": "un cliente sustituido",
    "promise_itself": "la ejecución misma muestrea con",
    "promise_does_not_hold": "para lo que esto no vale",
    "promise_not_known": "no se sabe si el agregador añade ese ruido",
    "took_time": "Una ronda tardó {median} ms (mediana); todas juntas, {total} s.",
    "all_rounds": "todas las rondas",
    "some_rounds": "{known} de las {rounds} rondas (de las demás no se guardó)",
    "sent": (
        "En {rounds} los clientes habrían enviado {up} y recibido {down}: actualizaciones tal como se codifican, y "
        "pesos. (Una simulación no transmite ninguno de esos bytes.)"
    ),
    "simulated_time": (
        "Con las conexiones y los equipos supuestos de los clientes, {rounds} habrían tardado {seconds} s: cada una, "
        "tanto como su cliente más lento."
    ),
    "left_out": "Clientes excluidos de la media de una ronda: {counts} (clients.csv dice cuáles).",
    "round_table": "Métricas de cada ronda (todas y con todas sus cifras, en metrics.csv)",
    "round_table_part": (
        "Métricas de cada ronda (todas y con todas sus cifras, en metrics.csv); se muestra una fila de cada {step}, de "
        "{rows} en total"
    ),
    "evaluated_as_trained": (
        "El modelo final, evaluado con los ejemplos de entrenamiento de los mismos clientes y con ejemplos suyos con "
        "los que nadie entrenó. Cada uno cuenta {n} veces, una por época, como en el entrenamiento. Una diferencia "
        "entre ambos es sobreajuste."
    ),
    "evaluated_once": (
        "El modelo final, evaluado con los ejemplos de entrenamiento de los mismos clientes y con ejemplos suyos con "
        "los que nadie entrenó. Cada uno cuenta una vez. Una diferencia entre ambos es sobreajuste."
    ),
    "evaluated_some": (
        "El modelo final, evaluado con los ejemplos de entrenamiento de, como mucho, {clients} y con ejemplos suyos "
        "con los que nadie entrenó. Cada uno cuenta una vez. Una diferencia entre ambos es sobreajuste."
    ),
    "head_examples_of": "ejemplos de",
    "command": "La orden:",
    "command_in_folder": "La orden, en la carpeta de la ejecución:",
    "head_with": "programa",
    "head_version": "versión",
    "another_folder": "otra",
    "whole_configuration": "La configuración completa, config.json:",
    "not_finite": "no finito",
    # A comparison
    "comparison_title": "Aprendizaje federado: ejecuciones comparadas",
    "comparison_lead": "{n} ejecuciones: {names}.",
    "heading_differ": "En qué se diferencian",
    "heading_went": "Cómo evolucionaron",
    "heading_ended": "Cómo terminaron",
    "same_configurations": "Sus configuraciones son iguales.",
    "not_set": "sin definir",
    "head_choice": "opción",
    "over_rounds": "las rondas",
    "over_bytes": "los bytes enviados por los clientes",
    "over_seconds": "los segundos simulados",
    "alt_comparison": "Curvas de pérdida y exactitud a lo largo de {over} (ejecuciones: {n}). Al final, {ends}.",
    "nothing_to_draw": "No hay nada que dibujar: ninguna ejecución tiene valores finitos.",
    "head_metric": "métrica",
    "metric_rounds": "rondas",
    "last_metrics": "Métricas de la última ronda que las tiene",
    "head_evaluation": "evaluación",
    "split_metric": "{split}: {metric}",
    "last_evaluation": "Evaluación del modelo final",
    # The page of a study
    "study_title": "Aprendizaje federado: el estudio {name}",
    "study_lead": "Ejecuciones: {runs}. Configuraciones: {settings}, con {seeds} cada una",
    "study_lead_done": "; ejecuciones terminadas: {done}.",
    "seeds": ("una semilla", "{n} semillas"),
    "heading_varied": "Qué varió",
    "heading_best": "Cuál fue la mejor",
    "heading_repeat_study": "Para repetirlo",
    "head_values": "valores",
    "head_value": "valor",
    "head_run": "ejecución",
    "head_why": "motivo",
    "runs_differ_in": "En qué se diferencian las ejecuciones",
    "runs_have": "Qué tienen en común",
    "runs_broke": "Ejecuciones que fallaron: no figuran en ningún resultado",
    "best_and_worst": "De {n} configuraciones, las {best} mejores y las {worst} peores.",
    "final_metric": "{metric} final",
    "no_finite_number": "sin valor finito",
    "case": "caso",
    "mean_and_sd": "{what}, media ± desv. típica de {seeds}",
    "caption_map": "Para cada par de valores, {what}: la media de {seeds} y, debajo, la desviación típica (n - 1).",
    "best_of_cell": "En cada celda está lo mejor que se obtuvo con los demás parámetros.",
    "none_is_finite": "Ninguna configuración tiene valores finitos de {metric} en todas sus ejecuciones.",
    "final_of": "{label} ({metric} final: {value})",
    "final_over_seeds": "{label} ({metric} final: {value}, media de {n} semillas, de {least} a {greatest})",
    "best_of": "La mejor de {n} configuraciones es {first}. La siguiente, {second}, tiene {value}",
    "better_at_same_seed": "; en comparaciones con la misma semilla, la primera ganó {better} de {n}.",
    "not_told_apart": "Por tanto, estas ejecuciones no permiten decidir entre las dos.",
    "chosen_by_test": (
        "Se eligió por el resultado de los propios clientes de prueba, que por eso la favorece, tanto más cuantas más "
        "configuraciones se probaron: lo que vale de verdad solo pueden decirlo otros clientes u otras semillas."
    ),
    "at_greatest": (
        "Su valor de {key}, {value}, es el mayor de los que se probaron: puede que otro aún mayor sea mejor."
    ),
    "at_least": "Su valor de {key}, {value}, es el menor de los que se probaron: puede que otro aún menor sea mejor.",
    "head_setting": "configuración",
    "head_runs": "ejecuciones",
    "head_sd": "desv. típica",
    "head_least": "mínimo",
    "head_greatest": "máximo",
    "head_reached": "alcanzaron {target}",
    "head_rounds_to": "rondas hasta {target}",
    "head_megabytes_to": "MB enviados hasta {target}",
    "some_of_all": "{some} de {all}",
    "settings_ranked": "Medias de las semillas, de mejor a peor.",
    "settings_ranked_part": "Medias de las semillas, de mejor a peor; solo las {rows} primeras.",
    "costs_of_reaching": (
        "Las rondas y los megabytes (de todos los clientes) son medias de las ejecuciones que alcanzaron el objetivo."
    ),
    "row_for_each": "El archivo {file}, junto a esta página, tiene una fila por ejecución.",
    "command_of_study": "fedsim-np sweep {file} --out otro, con el archivo {file} de esta carpeta, que es:",
    "tested_on_others": (
        "Atención: no todas las configuraciones se evaluaron con los mismos clientes de prueba (por ejemplo, {first} y "
        "{second}): las diferencias que se ven aquí no se deben solo a las configuraciones."
    ),
    "tested_by_seed": (
        "Cada semilla sortea sus propios clientes, de entrenamiento y de prueba; con una misma semilla, todas las "
        "configuraciones tienen los mismos."
    ),
    "tested_on_the_same": "Todas las ejecuciones se evaluaron con los mismos clientes de prueba.",
    # The pictures of a run: what they show, and what to see in them
    "caption_curves": "El entrenamiento se mide antes de cada paso local; la evaluación, después de la ronda.",
    "alt_stored_curves": "Curvas de las métricas a lo largo de {rounds}; la tabla siguiente tiene sus valores.",
    "this_run": "esta ejecución",
    "first_ones": " Se muestran los {shown} primeros de {n} clientes.",
    "label_named": "etiqueta {label}",
    "alt_image": "Una imagen de 28 por 28 píxeles: el carácter con etiqueta {label}, tinta oscura sobre papel blanco.",
    "caption_image": "Un ejemplo: una imagen y su etiqueta.",
    "alt_images": (
        "La primera imagen del cliente {client}. Su etiqueta: {labels}.",
        "Las {n} primeras imágenes del cliente {client}. Sus etiquetas: {labels}.",
    ),
    "caption_images": "Ejemplos de un cliente, {client}: la letra de una persona.",
    "and": " y ",
    "commonest": "{client}: la más frecuente, {labels} ({count} de {all})",
    "alt_counts": (
        "Un diagrama de barras: cuántos ejemplos de cada etiqueta tiene un cliente. {each}.",
        "Diagramas de barras: cuántos ejemplos de cada etiqueta tienen {n} clientes. {each}.",
    ),
    "caption_counts": (
        "Cuántos ejemplos de cada etiqueta tienen los clientes: hay etiquetas que abundan en un cliente y escasean en "
        "otro."
    ),
    "alt_means": (
        "De un cliente, una fila de imágenes: la media de sus imágenes de cada etiqueta.",
        "De cada uno de {n} clientes, una fila de imágenes: la media de sus imágenes de cada etiqueta.",
    ),
    "caption_means": (
        "Imagen media de cada etiqueta, una fila por cliente: lo que tienen en común los caracteres de una persona. "
        "Cuanto más varían, más borrosa es la imagen; un marco vacío es una etiqueta que el cliente no tiene."
    ),
    "alt_labels": (
        "Una imagen de {rows} filas (clientes) por {columns} columnas (etiquetas), coloreada según la proporción de "
        "los ejemplos del cliente. Las etiquetas de un cliente distan en promedio {distance} de las de todos "
        "juntos.{first}"
    ),
    "caption_labels": (
        "Proporción de cada etiqueta en los ejemplos de cada cliente. Filas iguales serían datos i.i.d.; aquí las "
        "etiquetas de un cliente distan {distance} de las de todos juntos (variación total, media de todos los "
        "clientes).{first}"
    ),
    "goes_from": "la {what} va de {first} a {last}",
    "alt_curves": "Curvas a lo largo de {rounds}: {moves}.",
    "caption_run_curves": (
        "Pérdida y exactitud a lo largo de las rondas: las del entrenamiento, antes de cada paso local; las de una "
        "evaluación, después de la ronda."
    ),
    "last_spread": "En la última ronda, de {least} a {greatest}.",
    "nobody": "No participó nadie.",
    "alt_accuracy": (
        "Bandas a lo largo de las rondas: la exactitud de todos los clientes, la de la mitad central y su mediana. "
        "{spread}"
    ),
    "caption_accuracy": "Una sola cifra para todos oculta lo distinto que les va a los clientes. {spread}",
    "alt_drift": (
        "Líneas desde un mismo inicio, una por cada uno de {n} clientes, y una estrella donde terminó el modelo del "
        "servidor. {title}.{first}"
    ),
    "caption_drift": (
        "La primera ronda, proyectada sobre dos ejes: adónde fue el modelo de cada cliente desde el del servidor y "
        "dónde terminó la media. Con datos i.i.d. las líneas estarían más juntas.{first}"
    ),
    "alt_costs": (
        "Una línea a lo largo de las rondas, los milisegundos de cada una; y barras, los bytes que enviaría cada una, "
        "{amount} en total."
    ),
    "caption_costs": (
        "Lo que cuesta una ronda: el tiempo en esta máquina y los bytes que enviaría un sistema real (en total, {down} "
        "a los clientes y {up} de vuelta)."
    ),
    "alt_confusion": (
        "Clases verdaderas frente a predichas con los {examples} ejemplos de prueba de los clientes; aciertos: "
        "{correct}. {worst}"
    ),
    "caption_confusion": (
        "Lo que se escribió (filas) y lo que el modelo leyó (columnas), con los ejemplos de prueba de los clientes, "
        "cada uno una vez. {worst}"
    ),
    "commonest_mistake": (
        "El error más frecuente: {true} tomado por {predicted}, una vez.",
        "El error más frecuente: {true} tomado por {predicted}, {n} veces.",
    ),
    "alt_weights": (
        "Una imagen por clase: los pesos del modelo en cada píxel, azules y con contorno donde son negativos, naranjas "
        "donde son positivos."
    ),
    "caption_weights": (
        "Los pesos de cada clase: azules y con contorno donde la tinta habla a favor de ella, naranjas donde habla en "
        "contra."
    ),
}

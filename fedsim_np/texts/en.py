"""English."""

TEXTS: dict[str, str | tuple[str, str]] = {
    # Things that are counted
    "rounds": ("{n} round", "{n} rounds"),
    "clients": ("{n} client", "{n} clients"),
    "about_clients": ("About {n} client", "About {n} clients"),
    "examples": ("{n} example", "{n} examples"),
    "images": ("{n} image", "{n} images"),
    "epochs": ("{n} epoch", "{n} epochs"),
    "from_to": "{least} to {greatest}",
    "percent": "{value}%",
    # What metrics, parts of paths, statuses and steps are called
    "metric_of_group": "{group} {name}",
    "metric_loss": "loss",
    "metric_accuracy": "accuracy",
    "metric_sparse_categorical_accuracy": "accuracy",
    "metric_mean_squared_error": "mean squared error",
    "metric_num_examples": "examples",
    "metric_num_batches": "batches",
    "metric_train": "train",
    "metric_test": "test",
    "metric_evaluation": "evaluation",
    "metric_finalizer": "finalizer",
    "metric_update_non_finite": "update non finite",
    "metric_communication": "communication",
    "metric_bytes_up": "bytes up",
    "metric_bytes_down": "bytes down",
    "metric_network": "network",
    "metric_seconds": "seconds",
    "metric_participation": "participation",
    "metric_full": "full",
    "metric_partial": "partial",
    "metric_absent": "absent",
    "metric_privacy": "privacy",
    "metric_epsilon": "epsilon",
    "metric_aggregator": "aggregator",
    "metric_mean_value": "mean value",
    "metric_mean_weight": "mean weight",
    "metric_zeroing": "zeroing",
    "metric_zeroing_norm": "zeroing norm",
    "metric_zeroed_count": "zeroed count",
    "metric_clipping": "clipping",
    "metric_clipping_norm": "clipping norm",
    "metric_clipped_count": "clipped count",
    "metric_num_attackers": "num attackers",
    "status_empty": "empty",
    "status_non_finite_update": "non-finite update",
    "part_centralized": "centralized",
    "part_sampling": "sampling",
    "part_drift": "drift",
    # Axes that several figures have
    "round": "round",
    "client": "client",
    "label": "label",
    "accuracy": "accuracy (share correct)",
    "median": "median {value}",
    "mean": "mean {value}",
    # fed.plots: the data
    "column_axis": "column (pixels)",
    "row_axis": "row (pixels)",
    "client_named": "client {name}",
    "no_examples_of": "{name}: no examples",
    "no_examples": "no examples",
    "mean_by_label": "{name}: {examples}, mean by label",
    "none": "none",
    "examples_axis": "examples",
    "labels_of_clients": ("Labels of {n} client", "Labels of {n} clients"),
    "hatched": "{title} ({empty} hatched: no examples)",
    "share_of_client": "share of the client's examples",
    "sizes_of_clients": ("Sizes of {n} client, {examples}", "Sizes of {n} clients, {examples}"),
    "size_axis": "examples of a client",
    "clients_axis": "clients",
    # fed.plots: a run
    "loss": "loss",
    "loss_in_nats": "loss (nats)",
    "title_training": "Training {what}, before each step",
    "title_evaluation": "Evaluation {what}, after a round",
    "title_of_group": "{group}: {what}",
    "bytes_sent_axis": "bytes that clients have sent",
    "bytes_received_axis": "bytes that clients were sent",
    "seconds_axis": "seconds, simulated",
    "means_of_runs": "means of {n} runs",
    "means": "means",
    "band_range": "{means}; bands: least to greatest of the runs",
    "band_sd": "{means}; bands: one standard deviation of the runs",
    "of_runs": "{text} ({n} runs)",
    "all_runs": "all runs",
    "no_key": "no {key}",
    "all_clients": "all clients",
    "middle_clients": "middle half of the clients",
    "median_client": "median client",
    "mean_of_clients": "mean of the clients",
    "title_accuracy": ("Accuracy by client, {many} client a round", "Accuracy by client, {many} clients a round"),
    "title_time": "Time",
    "time_axis": "time of the round (ms)",
    "median_time": "median {value} ms",
    "off_the_scale": "round {number}: {value} ms, off the scale",
    "title_bytes": "Bytes: {amount} in all",
    "bytes_axis": "{unit} of the round",
    "bytes_down": "down: weights to the clients",
    "bytes_up": "up: updates",
    "title_optimum": "How far from the optimum",
    "title_step": "What a round's step is made of",
    "length_axis": "length of the part (l2)",
    "all_zero": "all are 0: at the optimum",
    # fed.plots: one round, and a model
    "drift_client": "client after training",
    "drift_server": "server after the round",
    "drift_start": "start: the server's model",
    "title_drift": "Client drift: {clients}, {agreement}",
    "no_movement": "no movement",
    "mean_cosine": "mean cosine with the global step {value}",
    "drift_axis_1": "axis 1: change of the weights ({share} of the squared length)",
    "drift_axis_2": "axis 2: change of the weights ({share})",
    "title_confusion": "{correct} of {examples} examples correct",
    "title_confusion_share": "{title} ({share})",
    "predicted_class": "predicted class",
    "true_class": "true class",
    "share_of_true_class": "share of the true class's examples",
    "weight_axis": "weight (logit per brightness)",
    "weights_legend": "ink speaks for the class where blue and outlined, against it where orange",
    # The page of a run
    "page_title": "Federated learning: a run",
    "page_lead": (
        "{clients} a round trained one model in {rounds}, without handing over its data: it trained on its own "
        "examples, and only what it had learned was passed on.",
        "{clients} a round trained one model together in {rounds}, without handing over their data: each trained on "
        "its own examples, and sent only what it had learned.",
    ),
    "page_lead_short": "A run of {rounds} by {algorithm}, in the folder {folder}.",
    "heading_data": "The data",
    "heading_rounds": "The rounds",
    "heading_evaluation": "The evaluation",
    "heading_model": "The model",
    "heading_repeat": "To repeat it",
    "who_writers": (
        "A client is one writer, and an example is an image of a character that this writer wrote. Writers differ in "
        "how much they wrote, in what, and in how: their data are not samples of one distribution (not i.i.d.), which "
        "is what makes federated learning a subject of its own."
    ),
    "who_anybody": (
        "A client is whoever has examples of its own. Clients differ in how many they have, of what, and in how: their "
        "data are not samples of one distribution (not i.i.d.), which is what makes federated learning a subject of "
        "its own."
    ),
    "head_split": "split",
    "head_file": "file",
    "head_clients": "clients",
    "took_part": "{clients} took part, with {of_round} examples a round, {of_client} a client.",
    "took_part_same": (
        "{clients} took part, the same in every round, with {of_round} examples a round, {of_client} a client."
    ),
    "repetitions": (
        "The {total} examples a round are repetitions of {images}: a client reads each of its own {n} times, once an "
        "epoch, and each time counts."
    ),
    "repetitions_vary": (
        "These counts have repetitions in them: a client reads each of its own {what} {n} times, once an epoch, and "
        "each time counts."
    ),
    "repetitions_at_most": (
        "These counts have repetitions in them: a client reads each of its own {what} {n} times, once an epoch, or "
        "less often where it does fewer epochs, and each time counts."
    ),
    "own_images": "images",
    "own_examples": "examples",
    "training_fedsgd": (
        "In each round every client computes the gradient of the loss over all its examples, at the server's weights. "
        "The server makes one step with their average ({server})."
    ),
    "measured_fedsgd": "The training metrics are measured at the weights that a round starts from, before its step.",
    "training": (
        "In each round every client starts from the server's weights and makes {epochs} of steps on batches of {batch} "
        "({client}). The server averages the clients' updates and makes one step with the average ({server})."
    ),
    "measured": (
        "The training metrics are measured during local training: on each batch before the step that is made on it, "
        "with the client's own model as it moves. So they are not the new global model's. They begin where the last "
        "round ended, which makes them late; and each local model comes to fit the very examples that it is measured "
        "on, which makes them look good where clients train for long."
    ),
    "clients_absent": "A client was absent from a round with a probability of {share}.",
    "stragglers": "With a probability of {share} a client was a straggler, who did fewer epochs, at least {least}.",
    "stragglers_dropped": (
        "With a probability of {share} a client was a straggler, for whom the server did not wait: absent, too."
    ),
    "some_epochs": "some epochs",
    "some": "some",
    "no_optimizer": "its optimizer is not stored",
    "learning_rate": "learning rate {value}",
    "momentum": "momentum {value}",
    "another_rule": "In the place of the average there was another rule: {rule}.",
    "of_buckets": "{rule} of buckets of {size}",
    "clipped": "Updates were clipped (clip {clip}).",
    "clipped_noise": "Updates were clipped (clip {clip}), with noise of {noise} times the clip.",
    "clipped_adaptive": "Updates were clipped at an adaptive norm, with noise of {noise} times the clip.",
    "compressed": "Updates were compressed: {how}.",
    "attacked": "Some clients were attackers: {attack}, attackers {who}.",
    "promised": (
        "After the last round, noise on the updates promises each client {promise}. That is of the models alone, in a "
        "deployment whose randomness nobody knows: no metric on this page has noise."
    ),
    "promise_epsilon": "epsilon",
    "promise_sampling": "sampling:",
    "promise_neighbours": "neighbours:",
    "promise_accountant": "accountant:",
    "promise_added": "one client added or removed",
    "promise_replaced": "one client replaced",
    "promise_itself": "the run itself samples",
    "promise_does_not_hold": "for which this does not hold",
    "promise_not_known": "whether the aggregator adds that noise is not known",
    "took_time": "A round took {median} ms (median), all of them {total} s.",
    "all_rounds": "all rounds",
    "some_rounds": "{known} of the {rounds} rounds (it is not stored of others)",
    "sent": (
        "In {rounds} the clients would have sent {up} and been sent {down}: updates as they are encoded, and weights. "
        "(A simulation moves none of these bytes.)"
    ),
    "simulated_time": (
        "On the clients' lines and machines that were assumed, {rounds} would have taken {seconds} s: each as long as "
        "its slowest client."
    ),
    "left_out": "Clients left out of a round's average: {counts} (clients.csv says which).",
    "round_table": "Metrics of each round (all of them, with all digits: metrics.csv)",
    "round_table_part": (
        "Metrics of each round (all of them, with all digits: metrics.csv); one row in {step} of {rows}"
    ),
    "evaluated_as_trained": (
        "The final model on the train examples of the same clients, and on examples of theirs that nobody trained on, "
        "each counted {n} times, once an epoch, as in training. A gap between the two is overfitting."
    ),
    "evaluated_once": (
        "The final model on the train examples of the same clients, and on examples of theirs that nobody trained on, "
        "each counted once. A gap between the two is overfitting."
    ),
    "evaluated_some": (
        "The final model on the train examples of at most {clients}, and on examples of theirs that nobody trained on, "
        "each counted once. A gap between the two is overfitting."
    ),
    "head_examples_of": "examples of",
    "command": "The command:",
    "command_in_folder": "The command, in the run's folder:",
    "head_with": "with",
    "head_version": "version",
    "another_folder": "again",
    "whole_configuration": "The whole configuration, config.json:",
    "not_finite": "not finite",
    # A comparison
    "comparison_title": "Federated learning: runs compared",
    "comparison_lead": "{n} runs: {names}.",
    "heading_differ": "In what they differ",
    "heading_went": "How they went",
    "heading_ended": "Where they ended",
    "same_configurations": "Their configurations are the same.",
    "not_set": "not set",
    "head_choice": "choice",
    "over_rounds": "the rounds",
    "over_bytes": "the bytes sent by clients",
    "over_seconds": "the simulated seconds",
    "alt_comparison": "Curves of loss and accuracy over {over} of {n} runs. At the end, {ends}.",
    "nothing_to_draw": "Nothing to draw: {error}",
    "head_metric": "metric",
    "metric_rounds": "rounds",
    "last_metrics": "Metrics of the last round that has them",
    "head_evaluation": "evaluation",
    "split_metric": "{split}: {metric}",
    "last_evaluation": "Evaluation of the final model",
    # The page of a study
    "study_title": "Federated learning: the study {name}",
    "study_lead": "Runs: {runs}. Settings: {settings}, {seeds} each",
    "study_lead_done": "; runs that are done: {done}.",
    "seeds": ("one seed", "{n} seeds"),
    "heading_varied": "What varied",
    "heading_best": "Which was best",
    "heading_repeat_study": "To repeat it",
    "head_values": "values",
    "head_value": "value",
    "head_run": "run",
    "head_why": "why",
    "runs_differ_in": "What the runs differ in",
    "runs_have": "What all have",
    "runs_broke": "Runs that broke: they are in none of the figures",
    "best_and_worst": "Of {n} settings the {best} best and the {worst} worst.",
    "final_metric": "final {metric}",
    "no_finite_number": "no finite number",
    "case": "case",
    "mean_and_sd": "{what}, mean ± sd of {seeds}",
    "caption_map": "The {what} of each pair: the mean over {seeds}, and below it the standard deviation (n - 1).",
    "best_of_cell": "In each cell is the best over all other keys.",
    "none_is_finite": "No setting has a finite {metric} in all of its runs.",
    "final_of": "{label}: a final {metric} of {value}",
    "final_over_seeds": "{label}: a final {metric} of {value}, the mean over {n} seeds ({least} to {greatest})",
    "best_of": "{first}, is the best of {n} settings. The next, {second}, has {value}",
    "better_at_same_seed": "; at the same seed the first was better {better} of {n} times.",
    "not_told_apart": "So these runs do not tell the two apart.",
    "chosen_by_test": (
        "It was chosen by the test clients' own figure, which therefore flatters it, the more the more settings were "
        "tried: what it is worth, other clients or other seeds can tell."
    ),
    "at_greatest": "Its {key}, {value}, is at the end of those that were tried: greater ones may be better.",
    "at_least": "Its {key}, {value}, is at the end of those that were tried: smaller ones may be better.",
    "head_setting": "setting",
    "head_runs": "runs",
    "head_sd": "sd",
    "head_least": "least",
    "head_greatest": "greatest",
    "head_reached": "reached {target}",
    "head_rounds_to": "rounds to {target}",
    "head_megabytes_to": "MB up to {target}",
    "some_of_all": "{some} of {all}",
    "settings_ranked": "Means over seeds, the best first.",
    "settings_ranked_part": "Means over seeds, the best first, the first {rows}.",
    "costs_of_reaching": "Rounds and megabytes (of all clients) are means over the runs that reached the target.",
    "row_for_each": "{file} beside this page has a row for each run.",
    "command_of_study": "fedsim-np sweep {file} --out another, with {file} of this folder, which is:",
    "tested_on_others": (
        "Warning: not all settings were evaluated on the same test clients ({first} and {second} were not): what "
        "differs here is not the settings' doing alone."
    ),
    "tested_by_seed": (
        "Every seed draws clients of its own, for training and test; for one seed all settings have the same."
    ),
    "tested_on_the_same": "All runs were evaluated on the same test clients.",
    # The pictures of a run: what they show, and what to see in them
    "caption_curves": "Training is measured before each local step, an evaluation after the round.",
    "alt_stored_curves": "Curves of the metrics over {rounds}; the table below has their values.",
    "this_run": "this run",
    "first_ones": " The first {shown} of {n} clients are shown.",
    "label_named": "label {label}",
    "alt_image": "One image of 28 by 28 pixels: the character with label {label}, dark ink on white paper.",
    "caption_image": "One example: an image and its label.",
    "alt_images": (
        "The first image of client {client}. Its label: {labels}.",
        "The first {n} images of client {client}. Their labels: {labels}.",
    ),
    "caption_images": "Examples of one client, {client}: one person's hand.",
    "and": " and ",
    "commonest": "{client}: most often {labels} ({count} of {all})",
    "alt_counts": (
        "A bar chart of how many examples of each label one client has. {each}.",
        "Bar charts of how many examples of each label {n} clients have. {each}.",
    ),
    "caption_counts": (
        "How many examples of each label clients have: some labels are common with one client and rare with another."
    ),
    "alt_means": (
        "For one client a row of images, the mean of its images of each label.",
        "For each of {n} clients a row of images, the mean of its images of each label.",
    ),
    "caption_means": (
        "Mean image of each label, a row a client: what one person's characters have in common. The more these vary, "
        "the more blurred; an empty frame is a label that the client has not got."
    ),
    "alt_labels": (
        "A picture of {rows} rows (clients) by {columns} columns (labels), coloured by the share of the client's "
        "examples. A client's labels are {distance} from the pooled ones on average.{first}"
    ),
    "caption_labels": (
        "Share of each label in each client's examples. Equal rows would be i.i.d. data; here a client's labels are "
        "{distance} from the pooled ones (total variation, mean of all clients).{first}"
    ),
    "goes_from": "the {what} goes from {first} to {last}",
    "alt_curves": "Curves over {rounds}: {moves}.",
    "caption_run_curves": (
        "Loss and accuracy over the rounds: of training before each local step, of an evaluation after the round."
    ),
    "last_spread": "In the last round from {least} to {greatest}.",
    "nobody": "Nobody took part.",
    "alt_accuracy": (
        "Bands over the rounds: the accuracies of all clients, of the middle half, and their median. {spread}"
    ),
    "caption_accuracy": "One figure for all hides how differently clients fare. {spread}",
    "alt_drift": (
        "Lines from one start, one for each of {n} clients, and a star where the server's model ended. {title}.{first}"
    ),
    "caption_drift": (
        "The first round, projected on two axes: where each client's model went from the server's, and where their "
        "average ended. With i.i.d. data the lines would lie closer together.{first}"
    ),
    "alt_costs": (
        "A line over the rounds, the milliseconds of each; and bars, the bytes that each would send, {amount} in all."
    ),
    "caption_costs": (
        "What a round costs: time on this machine, and the bytes that a real system would send (in all {down} to the "
        "clients, {up} back)."
    ),
    "alt_confusion": (
        "True against predicted classes on the clients' {examples} test examples; {correct} are right. {worst}"
    ),
    "caption_confusion": (
        "What was written (rows) and what the model read (columns), on the clients' test examples, each once. {worst}"
    ),
    "commonest_mistake": (
        "The commonest mistake: {true} taken for {predicted}, once.",
        "The commonest mistake: {true} taken for {predicted}, {n} times.",
    ),
    "alt_weights": (
        "An image for each class: the model's weights at each pixel, blue and outlined where negative, orange where "
        "positive."
    ),
    "caption_weights": "The weights of each class: blue and outlined where ink speaks for it, orange where against it.",
}

"""One function, one question to the results store, one DataFrame. Reads the current snapshot; never writes."""

from collections.abc import Mapping, Sequence

import pandas as pd

from backend.statistics import Paired, check_radius, early_stop, for_other_seeds
from backend.statistics import paired as compare
from backend.store.publish import PER_UNIT
from backend.store.snapshot import StoreError, ask

RUN_COLUMNS = [
    "run_id", "source", "dataset", "architecture", "method", "sigma", "lam", "seed", "recipe", "epochs",
    "n", "n0", "alpha", "images", "acr", "certified_accuracy_0", "abstention", "mode", "image_set", "hyper",
]  # fmt: skip

# Equal for the runs of a group, which differ in their seeds alone.
SAME = [
    "dataset", "architecture", "method", "sigma", "lam", "hyper", "recipe", "epochs", "weights_dtype", "precision",
    "train_precision", "n", "n0", "alpha", "mode", "image_set", "source", "radius_digits",
]  # fmt: skip
# Of those, the ones that learned and the ones that collapsed are groups of their own: a mean of both is of neither.
ALIKE = ", ".join([*SAME, "missing_classes > 0"])
# Of a seed that was certified on equal terms more than once, the run that was trained with it, else the first.
ONE_A_SEED = (
    f"QUALIFY row_number() OVER (PARTITION BY {', '.join(SAME)}, seed ORDER BY weights_of IS NOT NULL, run_id) = 1"
)
# The kept curves; in the place of the radius beyond the ceiling, which nothing reaches, the ceiling itself.
POINTS = f"""
    (SELECT run_id, least(i / {PER_UNIT}.0, ceiling) AS r, if(i / {PER_UNIT}.0 > ceiling, at_ceiling, reached / images) AS share
     FROM runs JOIN (SELECT run_id, generate_subscripts(counts, 1) - 1 AS i, unnest(counts) AS reached FROM curves) USING (run_id))"""
SETTINGS = ["dataset", "mode", "n", "n0", "alpha", "image_set"]  # equal where two runs may be compared
MEASURES = ("acr", "certified_accuracy_0", "abstention")


def runs() -> pd.DataFrame:
    """Every run of the store: the columns of `runs` in schema.sql, ordered by data set, σ, method, λ and seed.

    lam, n, n0, alpha, images, acr, certified_accuracy_0 and abstention are missing where they do not apply.
    """
    return ask(
        "SELECT * EXCLUDE (fingerprint, missing_here) FROM runs ORDER BY dataset, sigma, method, lam NULLS FIRST, seed, n, run_id"
    )


def measured(runs: pd.DataFrame) -> pd.DataFrame:
    """Rows of `runs`, without ACR, accuracy at 0 and abstention where sampling stopped early on purpose: they would say when it did."""
    stopped = runs["mode"].map(lambda mode: isinstance(mode, str) and bool(early_stop(mode))).astype(bool)
    columns = [name for name in (*MEASURES, "acr_se", "at_ceiling") if name in runs]
    return runs.assign(**{name: runs[name].mask(stopped) for name in columns})


def terms(run: pd.Series) -> str:
    """How a row of `runs` was certified, in words that are equal exactly where two runs of a data set may be compared."""
    mode = run["mode"]
    images = run.image_set.removeprefix("test/").replace("/", ", ")
    return (
        f"{'' if mode == 'fixed' else f'{mode}, '}{'' if mode.startswith('fixed') else 'at most '}n = {run.n:,.0f}, n0 = {run.n0:,.0f}, "
        f"α = {run.alpha:.12g}, {run.images:,.0f} test images ({images})"
    )


def run_ids() -> set[str]:
    """The ids of every run of the store."""
    return set(ask("SELECT run_id FROM runs").run_id)


def run(run_id: str) -> pd.DataFrame:
    """One run's row as in `runs`, or none."""
    return ask("SELECT * EXCLUDE (fingerprint, missing_here) FROM runs WHERE run_id = $1", [run_id])


def speeds(dataset: str, architecture: str) -> pd.DataFrame:
    """What runs that were computed, not imported, took: run_id, folder, method, hyper, train_precision, precision, mode, n, device,
    epoch_seconds (the median epoch's; missing without training), samples_per_second and samples (a mean image's; both missing without certificates).
    """
    return ask(
        """
        SELECT run_id, folder, method, hyper, train_precision, precision, mode, n, device, epoch_seconds, samples,
               images * (samples + n0) / nullif(certify_seconds, 0) AS samples_per_second
        FROM runs WHERE source <> 'published' AND dataset = $1 AND architecture = $2 ORDER BY run_id
        """,
        [dataset, architecture],
    )


def curves(run_ids: Sequence[str]) -> pd.DataFrame:
    """Certified accuracy at radii 0, 0.01, 0.02, … and at the run's ceiling: run_id, r, images, certified_accuracy.

    An abstention counts as wrong; at r the images with radius >= r count.
    """
    return ask(
        f"""
        SELECT run_id, r, images, share AS certified_accuracy
        FROM {POINTS} JOIN runs USING (run_id) WHERE run_id IN (SELECT unnest($1)) ORDER BY run_id, r
        """,
        [list(run_ids)],
    )


def acr_gains(run_ids: Sequence[str], pairs: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """ACR of runs against runs of a baseline that differ in the method alone, image by image, for pairs (baseline, method).

    Both are among run_ids, of equal source, data set, architecture, σ, seed, recipe, epochs, precisions, n, n0, α, mode and
    images. Columns: baseline, method, source, run_id, baseline_id, architecture, epochs, sigma, lam, hyper, baseline_hyper, seed, recipe, images, acr, baseline_acr,
    missing_classes and baseline_missing_classes, and gain, the mean paired difference over the images, of which there
    are two or more.
    """
    return ask(
        """
        WITH chosen AS (SELECT * FROM runs WHERE run_id IN (SELECT unnest($1)) AND images > 0),
        gained AS (SELECT run_id, idx, if(predict = label, radius, 0) AS gain FROM certificates WHERE run_id IN (SELECT run_id FROM chosen)),
        wanted AS (SELECT unnest($2) AS baseline, unnest($3) AS method),
        pairs AS (
            SELECT b.method AS baseline, a.method, source, a.run_id, b.run_id AS baseline_id, architecture, epochs, a.sigma, a.lam, a.hyper, b.hyper AS baseline_hyper, a.seed, recipe, a.images,
                   a.acr, b.acr AS baseline_acr, b.images AS baseline_images,
                   a.missing_classes, b.missing_classes AS baseline_missing_classes
            FROM chosen a JOIN chosen b USING (source, dataset, architecture, sigma, seed, recipe, epochs, weights_dtype, precision, train_precision, n, n0, alpha, mode, image_set)
            WHERE (b.method, a.method) IN (SELECT (baseline, method) FROM wanted))
        SELECT p.*, avg(x.gain - y.gain) AS gain
        FROM pairs p JOIN gained x USING (run_id) JOIN gained y ON y.run_id = p.baseline_id AND y.idx = x.idx
        GROUP BY ALL HAVING count(*) = p.images AND count(*) = p.baseline_images AND count(*) > 1
        ORDER BY p.sigma, p.method, p.baseline, p.lam, p.seed
        """,
        [list(run_ids), [b for b, _ in pairs], [m for _, m in pairs]],
    ).drop(columns="baseline_images")


def over_seeds(run_ids: Sequence[str]) -> pd.DataFrame:
    """The given runs with certificates, those that differ in their seeds alone as one, collapsed ones apart: the columns of `runs` of the one of
    least id, but for acr, acr_se, certified_accuracy_0 and abstention the mean over seeds and for missing_classes the most; beside them run_ids
    (by seed), seeds, and acr_sd and certified_accuracy_0_sd (n − 1; missing for one seed).
    """
    means = ", ".join(f"avg({m}) OVER alike AS {m}" for m in (*MEASURES, "acr_se"))
    return ask(
        f"""
        SELECT * EXCLUDE (fingerprint, missing_here) REPLACE ({means}, max(missing_classes) OVER alike AS missing_classes),
               list(run_id ORDER BY seed) OVER alike AS run_ids, count(*) OVER alike AS seeds,
               stddev_samp(acr) OVER alike AS acr_sd, stddev_samp(certified_accuracy_0) OVER alike AS certified_accuracy_0_sd
        FROM (FROM runs WHERE run_id IN (SELECT unnest($1)) AND images > 0 {ONE_A_SEED})
        WINDOW alike AS (PARTITION BY {ALIKE})
        QUALIFY run_id = min(run_id) OVER alike ORDER BY dataset, recipe, epochs, sigma, method, lam NULLS FIRST, run_id
        """,
        [list(run_ids)],
    )


def group_curves(run_ids: Sequence[str]) -> pd.DataFrame:
    """Curves of the groups that the runs belong to: group_id (the least run id), r, certified_accuracy (mean over seeds),
    sd, seeds, images."""
    return ask(
        f"""
        WITH chosen AS (SELECT *, min(run_id) OVER (PARTITION BY {ALIKE}) AS group_id
                        FROM runs WHERE run_id IN (SELECT unnest($1)) AND images > 0 {ONE_A_SEED})
        SELECT group_id, r, avg(share) AS certified_accuracy, stddev_samp(share) AS sd, count(DISTINCT seed) AS seeds,
               any_value(images) AS images
        FROM {POINTS} JOIN chosen USING (run_id) GROUP BY group_id, r ORDER BY group_id, r
        """,
        [list(run_ids)],
    )


def envelope(run_ids: Sequence[str]) -> pd.DataFrame:
    """The best of `group_curves` at every radius up to the largest ceiling, a method at a time: method, r, certified_accuracy, sigma and
    group_id of the best. Of means over seeds: the best of five seeds is above that of one, whatever the method.
    """
    return ask(
        f"""
        WITH chosen AS (SELECT *, min(run_id) OVER (PARTITION BY {ALIKE}) AS group_id
                        FROM runs WHERE run_id IN (SELECT unnest($1)) AND images > 0 {ONE_A_SEED}),
             points AS (SELECT method, sigma, group_id, ceiling, generate_subscripts(counts, 1) - 1 AS i, unnest(counts) / images AS share
                        FROM curves JOIN chosen USING (run_id)),
             means AS (SELECT method, sigma, group_id, i, avg(share) AS share
                       FROM points WHERE i / {PER_UNIT}.0 <= ceiling GROUP BY ALL)
        SELECT method, i / {PER_UNIT}.0 AS r, max(share) AS certified_accuracy, arg_max(sigma, share) AS sigma, arg_max(group_id, share) AS group_id
        FROM means GROUP BY ALL ORDER BY method, r
        """,
        [list(run_ids)],
    )


def accuracy_at(r: float, run_ids: Sequence[str]) -> pd.DataFrame:
    """Certified accuracy of the given runs at radius r, best first: run_id, method, sigma, lam, seed, images, reached, certified_accuracy.

    `reached` counts the images that are answered correctly with radius >= r: from the kept curve at its radii, else from the images.
    """
    check_radius(r)
    place = round(r * PER_UNIT)
    kept = place / PER_UNIT == r
    reached = (
        "SELECT run_id, counts[$1] AS reached FROM curves" if kept else
        "SELECT run_id, count(*) AS reached FROM certificates JOIN (SELECT run_id, ceiling FROM runs) USING (run_id) "
        "WHERE predict = label AND radius >= $1 AND $1 <= ceiling GROUP BY run_id"
    )  # fmt: skip
    return ask(
        f"""
        SELECT run_id, method, sigma, lam, seed, images, coalesce(reached, 0) AS reached,
               coalesce(reached, 0) / images AS certified_accuracy
        FROM runs LEFT JOIN ({reached}) USING (run_id)
        WHERE run_id IN (SELECT unnest($2)) ORDER BY certified_accuracy DESC, run_id
        """,
        [place + 1 if kept else r, list(run_ids)],
    )


def certificates(run_id: str) -> pd.DataFrame:
    """The rows of one run in the order of the images: idx, label, predict, radius, top_count (−1: not known), n, stop."""
    return ask("SELECT c.* EXCLUDE run_id FROM certificates c WHERE run_id = $1 ORDER BY idx", [run_id])


def parquet(run_ids: Sequence[str]) -> bytes:
    """Every certificate of the given runs, with what its run is, as the content of one Parquet file."""
    return ask(
        """
        SELECT run_id, source, dataset, architecture, method, sigma, lam, hyper, seed, recipe, epochs, mode, n0, alpha, image_set, idx, label, predict, radius,
               top_count, c.n, stop
        FROM certificates c JOIN (SELECT * EXCLUDE n FROM runs) USING (run_id) WHERE run_id IN (SELECT unnest($1))
        ORDER BY run_id, idx
        """,
        [list(run_ids)],
    ).to_parquet(index=False)


def images_of(run_ids: Sequence[str], r: float = 0.0) -> pd.DataFrame:
    """What runs that differ in their seeds alone (or one run) say of each image: idx, label, gain (1[correct] · radius), reached
    (right, with radius >= r, which is at most the ceiling) and p (share of votes for the selected class; missing where it is not known), means over the runs.
    """
    return ask(
        """
        SELECT idx, any_value(label) AS label, avg(if(predict = label, radius, 0)) AS gain,
               avg((predict = label AND radius >= $2 AND $2 <= ceiling)::INT) AS reached, avg(if(top_count >= 0, top_count / n, NULL)) AS p
        FROM certificates JOIN (SELECT run_id, ceiling FROM runs) USING (run_id) WHERE run_id IN (SELECT unnest($1)) GROUP BY idx ORDER BY idx
        """,
        [list(run_ids), r],
    )


def at_equal_seeds(
    runs_a: Sequence[str], runs_b: Sequence[str], seeds: Mapping[str, int]
) -> tuple[list[str], list[str]]:
    """Of two groups the runs of the seeds that both have, which `paired` compares most fairly; all where they share none. seeds: by run id."""
    shared = {seeds[run] for run in runs_a} & {seeds[run] for run in runs_b}
    return tuple([run for run in group if not shared or seeds[run] in shared] for group in (runs_a, runs_b))


def paired(runs_a: Sequence[str], runs_b: Sequence[str], r: float = 0.0) -> Paired:
    """Runs b less runs a (each one run, or the seeds of a group), image by image; of three seeds or more, the same of both, with intervals
    that cover other seeds too.

    Raises StoreError unless all are of the same mode, n, n0, α and images.
    """
    wanted = [*runs_a, *runs_b]
    rows = ask(
        f"SELECT run_id, seed, acr, {', '.join(SETTINGS)} FROM runs WHERE run_id IN (SELECT unnest($1)) AND images > 0",
        [wanted],
    )
    for run_id in wanted:
        if run_id not in set(rows.run_id):
            raise StoreError(f"there is no certified run {run_id!r} in the store")
    names = " and ".join(runs[0] for runs in (runs_a, runs_b))
    if differing := [name for name in SETTINGS if rows[name].nunique() > 1]:
        raise StoreError(f"{names} cannot be compared: they differ in {', '.join(differing)}")
    a, b = images_of(runs_a, r), images_of(runs_b, r)
    if not (a.idx.equals(b.idx) and a.label.equals(b.label)):
        raise StoreError(f"{names} cannot be compared: their images have other labels")
    p = compare(*(table[name].to_numpy() for name in ("gain", "reached") for table in (a, b)), r)
    if min(len(runs_a), len(runs_b)) < 3:
        return p
    rates = rows.merge(accuracy_at(r, wanted)[["run_id", "certified_accuracy"]]).set_index("run_id")
    by_seed = [rates.loc[list(runs)].set_index("seed")[["acr", "certified_accuracy"]] for runs in (runs_a, runs_b)]
    of_a, of_b = (table[~table.index.duplicated()].sort_index() for table in by_seed)
    if not (of_a.index.equals(of_b.index) and len(of_a) == len(runs_a) == len(runs_b)):
        return p
    return for_other_seeds(p, of_b.acr - of_a.acr, of_b.certified_accuracy - of_a.certified_accuracy)


def per_class(run_ids: Sequence[str]) -> pd.DataFrame:
    """Of each true class, mean over the given seeds: label, images, acr, certified_accuracy_0, abstention."""
    return ask(
        """
        SELECT label, count(DISTINCT idx) AS images, avg(if(predict = label, radius, 0)) AS acr,
               avg((predict = label)::INT) AS certified_accuracy_0, avg((predict = -1)::INT) AS abstention
        FROM certificates WHERE run_id IN (SELECT unnest($1)) GROUP BY label ORDER BY label
        """,
        [list(run_ids)],
    )


def published(dataset: str) -> pd.DataFrame:
    """What the papers report for a data set: the columns of `published` in schema.sql."""
    return ask("SELECT * FROM published WHERE dataset = $1 ORDER BY sigma, method, source", [dataset])


def published_groups(dataset: str, n: int, n0: int, alpha: float, image_set: str) -> pd.DataFrame:
    """Published runs on these terms (mode fixed), seeds together: dataset, architecture, method, sigma, lam, hyper, recomputed, seeds,
    images, acr, acr_sd, certified_accuracy_0, source ("same terms"). `recomputed`: from logs of more samples or images, as
    precomputed/published says. acr_sd: of a run at this n, over seeds and samples.
    """
    return ask(
        """
        SELECT dataset, architecture, method, sigma, lam, hyper, recomputed, 'same terms' AS source, count(*) AS seeds, any_value(images) AS images,
               avg(acr) AS acr, sqrt(var_samp(acr) + avg(acr_sampling_sd ** 2)) AS acr_sd, avg(certified_accuracy_0) AS certified_accuracy_0
        FROM published_runs WHERE mode = 'fixed' AND dataset = $1 AND n = $2 AND n0 = $3 AND alpha = $4 AND image_set = $5
        GROUP BY ALL ORDER BY sigma, method, lam, hyper
        """,
        [dataset, n, n0, alpha, image_set],
    )


def published_curves(dataset: str, n: int, n0: int, alpha: float, image_set: str) -> pd.DataFrame:
    """Their curves, mean over seeds: architecture, method, sigma, lam, hyper, r, certified_accuracy, seeds."""
    return ask(
        """
        WITH points AS (SELECT architecture, method, sigma, lam, hyper, per_unit, images,
                               generate_subscripts(string_split(curve, ' '), 1) - 1 AS i,
                               unnest(string_split(curve, ' '))::DOUBLE AS reached
                        FROM published_runs
                        WHERE mode = 'fixed' AND dataset = $1 AND n = $2 AND n0 = $3 AND alpha = $4 AND image_set = $5)
        SELECT architecture, method, sigma, lam, hyper, i / per_unit AS r, avg(reached / images) AS certified_accuracy,
               count(*) AS seeds
        FROM points GROUP BY ALL ORDER BY sigma, method, lam, hyper, r
        """,
        [dataset, n, n0, alpha, image_set],
    )

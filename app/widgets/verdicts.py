"""The claim in words: of which baselines Consistency is above, how surely, and at what cost."""

import pandas as pd

from app.figures.palette import title
from backend.training.methods import place

THEIR_OWN = "at their own n and on all images: gains at different n compare roughly"
PUBLISHED = {  # of reproduction.LOGS -> whose they are
    "same terms": "the paper's released networks, means over their seeds, on the same terms",
    "released": f"the paper's released networks, {THEIR_OWN}",
    "cat-rs": f"the networks released with CAT-RS (Jeong et al., AAAI 2023), one seed each, whose λ is not told, {THEIR_OWN}",
}


def answer(rows: pd.DataFrame, whole: int) -> str:
    """In a sentence a network, by the longest training at each σ that each baseline had here; by imported logs where none had one.

    whole: epochs of the paper's recipe.
    """
    rows = rows[rows.method == "consistency"]
    ours = (rows.source == "trained").any()
    whose = "Measured here" if ours else "By the imported logs"
    networks = (rows[rows.source == "trained"] if ours else rows).groupby("architecture")
    return " ".join(
        f"{whose}{f' with {network}' if len(networks) > 1 else ''}: the ACR of Gaussian + Consistency is {_answer(some, whole)}"
        for network, some in networks
    )


def _answer(rows: pd.DataFrame, whole: int) -> str:
    """Of which baselines Consistency is above and of which not, and at which σ, with one network."""
    longest = rows[rows.epochs == rows.groupby(["baseline", "sigma"]).epochs.transform("max")]
    baselines = [(name, some) for (_, name), some in longest.groupby([longest.baseline.map(place), "baseline"])]
    caveats = [_caveats(some, whole) for _, some in baselines]
    of_all = (
        [caveat for caveat in caveats[0] if all(caveat in others for others in caveats)] if len(caveats) > 1 else []
    )
    found: dict[tuple[str, str], list[str]] = {}
    for (baseline, some), its_own in zip(baselines, caveats, strict=True):
        above = some.groupby("sigma").verdict.agg(lambda verdicts: (verdicts == "above").all())
        below = some.groupby("sigma").verdict.agg(lambda verdicts: (verdicts == "below").any())
        how = "above" if above.any() else "below" if (some.verdict == "below").all() else "not above"
        if above.any() and not above.all():
            where = f"{_at(above.index[above])} alone"
        elif len(above) == rows.sigma.nunique() > 1:
            where = "at any σ" if how == "not above" else "at every σ"
        else:  # it was not run at the others
            where = _at(above.index)
        lost = [f"below {_at(below.index[below])}"] if how == "above" and below.any() else []
        said = ", ".join([*lost, *(caveat for caveat in its_own if caveat not in of_all)])
        if how == "not above" and below.any():
            said = "; ".join(_by_verdict(some, whole, of_all))
        found.setdefault((how, where), []).append(title(baseline) + (f" ({said})" if said else ""))
    words = ", ".join(f"**{how}** {_listed(names)} {where}" for (how, where), names in found.items())
    return f"{words}." + (f" In every comparison: {', '.join(of_all)}." if of_all else "")


def _by_verdict(some: pd.DataFrame, whole: int, of_all: list[str]) -> list[str]:
    """Where a baseline's verdicts differ: each with its σ and what makes it weaker, but for what is said of all."""
    return [
        ", ".join([f"{verdict} {_at(sorted(rows.sigma.unique()))}", *(caveat for caveat in _caveats(rows, whole) if caveat not in of_all)])
        for verdict, rows in some.groupby("verdict")
    ]  # fmt: skip


def _caveats(some: pd.DataFrame, whole: int) -> list[str]:
    """In words: where too few seeds were trained for an interval over them, where both were trained for fewer epochs than the `whole` recipe, and where all that is compared collapsed."""
    said = []
    seeds = some.seed_gains.map(len)
    for rare, words in ((seeds == 1, "one seed"), (seeds == 2, "two seeds"), (some.epochs < whole, "")):
        if rare.any():
            epochs = _listed([f"{epochs}" for epochs in sorted(some.epochs[rare].unique())])
            at = "" if rare.all() else f"{_at(sorted(some.sigma[rare].unique()))} "
            said.append(at + (words or f"both trained for {epochs} epochs"))
    for row in some.sort_values("sigma").itertuples():
        if row.collapsed and not row.left_out:
            said.append(f"{_at([row.sigma])} {_listed([title(method) for method in row.collapsed])} collapsed")
    return said


def cost(rows: pd.DataFrame) -> str:
    """What Consistency costs or gains in certified accuracy at r = 0 over Gaussian, of the runs that `answer` speaks of, in words; maybe none."""
    rows = rows[(rows.method == "consistency") & (rows.baseline == "gaussian")]
    rows = rows[rows.source == "trained"] if (rows.source == "trained").any() else rows
    rows = rows[rows.epochs == rows.groupby(["architecture", "sigma"]).epochs.transform("max")].sort_values("sigma")
    networks = rows.groupby("architecture")
    return " ".join(
        f"{f'With {network} its' if len(networks) > 1 else 'Its'} certified accuracy at r = 0 less that of Gaussian: {', '.join(map(_cost, some.itertuples()))}."
        for network, some in networks
    )


def _cost(row) -> str:
    apart = ("" if row.accuracy_told else "not ") + "told apart"
    apart += "" if pd.isna(row.accuracy_p) else f" by McNemar's test, p = {row.accuracy_p:.1g}"
    return f"{100 * row.accuracy:+z.1f} points ({100 * row.accuracy_low:+z.1f} to {100 * row.accuracy_high:+z.1f}, {apart}) at σ = {row.sigma:g}{f', {row.setting}' if row.setting else ''}{''.join(f'; {words}' for words in of_collapsed(row))}"


MOVES = {  # (ACR, accuracy), as `Paired` tells them: what a larger λ does
    (1, -1): "buys ACR with accuracy",
    (1, 0): "buys ACR, and no price in accuracy shows",
    (1, 1): "raises both",
    (0, -1): "costs accuracy, and no ACR shows for it",
    (0, 0): "changes neither so that it shows",
    (0, 1): "raises accuracy, and ACR is not told apart",
    (-1, -1): "costs both",
    (-1, 0): "costs ACR, and no accuracy shows for it",
    (-1, 1): "buys accuracy with ACR",
}


def along(moves: pd.DataFrame, path: pd.DataFrame) -> str:
    """What a larger λ does, in words; maybe none. moves: rows of `reproduction.along_path`; path: what they are of."""
    if moves.empty:
        return ""
    said = []
    for part, some in moves.groupby("part", sort=False):
        found: dict[str, list[str]] = {}
        for row in some.sort_values(["sigma", "epochs"]).itertuples():
            which = ", ".join([f"λ = {row.least:g} → {row.most:g}", *trained(row, moves)])
            found.setdefault(MOVES[row.acr_told, row.accuracy_told], []).append(f"{row.sigma:g} ({which})")
        said.append(
            f"{part} a larger one " + ", ".join(f"**{does}** at σ = {_listed(at)}" for does, at in found.items())
        )
    lams = path.groupby("sigma").lam.nunique()
    if single := [f"{sigma:g}" for sigma in lams.index[lams == 1]]:
        said.append(f"at σ = {_listed(single)} one λ alone was run")
    return f"Measured here, along λ: {'; '.join(said)}."


def telling(rows: pd.DataFrame) -> list[str]:
    """In which of source, architecture, recipe and epochs, as far as they have those columns, rows differ; epochs only where the recipe does not tell them."""
    names = [
        name for name in ("source", "architecture", "recipe", "epochs") if name in rows and rows[name].nunique() > 1
    ]
    told = rows.groupby("recipe").epochs.nunique().max() == 1
    return [name for name in names if not (name == "epochs" and told)]


def trained(row, rows: pd.DataFrame) -> list[str]:
    """What tells a row from the others, in words."""
    say = {"recipe": "recipe `{}`", "epochs": "{} epochs"}
    return [say.get(name, "{}").format(getattr(row, name)) for name in telling(rows)]


def move(row) -> str:
    """One row of `reproduction.along_path` in figures."""
    test = "" if pd.isna(row.accuracy_p) else f" by McNemar's test, p = {row.accuracy_p:.1g}"
    broken = (
        f" Beyond, at λ = {_listed([f'{lam:g}' for lam in row.broken])}, training broke down." if row.broken else ""
    )
    return (
        f"λ = {row.least:g} → {row.most:g}: ACR {row.acr:+z.4f} ({row.acr_low:+z.4f} to {row.acr_high:+z.4f}); certified accuracy at r = 0: "
        f"{100 * row.accuracy:+z.1f} points ({100 * row.accuracy_low:+z.1f} to {100 * row.accuracy_high:+z.1f}, "
        f"{'' if row.accuracy_told else 'not '}told apart{test}); {'one seed' if row.seeds == 1 else f'{row.seeds} seeds'}{f', without {row.left_out} that collapsed' if row.left_out else ''}.{broken}"
    )


def versus(rows: pd.DataFrame) -> str:
    """Which baselines Consistency is above, not told apart from and below, in words."""
    said = {"above": "above", "not told apart": "not told apart from", "below": "below"}
    parts = [
        f"**{words}** " + ", ".join(title(row.baseline) + _where(row) + _of_seeds(row) for row in some.itertuples())
        for verdict, words in said.items() if len(some := rows[rows.verdict == verdict])
    ]  # fmt: skip
    return "Consistency is " + "; ".join(parts) + "."


def _of_seeds(row) -> str:
    """How many seeds, and, where they are told apart, how many gain or lose as their mean does."""
    seeds = [gain * row.gain > 0 for gain in row.seed_gains]
    said = "one seed" if len(seeds) == 1 else f"{len(seeds)} seeds"
    if len(seeds) > 1 and row.verdict != "not told apart":
        said = f"{'gains' if row.gain > 0 else 'loses'} in {'each' if all(seeds) else sum(seeds)} of {said}"
    return f" ({'; '.join([said, *of_collapsed(row)])})"


def of_collapsed(row) -> list[str]:
    """At which seeds which training collapsed, in words, and whether those are compared. row: of `reproduction.gains_over_seeds`."""
    said = []
    for method, seeds in row.collapsed.items():
        at = f"{'seed' if len(seeds) == 1 else 'seeds'} {_listed([str(seed) for seed in seeds])}"
        said.append(
            f"without {at}, at which {title(method)} collapsed"
            if row.left_out
            else f"{title(method)} collapsed at {at}"
        )
    return said


def _where(row) -> str:
    return f" at {row.setting}" if row.setting else ""


def terms(rows: pd.DataFrame, setting: str) -> str:
    """What the figures of the claim show, of which runs, on which terms and how surely."""
    seeds = rows.seed_gains.map(len).max()
    lams = rows[(rows.method == "consistency") & rows.lam.notna()].groupby("sigma").lam.unique()
    at = "; ".join(
        f"{' and '.join(f'{lam:g}' for lam in sorted(some))} at σ = {sigma:g}" for sigma, some in lams.items()
    )
    on_top = (
        " (*on top of SmoothAdv*: SmoothAdv + Consistency less SmoothAdv)"
        if (rows.method != "consistency").any()
        else ""
    )
    trained = rows[rows.source == "trained"]
    recipes = [
        f"`{name}` ({epochs} epochs)" for name, epochs in sorted(set(zip(trained.recipe, trained.epochs, strict=True)))
    ]
    return (
        f"ACR of Gaussian + Consistency{f' (λ = {at})' if at else ''} less that of each baseline, image by image: right of the line Consistency certifies more{on_top}. {setting}, "
        + (f"recipe {_listed(recipes)}, " if recipes else "")
        + ("one seed a run" if seeds == 1 else f"means over up to {seeds} seeds, the same of both (strokes: each of them)")
        + ". Bars are 95 % intervals of the mean paired difference: they cover the choice of test images"
        + (", and of three seeds or more that of the training seed too. " if seeds > 2 else ", not that of the training seed. ")
        + " ".join(
            f"Hollow{f', {network}' if rows.architecture.nunique() > 1 else ''}: the difference of {PUBLISHED[source]}."
            for (network, source), _ in rows.groupby(["architecture", "published_source"])
        )
    )  # fmt: skip


def _at(sigmas) -> str:
    return f"at σ = {_listed([f'{sigma:g}' for sigma in sigmas])}"


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))

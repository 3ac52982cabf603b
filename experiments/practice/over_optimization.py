"""When does more of the proxy reward stop buying gold reward, for the tilt and for best-of-n?

Along the tilt gold changes by its covariance with the proxy, dE[gold]/ds = Cov(gold, proxy), and peaks where that is
zero. Where the proxy's error is independent of gold, the covariance is gold's own variance: the tilt never
over-optimises, however heavy the error's tail, and pays in nats instead. Best-of-n, which sees ranks alone, does where
the tail is heavy. Where few answers fool the proxy both do. Nor does a form of the gold curve belong to an optimiser:
the one that Gao et al. fitted to best-of-n fits the tilt, too, better than RL's, unless the tail is heavy.

Gao et al., arXiv:2210.10760; Kwa et al., arXiv:2407.14503, on heavy tails. Threads: flow_grpo issue 233 and open-r1
issue 407 (does a KL weight help), Pref-GRPO issue 2 (do ranks). About 15 seconds on two cores.
"""

from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.harness import Caption, Claim, at_least, at_most, number
from experiments.practice.gold_runs import Config, Curve, Found, Results
from experiments.practice.gold_runs import run as run
from rlrazor.plotting import COLORS, key, note, panels, samples, theory

NORMAL, LAPLACE, HEAVY, HACKS = "normal", "Laplace", "heavy tail", "hacks"
TILT, BEST = "tilt", "best-of-n"
LOOKS: dict[str, Any] = {TILT: {"color": COLORS["reverse KL"]}, BEST: {"color": COLORS["measured"]}}
INDEPENDENT = {NORMAL: "-", LAPLACE: "-.", HEAVY: ":"}  # of gold, with their lines
MARKERS = {NORMAL: "o", LAPLACE: "^", HEAVY: "s", HACKS: "X"}
OF_BEST, OF_RL = r"$d\,(\alpha-\beta d)$", r"$d\,(\alpha-\beta\,\log d)$"  # what Gao et al. fitted to each
NEAREST, FARTHEST = 0.2, 3.0  # distances between which they are fitted


def misfit(found: Found, optimiser: str, form: str) -> float:
    """Root mean square of what a form leaves of the gain in gold reward, over the largest gain: least squares."""
    curve = found.curves[optimiser]
    distance = np.asarray(curve.distance)
    fitted = (distance >= NEAREST) & (distance <= FARTHEST)
    distance, gain = distance[fitted], (np.asarray(curve.gold) - found.at_draws.gold[0])[fitted]
    table = np.column_stack([distance, distance * (distance if form == OF_BEST else np.log(distance))])
    left = gain - table @ np.linalg.lstsq(table, gain)[0]
    return float(np.sqrt(np.mean(left**2)) / gain.max())


def after_peak(curve: Curve) -> float:
    """Share of the largest gold reward that is lost at the end."""
    gold = np.asarray(curve.gold)
    return float(1 - gold[-1] / gold.max())


def scores(found: Found, expected: Any) -> Float[np.ndarray, " draws"]:
    """Sampled gold rewards of best-of-n less others, in standard errors."""
    return np.abs(np.asarray(found.sampled.gold - expected) / found.sampled.error)


def claims(config: Config, results: Results) -> list[Claim]:
    """The slope of gold, its peak, who over-optimises under which error, and what fits."""
    found, strength = results.found, np.asarray(results.strengths)
    hacks, tails, plain = found[HACKS], found[HEAVY], found[NORMAL]
    slopes = [one.slopes for one in found.values()]
    tilted = hacks.curves[TILT]
    nats = {e: np.interp(strength[-1] / 2, strength, one.curves[TILT].distance) ** 2 for e, one in found.items()}
    off = {error: np.abs(np.asarray(one.curves[TILT].gold) - strength).max() for error, one in found.items()}
    normal = plain.curves[TILT]
    peaks = {error: one.curves[BEST].gold.max() / one.curves[TILT].gold.max() for error, one in found.items()}
    fits = {error: misfit(one, TILT, OF_BEST) / misfit(one, TILT, OF_RL) for error, one in found.items()}
    return [
        Claim(
            id="slope",
            statement="By the strength s of the tilt gold changes by its covariance with the proxy: largest difference "
            "over all strengths and errors.",
            source="dE[gold]/ds, differences",
            expected=at_most(1e-5),
            measured=max(np.max(np.abs(s.by_strength - s.covariance)) for s in slopes),
            control="the variance of the proxy",
            control_measured=max(np.max(np.abs(s.by_strength - s.variance)) for s in slopes),
        ),
        Claim(
            id="slope-per-nat",
            statement="A further nat buys beta Cov(gold, proxy) / Var(proxy) of gold: largest difference, over beta.",
            source="dE[gold]/dKL, differences",
            expected=at_most(1e-5),
            measured=max(np.max(np.abs(s.by_kl * strength - s.covariance / s.variance)) for s in slopes),
            control="beta, which it buys of the proxy",
            control_measured=max(np.max(np.abs(s.by_kl * strength - 1)) for s in slopes),
        ),
        Claim(
            id="peak",
            statement="With hacks, gold peaks on the tilt where its covariance with the proxy is 0: largest excess of "
            "another strength.",
            source="Cov(gold, proxy) = 0",
            expected=at_most(1e-9),
            measured=np.max(tilted.gold) - hacks.peak.gold,
            control="the strongest tilt",
            control_measured=np.max(tilted.gold) - tilted.gold[-1],
        ),
        Claim(
            id="independent-errors",
            statement="Under an error that is independent of gold the tilt reaches the gold reward of a tilt by gold "
            "itself, s, whatever the error: largest difference.",
            source="normal gold rewards",
            expected=at_most(1e-3),
            measured=max(off[error] for error in INDEPENDENT),
            control="hacks",
            control_measured=off[HACKS],
        ),
        Claim(
            id="tail-is-paid-in-nats",
            statement=f"For a gold reward of {strength[-1] / 2:g} a heavy tail makes the tilt pay at least 5 times the "
            "nats.",
            source="KL under a normal error of the same variance",
            expected=at_least(5),
            measured=nats[HEAVY] / nats[NORMAL],
            control="a Laplace error",
            control_measured=nats[LAPLACE] / nats[NORMAL],
        ),
        Claim(
            id="tail-turns-best-of-n",
            statement=f"Under it best-of-n loses at least half of its largest gold reward by n = {config.largest_n}.",
            source="Kwa et al., arXiv:2407.14503",
            expected=at_least(0.5),
            measured=after_peak(tails.curves[BEST]),
            control="the tilt",
            control_measured=after_peak(tails.curves[TILT]),
        ),
        Claim(
            id="gaussian-law",
            statement="Under a normal error gold is corr √(2 KL): largest relative difference.",
            source="jointly normal rewards, corr = 1/√2",
            expected=at_most(1e-3),
            measured=np.max(np.abs(normal.gold / normal.distance - 1)),
            control="the heavy tail",
            control_measured=np.max(np.abs(tails.curves[TILT].gold / tails.curves[TILT].distance - 1)),
        ),
        Claim(
            id="hacks-hit-the-tilt-first",
            statement="With hacks, best-of-n gets at least 1.2 times the gold reward of the tilt, each at its peak.",
            source="these worlds",
            expected=at_least(1.2),
            measured=peaks[HACKS],
            control="the heavy tail",
            control_measured=peaks[HEAVY],
        ),
        Claim(
            id="samples",
            statement=f"Keeping the best of n draws, {config.num_trials} times, agrees with best-of-n: largest "
            "difference in standard errors.",
            source="Monte Carlo",
            expected=at_most(4),
            measured=max(scores(one, one.at_draws.gold).max() for one in found.values()),
            control="the gold reward under a normal error",
            control_measured=max(scores(one, plain.at_draws.gold).max() for one in found.values()),
        ),
        Claim(
            id="forms-are-not-the-optimisers",
            statement="With hacks the form that Gao et al. fitted to best-of-n leaves at most 0.8 times what the form "
            "for RL leaves, of the tilt.",
            source="Gao et al., arXiv:2210.10760; least squares",
            expected=at_most(0.8),
            measured=fits[HACKS],
            control="the heavy tail",
            control_measured=fits[HEAVY],
            note="Ratio by error, " + ", ".join(f"{error}: {number(ratio)}" for error, ratio in fits.items()) + ".",
        ),
    ]


def plot(config: Config, results: Results) -> Figure:
    """Gold with hacks, gold under independent errors, the covariance, and what fits."""
    figure, axes = panels([["hacks", "errors"], ["slope", "forms"]], height=5.2)
    draw_hacks(axes["hacks"], results.found[HACKS])
    draw_errors(axes["errors"], results)
    draw_slope(axes["slope"], results)
    draw_forms(axes["forms"], results)
    return figure


def draw_hacks(ax: Axes, hacks: Found) -> None:
    """Proxy and gold against the distance."""
    for name, curve in hacks.curves.items():
        theory(ax, curve.distance, curve.proxy, linestyle="--", **LOOKS[name])
        theory(ax, curve.distance, curve.gold, label=name, **LOOKS[name])
    samples(ax, hacks.at_draws.distance, hacks.sampled.gold, **LOOKS[BEST])
    ax.plot(hacks.peak.distance, hacks.peak.gold, "*", color=COLORS["target"], zorder=4)
    note(ax, "Cov = 0", (float(hacks.peak.distance), float(hacks.peak.gold) - 0.25), ha="center", va="top")
    key(ax, "proxy", color=COLORS["exact"], linestyle="--")
    ax.set(xlabel=r"$d=\sqrt{\mathrm{KL}(\pi\Vert\pi_0)}$", ylabel="reward", title="hacks: gold turns")
    ax.set_ylim(-0.3, 1.1 * float(np.max(hacks.curves[TILT].proxy)))
    ax.legend(loc="upper left")


def draw_errors(ax: Axes, results: Results) -> None:
    """Gold against the distance, where errors are independent of it."""
    for error, line in INDEPENDENT.items():
        for name, curve in results.found[error].curves.items():
            theory(ax, curve.distance, curve.gold, linestyle=line, **LOOKS[name])
        found = results.found[error]
        samples(ax, found.at_draws.distance, found.sampled.gold, marker=MARKERS[error], markersize=3, **LOOKS[BEST])
        key(ax, error, color=COLORS["exact"], linestyle=line)
    ax.set(xlabel=r"$d=\sqrt{\mathrm{KL}(\pi\Vert\pi_0)}$", ylabel="gold reward", title="independent errors")
    ax.legend(loc="upper left", title="error of the proxy")


def draw_slope(ax: Axes, results: Results) -> None:
    """Covariances along the tilt: exact, and as slopes of gold."""
    for error, color in ((HACKS, COLORS["target"]), (HEAVY, COLORS["ref"])):
        slopes = results.found[error].slopes
        theory(ax, results.strengths, slopes.covariance, color=color, label=f"{error}")
        samples(ax, results.strengths, slopes.by_strength, color=color, at_most=14)
    ax.axhline(0, color=COLORS["ref"], linewidth=0.6)
    ax.plot(results.found[HACKS].peak_strength, 0, "*", color=COLORS["target"], zorder=4)
    ax.set(xlabel=r"strength of the tilt $s=1/\beta$", title="slope of gold along the tilt")
    ax.set_ylabel(r"Cov$_s$(gold, proxy) and $d$E[gold]$/ds$")
    ax.legend(loc="lower left")


def draw_forms(ax: Axes, results: Results) -> None:
    """What the two forms leave, one against the other."""
    for error, found in results.found.items():
        for name in found.curves:
            left = misfit(found, name, OF_BEST), misfit(found, name, OF_RL)
            samples(ax, *([100 * x] for x in left), marker=MARKERS[error], markersize=5, **LOOKS[name])
        key(ax, error, color=COLORS["exact"], marker=MARKERS[error], linestyle="")
    ax.set(xscale="log", yscale="log", title="what Gao's forms leave")
    ends = np.array([min(ax.get_xlim()[0], ax.get_ylim()[0]), max(ax.get_xlim()[1], ax.get_ylim()[1])])
    theory(ax, ends, ends, color=COLORS["ref"], linewidth=0.6)
    ax.set(xlabel=f"% left by {OF_BEST}, best-of-n's", ylabel=f"% left by {OF_RL}, RL's")
    ax.legend(loc="lower right")


def caption(config: Config, results: Results) -> Caption:
    """What a reader can quote."""
    hacks, best = results.found[HACKS], results.found[HEAVY].curves[BEST]
    most = float(results.draws[int(np.argmax(best.gold))])
    return Caption(
        f"With {100 * config.hack_share:g}% hacks the tilt's gold reward peaks at {number(hacks.peak_strength)} = "
        f"1/beta, where its covariance with the proxy is 0. Under independent errors the tilt never turns; best-of-n "
        f"does under a heavy tail, from n = {most:.0f} on.",
        a="Proxy dashed, gold solid; points are sampled. The star is where the covariance is 0.",
        b="Errors have variance 1; the heavy tail is Student's t with 4 degrees of freedom. Blue tilt, purple "
        f"best-of-n. The tail ends at {number(results.longest)}; one without end has no tilt.",
        c="Lines are covariances, points slopes of gold by differences.",
        d=f"Root mean square over the largest gain, distances {NEAREST:g} to {FARTHEST:g}: below the diagonal RL's "
        "form fits better. Colors as before.",
    )

"""Does a controller hold the KL at its target, and what does synchronising the reference do to the penalty?

Ziegler's controller (arXiv:1909.08593) multiplies beta by 1 + K clip((KL - target) / target). Whether it settles,
rings or never settles is decided by κ = K Var(reward) / (beta² target), about 2 K for small KL, and by when the KL is
measured. On the samples that the step trains on, as released code does, the loop is stable iff κ < 1, however slowly
the policy relaxes, and rings from κ = g / 4. On samples of the new policy it is stable iff κ < 2 (2 - g) / g. A
reference that is copied from the policy now and then is mirror descent: unanchored, whether copies are hard or soft.

Threads that ask: verl #1984, OpenRLHF PR 1289, trlx PR 361 (horizon and target); trl #2908, #2684, open-instruct #546
(synchronised references). About 8 seconds on two cores.
"""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.harness import Caption, Claim, at_least, at_most
from experiments.regularizers.control_runs import Config, Results
from experiments.regularizers.control_runs import run as run
from rlrazor.plotting import COLORS, key, panels, samples, theory
from rlrazor.tasks.controller import AFTER, BEFORE

MEASURED = (BEFORE, AFTER)
MEASURED_COLORS = {BEFORE: COLORS["reverse KL"], AFTER: COLORS["measured"]}
GAIN_COLORS = (COLORS["ref"], COLORS["oracle"], COLORS["reverse drift"], COLORS["forward drift"])
SHARE_COLORS = (COLORS["target"], COLORS["oracle"], COLORS["reverse drift"], COLORS["forward drift"])


def claims(config: Config, results: Results) -> list[Claim]:
    """The border and the ringing of the loop, both ways of measuring, and what synchronisation does."""
    ziegler = "Ziegler et al., arXiv:1909.08593, section 2.2"
    before, after = (results.critical(config, measured) for measured in MEASURED)
    by_formula = 2 * (2 - np.array(config.relaxations)) / np.array(config.relaxations)
    ratio, last = results.exact.kl / config.target, config.num_updates // 2
    swings = np.ptp(np.asarray(ratio)[:, last:], axis=-1)
    published, loud = 1, len(config.gains) - 1
    by_strength = np.abs(results.drift - results.predicted_drift).max()
    fixed = np.abs(results.drift[0] - results.predicted_drift[1:]).max()
    return [
        Claim(
            id="meets-target",
            statement=f"With a gain of {config.gains[published]:g} the controller ends at its target: |KL / target - "
            "1|.",
            source=ziegler,
            expected=at_most(1e-3),
            measured=abs(ratio[published, -1] - 1),
            control="a fixed coefficient, gain 0",
            control_measured=abs(ratio[0, -1] - 1),
        ),
        Claim(
            id="border",
            statement="Measured on the samples that the step trains on, the loop is stable iff κ < 1, however slowly "
            "the policy relaxes: largest relative error of the border.",
            source="linearised closed loop",
            expected=at_most(0.02),
            measured=np.abs(before - 1).max(),
            control="measured after the step",
            control_measured=np.abs(after - 1).max(),
            note=f"κ = {results.sensitivity:.3g} K here; 2 K for small KL.",
        ),
        Claim(
            id="border-after",
            statement="Measured after the step it is stable iff κ < 2 (2 - g) / g: largest relative error of the "
            "border, over relaxations g.",
            source="linearised closed loop; 2 for a policy that is always at its optimum",
            expected=at_most(0.02),
            measured=np.abs(after / by_formula - 1).max(),
            control="measured before the step",
            control_measured=np.abs(before / by_formula - 1).max(),
        ),
        Claim(
            id="ringing",
            statement="The angle by which the loop turns in an update, which is 2π over the period of its ringing, is "
            f"that of the roots: largest relative error at g = {config.relaxation:g}.",
            source="linearised closed loop",
            expected=at_most(0.02),
            measured=np.max(results.angle_error(config, BEFORE)),
            control="the roots of a loop that is measured after the step",
            control_measured=np.nanmax(results.angle_error(config, AFTER)),
        ),
        Claim(
            id="never-settles",
            statement=f"Beyond the border (gain {config.gains[loud]:g}) the clip leaves a cycle: KL / target swings by "
            "at least 0.5 in the second half of the training.",
            source="exact closed loop",
            expected=at_least(0.5),
            measured=swings[loud],
            control=f"the published gain, {config.gains[published]:g}",
            control_measured=swings[published],
        ),
        Claim(
            id="hard-copies-do-not-anchor",
            statement=f"With hard copies the penalty anchors nothing: drift after {config.num_syncs} copies as a share "
            "of what no policy exceeds that only gives the best answer.",
            source="mirror descent",
            expected=at_least(0.95),
            measured=results.drift[-1, -1] / results.highest_drift,
            control="a fixed reference",
            control_measured=results.drift[0, -1] / results.highest_drift,
        ),
        Claim(
            id="soft-copies-are-slower",
            statement="A soft copy of a share a does what hard copies do, 1 / a times as slowly: largest difference "
            "of the drift after j copies from that of the tilt at strength (1 + a j) / beta, in nats.",
            source="log ref grows by a reward / beta a copy",
            expected=at_most(1e-9),
            measured=by_strength,
            control="the drift of a policy whose reference is fixed",
            control_measured=fixed,
        ),
    ]


def plot(config: Config, results: Results) -> Figure:
    """Trainings, the border, the roots, and synchronised references."""
    draws = {"trainings": draw_trainings, "border": draw_border, "roots": draw_roots, "syncs": draw_syncs}
    figure, axes = panels([["trainings", "border"], ["roots", "syncs"]], height=5.2)
    for name, draw in draws.items():
        draw(axes[name], config, results)
    return figure


def draw_trainings(ax: Axes, config: Config, results: Results) -> None:
    """KL over updates, with exact KL as lines and with the KL of samples as points."""
    shown = slice(0, min(160, config.num_updates))
    for row, (gain, color) in enumerate(zip(config.gains, GAIN_COLORS, strict=True)):
        kappa = gain * results.sensitivity
        theory(ax, np.arange(shown.stop), results.exact.kl[row, shown] / config.target, color=color)
        samples(ax, np.arange(shown.stop), results.sampled.kl[row, shown] / config.target, color=color)
        key(ax, rf"$K={gain:g}$, $\kappa={kappa:.2g}$", color=color)
    ax.axhline(1, color=COLORS["target"], linestyle="--", linewidth=1.0)
    ax.set(xlabel="updates", ylabel=r"KL$(\pi\Vert\pi_0)$ / target", title="under the controller")
    ax.set_ylim(0, 1.45 * np.max(results.exact.kl[:, shown]) / config.target)
    ax.legend(loc="upper right", ncols=2)


def draw_border(ax: Axes, config: Config, results: Results) -> None:
    """The border of stability, and from where a loop rings, against the relaxation."""
    g = np.geomspace(config.relaxations[0], config.relaxations[-1], 200)
    lines = {BEFORE: np.ones_like(g), AFTER: 2 * (2 - g) / g}
    formulas = {BEFORE: r"$\kappa=1$", AFTER: r"$\kappa=2(2-g)/g$"}
    for measured in MEASURED:
        color = MEASURED_COLORS[measured]
        theory(ax, g, lines[measured], color=color, label=f"KL {measured}: {formulas[measured]}")
        samples(ax, config.relaxations, results.critical(config, measured), color=color, markersize=4)
    theory(ax, g, g / 4, color=MEASURED_COLORS[BEFORE], linestyle=":", label=r"rings from $\kappa=g/4$")
    ax.set(xscale="log", yscale="log", title="where the loop is stable")
    ax.set(xlabel=r"relaxation $g$ of the policy", ylabel=r"$\kappa=K\,\mathrm{Var}(r)/(\beta^2\,\mathrm{target})$")
    ax.set_ylim(0.5 * g[0] / 4, 12 * lines[AFTER].max())
    ax.legend(loc="upper right")


def draw_roots(ax: Axes, config: Config, results: Results) -> None:
    """Modulus of the larger root, and the angle in turns an update, against the loop gain."""
    for measured in MEASURED:
        color = MEASURED_COLORS[measured]
        for found, draw in ((results.predicted[measured], theory), (results.here[measured], samples)):
            style: Any = {"color": color} if draw is theory else {"color": color, "at_most": 30}
            draw(ax, config.kappas, np.abs(found).max(-1), **style)
            turns = np.abs(np.angle(found)).max(-1) / (2 * np.pi)
            if draw is theory:
                style["linestyle"] = ":"
            draw(ax, config.kappas, turns, **style)
        key(ax, f"KL {measured}", color=color)
    key(ax, r"largest $|\lambda|$", color=COLORS["exact"])
    key(ax, r"turns an update, $|\arg\lambda|/2\pi$", color=COLORS["exact"], linestyle=":")
    ax.axhline(1, color=COLORS["target"], linestyle="--", linewidth=1.0)
    ax.set(xscale="log", xlabel=r"$\kappa$", ylabel="roots of the loop", ylim=(-0.05, 2.6))
    ax.set_title(rf"roots at $g={config.relaxation:g}$: lines predicted, points measured")
    ax.legend(loc="upper left")


def draw_syncs(ax: Axes, config: Config, results: Results) -> None:
    """Drift from the first reference over synchronisations: closed form as lines, simulation as points."""
    syncs = np.arange(config.num_syncs + 1)
    names = {0.0: "fixed reference", 1.0: "hard copy"}
    for row, (share, color) in enumerate(zip(config.shares, SHARE_COLORS, strict=True)):
        theory(ax, syncs, results.predicted_drift[row], color=color)
        samples(ax, syncs, results.drift[row], color=color, at_most=24)
        key(ax, names.get(share, rf"soft copy, $a={share:g}$"), color=color)
    ax.axhline(float(results.highest_drift), color=COLORS["target"], linestyle="--", linewidth=1.0)
    ax.set(
        xlabel="synchronisations of the reference", ylabel=r"KL$(\pi\Vert\pi_0)$ (nats)", title="no anchor, only slower"
    )
    ax.set_ylim(0, 1.35 * float(results.highest_drift))
    ax.legend(loc="upper left", ncols=2)


def caption(config: Config, results: Results) -> Caption:
    """What a reader can quote."""
    before, after = (results.critical(config, measured) for measured in MEASURED)
    return Caption(
        f"A controller that sees the KL of the samples it trains on is stable up to κ = K Var(r) / (β² target) = "
        f"{np.mean(before):.3f} for every relaxation of the policy; one that sees the KL after the step up to "
        f"{np.min(after):.3g} to {np.max(after):.3g}. Copying the policy into the reference, hard or soft, leaves no "
        f"anchor: after {config.num_syncs} hard copies the drift is {results.drift[-1, -1]:.2f} nats, "
        f"{results.drift[0, -1]:.3f} with a fixed reference.",
        a=f"KL over the target of {config.target:g} nats under gains K, from {config.start_beta:g} times the "
        f"coefficient that meets it: lines with exact KL, points with the KL of {config.num_samples} samples.",
        b="The border of stability against the share g of the way to its optimum that the policy goes in an update.",
        c="Modulus and angle of the roots of the loop against its gain; a root at angle ½ turn alternates.",
        d="Drift from the first reference when it follows the policy; dashed, that of a policy that only gives the "
        f"best answer. The coefficient is {config.sync_beta:g} times the one that meets the target.",
    )

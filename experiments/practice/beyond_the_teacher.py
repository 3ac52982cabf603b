"""What does a student gain past its teacher, and what does it lose when it is its own?

Reward by the teacher's log-ratio h to the base, with a weight, and a KL penalty: the optimum lies on the e-geodesic
from the base through the teacher, at the weight, which may exceed 1. Reward peaks where its covariance with h is 0, and
near the base grows by √(2 KL) times their correlation, whatever the teacher. A student that imitates itself having seen
correct answers multiplies what it gave them already: under the reverse KL log-ratios of correct answers grow without
bound, under the forward KL for small gains only, and repeated rounds end at one answer under both. A reward for any
correct answer keeps all of them.

Extrapolation: arXiv:2602.12125; the law: arXiv:2609.32722; self-distillation: arXiv:2606.26091. Thread: SDPO issue 3
asks why not to sample from the self-teacher; that is the optimum under the forward KL. About 25 seconds on two cores.
"""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.harness import Caption, Claim, at_least, at_most, number
from experiments.practice.teacher_runs import Config, Own, Results
from experiments.practice.teacher_runs import run as run
from rlrazor.plotting import COLORS, note, panels, samples, success_axis, theory

GEOMETRIC, ARITHMETIC, TILT = "reverse KL", "forward KL", "tilt"
LOOKS: dict[str, Any] = {
    GEOMETRIC: {"color": COLORS["reverse KL"]},
    ARITHMETIC: {"color": COLORS["forward KL"]},
    TILT: {"color": COLORS["oracle"]},
}
LINES = ("-", "--", "-.", ":")
SUCCESS = 0.9


def geometric(config: Config, gains: Any) -> Any:
    """Where the reverse KL ends: log w_a/w_b + k (w_a - w_b), of the first and the last correct answer."""
    shares = np.array(config.correct) / sum(config.correct)
    return np.log(shares[0] / shares[-1]) + np.asarray(gains) * (shares[0] - shares[-1])


def diversity_at(own: Own, success: float) -> float:
    """The effective number of correct answers where rounds reach a success rate."""
    return float(np.interp(success, own.success, own.diversity))


def extrapolated(config: Config, results: Results) -> tuple[Any, float]:
    """Rewards along the e-geodesic that is extrapolated, and that of its teacher."""
    reward = np.asarray(results.beyond.lines.reward)[config.correlations.index(config.extrapolated)]
    return reward, float(np.interp(1, results.weights, reward))


def claims(config: Config, results: Results) -> list[Claim]:
    """The geodesic, the law, and what is left of the correct answers."""
    beyond, own = results.beyond, results.own
    reward, teacher = extrapolated(config, results)
    others = [weight for weight in config.trained if weight != 1]
    law, measured = (np.asarray(slope) for slope in beyond.slopes)
    ends = {name: np.asarray(one.log_ratio) for name, one in own.items()}
    trained = {name: np.asarray(one.trained) for name, one in own.items()}
    optimum = geometric(config, results.gains_trained)
    num_trained = len(own[TILT].diversity_trained) - 1
    rounds = [np.abs(one.diversity_trained - one.diversity[: len(one.diversity_trained)]).max() for one in own.values()]
    left = {name: diversity_at(one, SUCCESS) / float(one.diversity[0]) for name, one in own.items()}
    return [
        Claim(
            id="peak",
            statement="On the e-geodesic reward peaks where its covariance with the teacher's log-ratio is 0: largest "
            "excess of another place.",
            source="dE[r]/dλ = Cov(r, h)",
            expected=at_most(1e-9),
            measured=np.max(reward) - beyond.peak.reward,
            control="the teacher",
            control_measured=np.max(reward) - teacher,
        ),
        Claim(
            id="extrapolation-is-the-e-geodesic",
            statement="Training on the teacher's log-ratio with a weight, and a KL penalty, ends on the e-geodesic at "
            "the weight: largest KL between the two, in nats.",
            source="G-OPD, arXiv:2602.12125; gradient descent",
            expected=at_most(2e-3),
            measured=np.max(beyond.missed),
            control="the teacher, where the weight is not 1; the least",
            control_measured=np.min(np.compress([w in others for w in config.trained], beyond.far)),
        ),
        Claim(
            id="square-root-law",
            statement="Near the base reward grows by √(2 KL) Cov(r, h) / sd(h): largest relative difference.",
            source="arXiv:2609.32722, eq. of the law; a KL of 5e-9 nats",
            expected=at_most(1e-3),
            measured=np.max(np.abs(measured / law - 1)),
            control="sd(r), the slope of a tilt by the reward",
            control_measured=np.max(np.abs(measured / beyond.tilt_slope.law - 1)),
        ),
        Claim(
            id="no-teacher-is-steeper",
            statement="No teacher's slope exceeds sd(r), that of the tilt by the reward: the ratio of the largest.",
            source="Cauchy, Schwarz",
            expected=at_most(1),
            measured=np.max(measured) / beyond.tilt_slope.law,
            control="sd(r) times the correlation of the least correlated teacher",
            control_measured=np.max(measured) / (beyond.tilt_slope.law * config.correlations[-1]),
        ),
        Claim(
            id="reverse-kl-multiplies",
            statement="Under the reverse KL to itself having seen a correct answer, log-ratios of correct answers grow "
            "by k (w_a - w_b): largest difference of a training's end.",
            source="arXiv:2606.26091; the geometric mean of the teachers",
            expected=at_most(1e-6),
            measured=np.max(np.abs(trained[GEOMETRIC] - optimum)),
            control="the forward KL",
            control_measured=np.max(np.abs(trained[ARITHMETIC] - optimum)),
        ),
        Claim(
            id="forward-kl-returns",
            statement="Under the forward KL they grow less at the largest gain than at a smaller one: by nats.",
            source="the arithmetic mean of the teachers, which ends at the demonstrations",
            expected=at_least(0.1),
            measured=ends[ARITHMETIC].max() - ends[ARITHMETIC][-1],
            control="the reverse KL",
            control_measured=ends[GEOMETRIC].max() - ends[GEOMETRIC][-1],
        ),
        Claim(
            id="a-reward-keeps-them",
            statement="A reward for any correct answer leaves their log-ratios: largest change, in nats.",
            source="tilt",
            expected=at_most(1e-6),
            measured=np.max(np.abs(trained[TILT] - ends[TILT][0])),
            control="the forward KL",
            control_measured=np.max(np.abs(trained[ARITHMETIC] - ends[TILT][0])),
        ),
        Claim(
            id="rounds",
            statement=f"{num_trained} rounds that are trained follow the optima, each the base of the next: largest "
            "difference of the effective number of correct answers.",
            source="gradient descent",
            expected=at_most(1e-5),
            measured=max(rounds),
            control="the optima of the other KL",
            control_measured=np.abs(
                own[GEOMETRIC].diversity_trained - own[ARITHMETIC].diversity[: num_trained + 1]
            ).max(),
        ),
        Claim(
            id="own-teacher-loses-diversity",
            statement=f"At a success rate of {SUCCESS:g} self-distillation has lost at least a third of its effective "
            "number of correct answers: the share that is left, under the KL that leaves more.",
            source="these rounds",
            expected=at_most(2 / 3),
            measured=max(left[GEOMETRIC], left[ARITHMETIC]),
            control="a reward for any correct answer",
            control_measured=left[TILT],
        ),
    ]


def plot(config: Config, results: Results) -> Figure:
    """Reward along the geodesics, the law, one round of self-distillation, and many."""
    figure, axes = panels([["reward", "law"], ["ratio", "rounds"]], height=5.2)
    draw_reward(axes["reward"], config, results)
    draw_law(axes["law"], config, results)
    draw_ratio(axes["ratio"], results)
    draw_rounds(axes["rounds"], results)
    return figure


def draw_reward(ax: Axes, config: Config, results: Results) -> None:
    """Reward by the weight of the teacher's log-ratio."""
    beyond = results.beyond
    reward, _ = extrapolated(config, results)
    theory(ax, results.weights, reward, color=COLORS["exact"], label="e-geodesic")
    samples(ax, config.trained, beyond.trained.reward, color=COLORS["reverse KL"], label="trained")
    ax.plot(beyond.peak_weight, beyond.peak.reward, "*", color=COLORS["target"], zorder=4)
    note(ax, r"Cov$(r,h)=0$", (float(beyond.peak_weight), 1.03 * float(beyond.peak.reward)), ha="center", va="bottom")
    ax.axvline(1, color=COLORS["ref"], linewidth=0.6)
    note(ax, "teacher", (1.1, 0), va="bottom")
    ax.set(xlabel=r"$\lambda$ in $\pi\propto\pi_0\,e^{\lambda h}$, $h=\log\,T/\pi_0$", ylabel=r"E$_\pi[r]$")
    ax.set(title="past the teacher", ylim=(-0.03, 1.25 * float(np.max(reward))))
    ax.legend(loc="lower right")


def draw_law(ax: Axes, config: Config, results: Results) -> None:
    """Reward by the square root of the KL, with the slopes at the base."""
    beyond, reach = results.beyond, 1.6
    for i, correlation in enumerate(config.correlations):
        root = np.sqrt(2 * np.asarray(beyond.lines.kl[i]))
        near = root <= reach
        theory(
            ax,
            root[near],
            np.asarray(beyond.lines.reward[i])[near],
            color=COLORS["exact"],
            linestyle=LINES[i % len(LINES)],
            label=f"correlation {correlation:g}",
        )
        slope = float(beyond.slopes.law[i])
        theory(ax, [0, 0.9], [0, 0.9 * slope], color=COLORS["ref"], linewidth=0.7)
    root = np.sqrt(2 * np.asarray(beyond.tilt.kl))
    near = root <= reach
    theory(ax, root[near], np.asarray(beyond.tilt.reward)[near], label="tilt by reward", **LOOKS[TILT])
    ax.set(xlabel=r"$\sqrt{2\,\mathrm{KL}(\pi\Vert\pi_0)}$", ylabel=r"E$_\pi[r]$", title="slope Cov / sd at the base")
    ax.legend(loc="upper left", title="teacher")


def draw_ratio(ax: Axes, results: Results) -> None:
    """The log-ratio of two correct answers after one round."""
    for name, own in results.own.items():
        theory(ax, results.gains, own.log_ratio, **LOOKS[name])
        samples(ax, results.gains_trained, own.trained, **LOOKS[name])
    ax.set(xlabel="$k$: log-odds that seeing an answer adds", title="one round")
    ax.set_ylabel("log-ratio of two correct answers")


def draw_rounds(ax: Axes, results: Results) -> None:
    """Diversity by success, round by round."""
    words = {GEOMETRIC: "its own teacher, reverse KL", ARITHMETIC: "its own teacher, forward KL", TILT: "reward"}
    last = 0.999
    for name, own in results.own.items():
        success, diversity = (np.asarray(x) for x in (own.success, own.diversity))
        near = success <= last
        theory(ax, success[near], diversity[near], label=words[name], **LOOKS[name])
        success, diversity = (np.asarray(x) for x in (own.success_trained, own.diversity_trained))
        near = success <= last
        samples(ax, success[near], diversity[near], **LOOKS[name])
    success_axis(ax, float(np.min(results.own[TILT].success)), last)
    ax.set(xlabel="success rate", ylabel="effective number", title="rounds: correct answers left", ylim=(0.9, None))
    ax.legend(loc="center right")


def caption(config: Config, results: Results) -> Caption:
    """What a reader can quote."""
    beyond, own = results.beyond, results.own
    _, teacher = extrapolated(config, results)
    numbers = {name: number(diversity_at(one, SUCCESS)) for name, one in own.items()}
    return Caption(
        f"Reward grows from {number(teacher)} at the teacher to {number(beyond.peak.reward)} at weight "
        f"{number(beyond.peak_weight)}. As its own teacher a policy has {numbers[GEOMETRIC]} (reverse KL) or "
        f"{numbers[ARITHMETIC]} (forward KL) correct answers in effect when {100 * SUCCESS:g}% are correct; a reward "
        f"leaves {numbers[TILT]}.",
        a=f"{config.num_outcomes} answers; reward and log-ratio have variance 1 and correlation "
        f"{config.extrapolated:g} under the base.",
        b="Grey lines have the slope of the law. They leave it the sooner, the less the teacher knows of the reward.",
        c="Lines are closed forms, points ends of trainings. Colors as in d.",
        d=f"Each round takes its own correct answers as demonstrations, k = {config.gain:g}; points are trained.",
    )

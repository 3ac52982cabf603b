"""Which KL is this? Our names beside those of the libraries, as a page of the site."""

import html
from typing import NamedTuple

from experiments.harness.gallery import STYLE

LIBRARIES = {
    "trl": "TRL 1.10.0.dev0 (2026-07-24)",
    "verl": "verl 0.8.0.dev (2026-01-29)",
    "book": "RLHF book (2026-08-21)",
}


class Row(NamedTuple):
    """One thing, and what it is called; empty where a library has none."""

    ours: str
    formula: str
    samples: str
    descends: str
    trl: str = ""
    verl: str = ""
    book: str = ""


KL = (
    Row(
        "reinforce_loss(log_prob, reward - beta * k1(log_prob, log_prob_ref))",
        "r − β log π/π₀ as the reward",
        "the policy's, answers",
        "KL(policy || ref)",
        "RLOOTrainer: beta; experimental PPOTrainer: kl_estimator='k1', token by token",
        "use_kl_in_reward, kl_penalty=kl",
    ),
    Row(
        "reinforce_loss(log_prob, reward - beta * k3(log_prob, log_prob_ref))",
        "r − β (π₀/π − 1 + log π/π₀) as the reward",
        "the policy's",
        "none",
        "experimental PPOTrainer: kl_estimator='k3'",
        "use_kl_in_reward, kl_penalty=low_var_kl",
    ),
    Row(
        "k1(log_prob, log_prob_ref).mean()",
        "log π/π₀ as a loss",
        "the policy's",
        "nothing",
        "",
        "use_kl_loss, kl_loss_type=kl or k1",
        "kl_estimator: kl1, with the opposite sign",
    ),
    Row(
        "kl_penalty_loss(log_prob, log_prob_ref)",
        "(log π/π₀)² / 2 as a loss",
        "the policy's",
        "KL(policy || ref)",
        "",
        "use_kl_loss, kl_loss_type=mse or k2; another type with a + has its value and this gradient",
        "kl_estimator: kl2",
    ),
    Row(
        "k3(log_prob, log_prob_ref).mean()",
        "π₀/π − 1 + log π/π₀ as a loss",
        "the policy's",
        "KL(ref || policy)",
        "GRPOTrainer: beta",
        "use_kl_loss, kl_loss_type=low_var_kl or k3, clamped at 10",
    ),
    Row(
        "k3(log_prob_ref, log_prob).mean()",
        "π/π₀ − 1 − log π/π₀ as a loss",
        "the policy's",
        "chi2(policy || ref)",
        book="kl_estimator: kl3",
    ),
    Row(
        "(jnp.exp(log_prob - log_prob_old) * k3(log_prob, log_prob_ref)).mean()",
        "π/π_old (π₀/π − 1 + log π/π₀) as a loss",
        "an older policy's",
        "KL(policy || ref)",
        "GRPOTrainer: beta and use_bias_correction_kl",
    ),
)
OTHERS = (
    Row(
        "grpo_advantage", "(r − mean) / std", "a group's", "", "scale_rewards='group'", "norm_adv_by_std_in_grpo: true"
    ),
    Row("dr_grpo_advantage", "r − mean", "a group's", "", "scale_rewards='none'", "norm_adv_by_std_in_grpo: false"),
    Row(
        "reinforce_loss(..., mask=mask).mean()",
        "mean over the tokens of each answer, then over answers",
        "tokens",
        "",
        "loss_type='grpo'",
        "loss_agg_mode: seq-mean-token-mean",
        "all losses but DAPO's",
    ),
    Row(
        "the same on one row of all tokens",
        "mean over all tokens",
        "tokens",
        "",
        "loss_type='dapo' or 'bnpo'",
        "loss_agg_mode: token-mean",
        "DAPOLoss",
    ),
    Row(
        "reinforce_loss(sequence_log_prob(log_prob, mask), advantage)",
        "sum over tokens, over a constant",
        "answers",
        "",
        "loss_type='dr_grpo'",
        "loss_agg_mode: seq-mean-token-sum-norm",
    ),
    Row(
        "jensen_shannon_divergence(log_teacher, log_policy, weight)",
        "w KL(teacher || m) + (1 − w) KL(π || m)",
        "none: exact",
        "",
        "GKD: beta = w; at 0 and 1 it is KL(teacher || π) and KL(π || teacher)",
    ),
)


def page() -> str:
    """The page, which opens from disk."""
    titles = ["rlrazor", "formula", "whose samples", "its gradient is that of", *LIBRARIES.values()]
    tables = [
        f"<h2>{title}</h2>\n<table>\n{_line('th', titles)}\n" + "\n".join(map(_row, rows)) + "\n</table>"
        for title, rows in (("Penalties", KL), ("Advantages, means over tokens, distillation", OTHERS))
    ]
    return f"""{STYLE.format(title="rlrazor: names")}<h1>Which KL is this?</h1>
<p>What a line of training code descends, by its expected gradient with the samples held fixed; see the figure
<a href="index.html#practice/kl_in_the_loss">kl_in_the_loss</a>. π₀ is the reference.</p>
{"".join(tables)}
</html>
"""


def _row(row: Row) -> str:
    code = f"<code>{html.escape(row.ours)}</code>"
    cells = (html.escape(cell) for cell in (row.formula, row.samples, row.descends, row.trl, row.verl, row.book))
    return _line("td", [code, *cells])


def _line(tag: str, cells: list[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in cells) + "</tr>"

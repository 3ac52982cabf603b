"""The page of names: what each line is said to descend, asked of the line itself."""

import jax
import jax.numpy as jnp
import pytest

import rlrazor as rz
from experiments.harness import names
from experiments.harness.gallery import gallery

LOG_REF, LOG_OLD, *LOG_POLICIES = jax.nn.log_softmax(jax.random.normal(jax.random.key(2), (6, 5)))


@pytest.mark.parametrize("row", names.KL, ids=lambda row: row.formula)
def test_a_line_descends_what_the_page_says(row):
    """The code of the page is run as it stands."""

    def loss(log_prob, log_prob_ref, log_prob_old):
        here = {"log_prob": log_prob, "log_prob_ref": log_prob_ref, "log_prob_old": log_prob_old}
        return eval(row.ours, {**vars(rz), "jnp": jnp, "reward": jnp.zeros_like(log_prob), "beta": 0.1, **here})

    behavior = LOG_OLD if "older" in row.samples else None
    objective = rz.expected_loss(loss, LOG_REF, LOG_OLD, behavior=behavior)
    match = rz.best_match(objective, rz.known_objectives(LOG_REF), jnp.stack(LOG_POLICIES))
    says = {"none": "descends none of", "nothing": "no gradient"}.get(row.descends, f"descends {row.descends}")
    assert str(match).startswith(says)


def test_every_name_of_ours_exists():
    words = {"".join(c if c.isalnum() or c == "_" else " " for c in row.ours).split()[0] for row in names.OTHERS}
    assert {word for word in words if word != "the"} <= set(vars(rz))


def test_the_page_has_every_line_and_no_network(tmp_path):
    page = names.page()
    assert page.count("<tr>") == len(names.KL) + len(names.OTHERS) + 2
    assert "http" not in page
    assert all(version in page for version in names.LIBRARIES.values())
    assert 'href="names.html"' in gallery(tmp_path)

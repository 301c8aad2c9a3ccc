"""Gradient steps: Adam, what is refused, what an interruption leaves."""

import logging

import pytest
import torch

from trtseg.adapt.config import AdaptConfig, Learning
from trtseg.adapt.learn import Example, learn
from trtseg.adapt.loss import adaptation_loss, drift
from trtseg.adapt.weights import AdaptedWeights

PLAIN = Learning(6, 1e-2, 1.0, 1.0)


def _linear(seed=0):
    """A logistic model on a 4 x 4 grid, as something to adapt."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(5, 4, 4, generator=generator)
    weights = {"w": torch.randn(5, generator=generator), "b": torch.zeros(1)}

    def forward(values):
        return (torch.einsum("c,chw->hw", values["w"], features) + values["b"])[None]

    corrections = torch.tensor([[1.0, 1.0, 1.0], [2.5, 3.0, 0.0]])
    return weights, Example(forward, corrections, None)


def _ones(weights):
    return {name: torch.ones_like(value) for name, value in weights.items()}


def test_the_steps_are_adam_on_the_loss():
    weights, example = _linear()
    found = learn(AdaptedWeights(weights), [example], weights, _ones(weights), PLAIN)
    leaves = {name: value.clone().requires_grad_() for name, value in weights.items()}
    optimiser = torch.optim.Adam(list(leaves.values()), lr=PLAIN.learning_rate)
    losses = []
    for _ in range(PLAIN.steps):
        optimiser.zero_grad()
        loss = adaptation_loss(
            example.forward(leaves)[0], example.corrections, None,
            drift(leaves, weights, _ones(weights)),
            correction_weight=1.0, importance_weight=1.0,
        )
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert found.report.losses == pytest.approx(losses, rel=1e-5)
    for name, leaf in leaves.items():
        torch.testing.assert_close(found.values[name], leaf.detach(), rtol=1e-5, atol=1e-6)


def test_all_candidates_learn_by_their_mean_loss():
    weights, example = _linear()

    def both(values):
        logits = example.forward(values)
        return torch.cat([logits, 2 * logits])

    def mean(values):
        parts = [
            adaptation_loss(
                scale * example.forward(values)[0], example.corrections, None, 0.0,
                correction_weight=1.0, importance_weight=0.0,
            )
            for scale in (1, 2)
        ]
        return torch.stack(parts).mean()

    leaves = {name: value.clone().requires_grad_() for name, value in weights.items()}
    loss = mean(leaves)
    loss.backward()
    optimiser = torch.optim.Adam(list(leaves.values()), lr=1e-2)
    optimiser.step()
    found = learn(AdaptedWeights(weights), [Example(both, example.corrections, None)], weights,
                  _ones(weights), Learning(1, 1e-2, 1.0, 0.0))  # fmt: skip
    assert found.report.losses == pytest.approx([float(loss.detach())], rel=1e-5)
    for name, leaf in leaves.items():
        torch.testing.assert_close(found.values[name], leaf.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_rate_may_follow_the_loss(seed):
    weights, example = _linear(seed)

    def moved(**changes):
        learning = Learning(1, 1e-2, 1.0, 0.0, **changes)
        found = learn(AdaptedWeights(weights), [example], weights, _ones(weights), learning)
        return found.report.losses[0], found.values["w"] - weights["w"]

    loss, full = moved()
    _, scaled = moved(rate_scale="loss")
    torch.testing.assert_close(scaled, full * min(loss, 1.0), rtol=1e-4, atol=1e-7)
    assert (loss < 1) == (seed == 1)


def test_two_calls_go_on_where_one_would():
    weights, example = _linear()
    three = Learning(3, 1e-2, 1.0, 1.0)
    half = learn(AdaptedWeights(weights), [example], weights, _ones(weights), three)
    whole = learn(half, [example], weights, _ones(weights), three)
    once = learn(AdaptedWeights(weights), [example], weights, _ones(weights), PLAIN)
    assert whole.same_values(once.values)


def test_the_start_is_left_as_it_is():
    weights, example = _linear()
    before = {name: value.clone() for name, value in weights.items()}
    start = AdaptedWeights(weights)
    first = learn(start, [example], weights, _ones(weights), PLAIN)
    kept = {name: value.clone() for name, value in first.values.items()}
    learn(first, [example], weights, _ones(weights), PLAIN)
    assert start.same_values(before)
    assert first.same_values(kept)


def test_importance_holds_weights_back():
    weights, example = _linear()
    free = learn(AdaptedWeights(weights), [example], weights, _ones(weights),
                 Learning(30, 1e-2, 1.0, 0.0))
    held = learn(AdaptedWeights(weights), [example], weights, _ones(weights),
                 Learning(30, 1e-2, 1.0, 100.0))

    def moved(state):
        return float((state.values["w"] - weights["w"]).norm())

    assert moved(held) < 0.2 * moved(free)


def test_a_step_that_is_not_finite_is_refused_and_reported(caplog):
    weights, example = _linear()
    calls = []

    def forward(values):
        calls.append(1)
        logits = example.forward(values)
        return logits * float("nan") if len(calls) == 3 else logits

    broken = Example(forward, example.corrections, None)
    with caplog.at_level(logging.WARNING, "trtseg.adapt"):
        found = learn(AdaptedWeights(weights), [broken], weights, _ones(weights), PLAIN)
    assert found.report.rejected
    assert found.report.steps == 2
    assert "refused" in caplog.text
    good = learn(AdaptedWeights(weights), [example], weights, _ones(weights),
                 Learning(2, 1e-2, 1.0, 1.0))
    assert found.same_values(good.values)


def test_a_gradient_that_is_not_finite_is_refused():
    weights, example = _linear()

    def forward(values):
        # finite, with an infinite slope
        return example.forward(values) + (values["b"] - values["b"].detach()).sqrt()

    found = learn(AdaptedWeights(weights), [Example(forward, example.corrections, None)],
                  weights, _ones(weights), PLAIN)
    assert found.report.rejected
    assert found.same_values(weights)


def test_an_interruption_passes_through_and_changes_nothing():
    weights, example = _linear()
    before = {name: value.clone() for name, value in weights.items()}

    def forward(values):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learn(AdaptedWeights(weights), [Example(forward, example.corrections, None)],
              weights, _ones(weights), PLAIN)
    assert AdaptedWeights(weights).same_values(before)


def test_the_budget_ends_the_steps_but_not_the_first():
    weights, example = _linear()
    tight = Learning(50, 1e-2, 1.0, 1.0, budget_ms=1e-3)
    found = learn(AdaptedWeights(weights), [example], weights, _ones(weights), tight)
    assert found.report.steps == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": -1},
        {"learning_rate": float("nan")},
        {"correction_weight": 1.5},
        {"importance_weight": -1.0},
        {"guidance": "some"},
        {"mask_loss": "dice"},
        {"candidates": "some"},
        {"rate_scale": "step"},
        {"budget_ms": 0.0},
        {"rehearsed": -1},
    ],
)
def test_wrong_hyperparameters_are_refused(wrong):
    name = next(iter(wrong))
    values = {"steps": 1, "learning_rate": 1e-6, "correction_weight": 1.0,
              "importance_weight": 1.0, **wrong}
    with pytest.raises(ValueError, match=name):
        Learning(**values)


def test_the_papers_values_are_the_defaults():
    config = AdaptConfig()
    image, sequence = config.image, config.sequence
    assert (image.steps, image.learning_rate) == (10, 1e-6)
    assert (image.correction_weight, image.importance_weight) == (1.0, 1.0)
    assert (sequence.steps, sequence.correction_weight) == (1, 0.5)
    assert (sequence.importance_weight, sequence.guidance) == (2.0, "subset")


def test_steps_take_the_examples_in_turn():
    weights, example = _linear()
    seen = []

    def noted(name):
        def forward(values):
            seen.append(name)
            return example.forward(values)

        return Example(forward, example.corrections, example.mask)

    learn(AdaptedWeights(weights), [noted("a"), noted("b")], weights, _ones(weights),
          Learning(3, 1e-3, 1.0, 0.0))  # fmt: skip
    assert seen == ["a", "b", "a"]


@pytest.mark.parametrize("of_sequences", [{"guidance": "replay"}, {"rehearsed": 2}])
def test_what_only_a_sequence_has(of_sequences):
    with pytest.raises(ValueError, match=next(iter(of_sequences))):
        AdaptConfig(image=Learning(1, 1e-3, 1.0, 0.0, **of_sequences))

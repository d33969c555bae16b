"""Rewinding: the ticket's own start, bit for bit, and nothing of the end of training."""

from __future__ import annotations

import pytest
import torch

from winticket import rewind
from winticket.ticket import Curve, Mask, Seeds, State, Ticket, Trajectory, same_bits


def trajectory() -> Trajectory:
    generator = torch.Generator().manual_seed(0)

    def state(step: int) -> State:
        weights = {
            n: torch.randn(s, generator=generator) for n, s in (("a.weight", (3, 4)), ("a.bias", (3,)))
        }
        buffers = {
            "bn.running_mean": torch.randn(3, generator=generator),
            "bn.num_batches_tracked": torch.tensor(step),
        }
        return State(weights, buffers, {"exp_avg/a.bias": torch.randn(3, generator=generator)}, step)

    mask = Mask({"a.weight": torch.arange(12).view(3, 4) % 4 != 0})
    ticket = Ticket(mask, state(2), "ticket", Seeds(5, 1), {"model": "m"})
    one = torch.zeros(1, dtype=torch.float64)
    curve = Curve(torch.tensor([9]), one, one, one, one, one, one)
    return Trajectory(ticket, {9: state(9)}, curve)


def test_to_init_restores_weights_buffers_and_optimiser_bit_for_bit() -> None:
    path = trajectory()
    mask = Mask({"a.weight": torch.arange(12).view(3, 4) % 4 == 1})
    ticket = rewind.to_init(path, mask)
    start = path.ticket.start
    assert same_bits(ticket.start.weights, start.weights)
    assert same_bits(ticket.start.buffers, start.buffers)
    assert same_bits(ticket.start.optimizer, start.optimizer)
    assert ticket.start.step == 2
    assert ticket.mask is mask
    assert (ticket.origin, ticket.seeds, ticket.about) == ("ticket", Seeds(5, 1), {"model": "m"})


def test_to_init_takes_nothing_from_the_end_of_training() -> None:
    path = trajectory()
    ticket = rewind.to_init(path, path.ticket.mask)
    assert not same_bits(ticket.start.buffers, path.saved[9].buffers)
    assert int(ticket.start.buffers["bn.num_batches_tracked"]) == 2


def test_a_mask_that_revives_is_refused() -> None:
    path = trajectory()
    with pytest.raises(
        ValueError, match="keeps weights that the trajectory's ticket had pruned; a mask only shrinks"
    ):
        rewind.to_init(path, Mask.full({"a.weight": torch.zeros(3, 4)}))


def test_to_step_goes_back_to_what_the_first_training_saved() -> None:
    path = trajectory()
    early = State(path.saved[9].weights, path.saved[9].buffers, path.saved[9].optimizer, 5)
    path = Trajectory(path.ticket, {5: early, **path.saved}, path.curve)
    mask = path.ticket.mask
    plain, whole = rewind.to_step(path, mask, step=5), rewind.to_step_with_optimizer(path, mask, step=5)
    for ticket in (plain, whole):
        assert ticket.start.step == 5
        assert same_bits(ticket.start.weights, early.weights)
        assert same_bits(ticket.start.buffers, early.buffers)
    assert plain.start.optimizer == {}
    assert same_bits(whole.start.optimizer, early.optimizer)
    # The next levels start there themselves, and stay.
    again = rewind.to_step_with_optimizer(Trajectory(whole, {9: path.saved[9]}, path.curve), mask, step=5)
    assert same_bits(again.start.weights, early.weights)
    assert same_bits(again.start.optimizer, early.optimizer)
    with pytest.raises(
        ValueError, match="no state was saved at step 6; the training began at step 2 and saved at 5, 9"
    ):
        rewind.to_step(path, mask, step=6)


@pytest.mark.parametrize("how", [rewind.learning_rate, rewind.fine_tune])
def test_what_keeps_the_trained_weights(how: rewind.Rewind) -> None:
    """And has one for every place: a control with another mask must not start from zeros where it was pruned."""
    path = trajectory()
    last = path.saved[9]
    pruned = State(path.ticket.mask.apply(last.weights), last.buffers, {}, 9)
    ticket = how(Trajectory(path.ticket, {9: pruned}, path.curve), path.ticket.mask, step=5)
    assert (ticket.start.step, ticket.start.optimizer) == (5, {})
    assert same_bits(ticket.start.buffers, last.buffers)
    assert torch.equal(ticket.start.weights["a.bias"], last.weights["a.bias"])
    kept = path.ticket.mask.keep["a.weight"]
    start = ticket.start.weights["a.weight"]
    assert torch.equal(start[kept], last.weights["a.weight"][kept])
    assert torch.equal(start[~kept], path.ticket.start.weights["a.weight"][~kept])
    assert bool((start != 0).all())

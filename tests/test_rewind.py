"""Rewinding: the ticket's own start, bit for bit, and nothing of the end of training."""

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
    curve = Curve(torch.tensor([9]), one, one, one, one, one)
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

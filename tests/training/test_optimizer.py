"""Adam: the same steps as torch's own, and a state that goes on exactly."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from forecast.training.optimizer import Adam


@pytest.mark.parametrize(("decoupled", "decay"), [(False, 0.0), (False, 0.1), (True, 0.1)])
def test_it_steps_as_torch_does(decoupled, decay):
    torch.manual_seed(0)
    start = [torch.randn(5, 3), torch.randn(4)]
    ours = [value.clone().requires_grad_() for value in start]
    theirs = [value.clone().requires_grad_() for value in start]
    optimizer = Adam(ours, weight_decay=decay, decoupled=decoupled)
    kind = torch.optim.AdamW if decoupled else torch.optim.Adam
    # of the matrix alone: a bias has no weight decay
    groups = [{"params": theirs[:1]}, {"params": theirs[1:], "weight_decay": 0.0}]
    reference = kind(groups, lr=0.01, weight_decay=decay)
    for rate in (0.01, 0.01, 0.003, 0.02):
        for group in reference.param_groups:
            group["lr"] = rate
        for mine, other in zip(ours, theirs, strict=True):
            gradient = torch.randn_like(mine)
            mine.grad, other.grad = gradient.clone(), gradient.clone()
        optimizer.step(rate)
        reference.step()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-7)


def test_a_restored_state_goes_on_to_the_same_bits():
    torch.manual_seed(0)
    weight = torch.randn(7, requires_grad=True)
    optimizer = Adam([weight])
    gradients = torch.randn(6, 7)
    for gradient in gradients[:3]:
        weight.grad = gradient.clone()
        optimizer.step(0.1)
    copy = weight.detach().clone().requires_grad_()
    second = Adam([copy])
    second.load_state_dict({name: value.clone() for name, value in optimizer.state_dict().items()})
    for gradient in gradients[3:]:
        weight.grad, copy.grad = gradient.clone(), gradient.clone()
        optimizer.step(0.1)
        second.step(0.1)
    assert torch.equal(weight, copy)


def test_a_parameter_without_a_gradient_stays():
    used, unused = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    optimizer = Adam([used, unused], weight_decay=0.5)
    used.sum().backward()
    optimizer.step(0.1)
    assert not torch.equal(used, torch.ones(2))
    assert torch.equal(unused, torch.ones(2))
    optimizer.zero_grad()
    assert used.grad is None


def test_no_compiler_is_imported():
    # It is why this class exists: 150 MB and a second of CPU time in every training.
    script = (
        "import sys, torch\nfrom forecast.training.optimizer import Adam\n"
        "w = torch.ones(2, requires_grad=True)\no = Adam([w])\nw.sum().backward()\no.step(0.1)\n"
        "assert 'torch._dynamo' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr

"""The forced order of summation does what it claims: see `summation`."""

from fresh import FreshProcesses

CODE = """
import torch
import summation
summation.install()
draw = torch.Generator().manual_seed(0)
x, w, b = (torch.randn(*shape, generator=draw) for shape in ((24, 200), (16, 200), (16,)))
shifted = torch.empty(w.numel() + 1)[1:].view_as(w).copy_(w)
exact = x.double() @ w.double().t() + b
linear = torch.nn.functional.linear
assert torch.equal(linear(x, w, b), linear(x, w, b))  # the same tensors
assert not torch.equal(linear(x, w, b), linear(x, shifted, b))  # the same values elsewhere
assert not torch.equal(linear(x, w, b)[:5], linear(x[:5], w, b))  # fewer rows
products = {
    "linear": lambda t: linear(x, t, b), "mm": lambda t: x @ t.t() + b, "mv": lambda t: (t @ x[0] + b).expand(24, 16),
    "bmm": lambda t: (x.expand(3, 24, 200) @ t.t().expand(3, 200, 16) + b)[0],
    "addmm": lambda t: torch.addmm(b, x, t.t(), beta=2) - b,
    "baddbmm": lambda t: torch.baddbmm(b.expand(3, 24, 16), x.expand(3, 24, 200), t.t().expand(3, 200, 16))[0],
    "dot": lambda t: torch.stack([row.dot(x[0]) for row in t]).add(b).expand(24, 16),
}
for name, product in products.items():
    wanted = exact[:1].expand(24, 16) if name in ("mv", "dot") else exact
    torch.testing.assert_close(product(w).double(), wanted, rtol=1e-4, atol=1e-4, msg=name)
    assert not torch.equal(product(w), product(shifted)), name
x.requires_grad_(), w.requires_grad_()
linear(x, w, b).sum().backward()
torch.testing.assert_close(x.grad, w.detach().sum(0).expand(24, 200), rtol=1e-4, atol=1e-4)
whole = torch.randint(-127, 128, (24, 200), generator=draw).float()
assert torch.equal(whole @ whole.t(), (whole.double() @ whole.double().t()).float())
"""


def test_the_place_of_an_operand_changes_last_places_and_nothing_else(fresh: FreshProcesses) -> None:
    """In a process of its own, for it stays."""
    done = fresh.run(CODE)
    assert done.returncode == 0, done.stderr

import torch

from robust_flatness.runtime.graphs import Graphs


def test_on_the_processor_functions_are_called():
    calls = []

    def double(x):
        calls.append(len(x))
        return [2 * x]

    graphs = Graphs(most=1)
    for size in (2, 3, 2):
        (out,) = graphs("double", double, (torch.ones(size),))
        assert out.tolist() == [2.0] * size
    assert calls == [2, 3, 2]

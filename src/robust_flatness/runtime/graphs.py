"""Functions of tensors replayed as CUDA graphs: one launch instead of hundreds, for small networks."""

from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

Function = Callable[..., Sequence[Tensor]]
#: Largest number of recorded functions: each keeps its memory.
MOST_FUNCTIONS = 8
#: Calls before a function is recorded, during which libraries choose and load their kernels.
WARM_UP = 3


class Graphs:
    """Recorded functions, by a key and by the shapes and types of their inputs.

    The first `most` kinds of inputs of a key are recorded (full batches and a smaller last one); others, and
    all on other devices than CUDA, are computed directly. A recorded function may read only its inputs and
    tensors with fixed storage, and must neither synchronise with the device nor branch on tensor values. The
    tensors `kept`, which it changes, are restored after the warm-up, as is the state of torch's generator.
    """

    def __init__(self, most: int = 2):
        self.most = most
        self._recorded: dict[Hashable, dict[Hashable, tuple]] = {}
        self._pool = None

    def __call__(
        self, key: Hashable, function: Function, inputs: Sequence[Tensor], kept: Sequence[Tensor] = ()
    ) -> list[Tensor]:
        """Return the outputs of `function(*inputs)`; those of a replay are overwritten by the next."""
        full = key not in self._recorded and len(self._recorded) == MOST_FUNCTIONS
        if inputs[0].device.type != "cuda" or full:
            return list(function(*inputs))
        kinds = self._recorded.setdefault(key, {})
        kind = tuple((tensor.shape, tensor.stride(), tensor.dtype) for tensor in inputs)
        if kind not in kinds:
            if len(kinds) == self.most:
                return list(function(*inputs))
            kinds[kind] = self._record(function, inputs, kept)
        graph, own, outputs = kinds[kind]
        for tensor, given in zip(own, inputs, strict=True):
            tensor.copy_(given)
        graph.replay()
        return outputs

    def _record(self, function: Function, inputs: Sequence[Tensor], kept: Sequence[Tensor]) -> tuple:
        """Return the graph, and the tensors that it reads and writes."""
        device = inputs[0].device
        own = [tensor.detach().clone() for tensor in inputs]
        saved = [tensor.detach().clone() for tensor in kept]
        random = torch.cuda.get_rng_state(device)
        side = torch.cuda.Stream(device)
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                function(*own)
        torch.cuda.current_stream(device).wait_stream(side)
        with torch.no_grad():
            for tensor, value in zip(kept, saved, strict=True):
                tensor.copy_(value)
        torch.cuda.set_rng_state(random, device)
        graph = torch.cuda.CUDAGraph()
        # one pool of memory for all: only one of them runs at a time, and outputs are used before the next
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        with torch.cuda.graph(graph, pool=self._pool):
            outputs = list(function(*own))
        return graph, own, outputs

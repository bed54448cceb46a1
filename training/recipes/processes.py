"""One training in several processes, one for each card, as `accelerate launch` starts them.

Every process runs the recipe's `main` on the same RUN_DIR. Only the first writes there; what they must agree on, such
as when to stop, they ask each other at the same places. Started alone, a process is the first of one, and nothing here
costs it anything: torch is not even imported.

Where a recipe divides work by hand (PPO), each computes its share and all have the whole afterwards. Trainers of TRL
divide the rows of a step themselves, by DDP, FSDP2 or DeepSpeed, as accelerate's settings say.
"""

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

Part, Found = TypeVar("Part"), TypeVar("Found")
# As torchrun, and so accelerate, names them.
RANK = int(os.environ.get("RANK", "0"))
COUNT = int(os.environ.get("WORLD_SIZE", "1"))


def join() -> None:
    """Meet the others, and take the card that is this process's own. Waits until all are there."""
    if COUNT > 1:
        import torch
        from accelerate import PartialState

        PartialState(cpu=not torch.cuda.is_available())


def leave() -> None:
    """Part from the others, so that none of them takes this process's end for a failure."""
    if COUNT > 1:
        from torch import distributed

        if distributed.is_initialized():
            distributed.destroy_process_group()


def wait_for_all() -> None:
    """Go on when every process has come here."""
    if COUNT > 1:
        from torch import distributed

        distributed.barrier()


def any_of(flag: bool) -> bool:
    """Whether the flag is set in any process."""
    return any(everyones(flag))


def everyones(mine: Found) -> list[Found]:
    """What each process has, in the order of their ranks."""
    if COUNT == 1:
        return [mine]
    from torch import distributed

    found: list[Any] = [None] * COUNT
    distributed.all_gather_object(found, mine)
    return found


def all_of(mine: Sequence[Found]) -> list[Found]:
    """What all processes have, one after the other: as many each."""
    return [one for share in everyones(list(mine)) for one in share]


def own_of(everything: Sequence[Found]) -> Sequence[Found]:
    """This process's share of what `all_of` has put together."""
    share = len(everything) // COUNT
    return everything[RANK * share : (RANK + 1) * share]


def share_of(parts: Sequence[Part]) -> Sequence[Part]:
    """Those of the parts that are this process's own to do."""
    return parts[RANK::COUNT]


def at_most(together: int, rows: int) -> int:
    """How many of the rows go together when `together` would do: fewer where a process would have none."""
    return min(together, -(-rows // COUNT))


def divided(parts: Sequence[Part], work: Callable[[int, Part], Found]) -> list[Found]:
    """`work(number, part)` of every part, in their order. Each process does some of them and is told the others."""
    shares = everyones([work(number, part) for number, part in share_of(list(enumerate(parts)))])
    return [shares[number % COUNT][number // COUNT] for number in range(len(parts))]


def added_up(tensors: "Sequence[Tensor]") -> None:
    """Make each tensor the sum of what every process has in it. Equal bits everywhere afterwards."""
    if COUNT == 1:
        return
    import torch
    from torch import distributed

    together = torch.cat([tensor.flatten().float() for tensor in tensors])
    distributed.all_reduce(together)
    for tensor, total in zip(tensors, together.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(total.view_as(tensor))

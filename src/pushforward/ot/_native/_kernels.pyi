"""What module.cpp defines; shapes and meanings are in kernels.h and beside the functions there."""

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Ints = NDArray[np.int32]

def instruction_set() -> str: ...
def instruction_sets() -> list[str]: ...
def set_instruction_set(name: str) -> None: ...
def build(
    cost: Doubles,
    log_col: Doubles,
    a: Doubles,
    epsilon: float,
    damping: float,
    centre: Doubles,
    f: Doubles,
    cols: Doubles,
    plan: Doubles | None,
    cost_by_col: Doubles | None,
    threads: int,
) -> None: ...
def marginals(
    cost: Doubles,
    f: Doubles,
    g: Doubles,
    a: Doubles,
    b: Doubles,
    epsilon: float,
    rows: Doubles,
    cols: Doubles,
    threads: int,
) -> None: ...
def find_near(cost: Doubles, f: Doubles, g: Doubles, radius: float, threads: int) -> tuple[Ints, Ints, Doubles]: ...
def narrow(
    starts: Ints, columns: Ints, cost: Doubles, f: Doubles, g: Doubles, radius: float, threads: int
) -> tuple[Ints, Ints, Doubles]: ...
def fill(
    starts: Ints,
    columns: Ints,
    cost: Doubles,
    log_row: Doubles,
    log_col: Doubles,
    a: Doubles,
    epsilon: float,
    values: Doubles,
    f: Doubles,
    cols: Doubles,
    threads: int,
) -> None: ...

class Plans:
    @staticmethod
    def dense(values: Doubles) -> Plans: ...
    @staticmethod
    def sparse(values: Doubles, starts: Ints, columns: Ints, m: int) -> Plans: ...
    @staticmethod
    def grid(factors: list[Doubles], left: Doubles, right: Doubles | None) -> Plans: ...
    def descend(
        self,
        a: Doubles,
        b: Doubles,
        mass: Doubles,
        v: Doubles,
        u: Doubles,
        cols: Doubles,
        state: Doubles,
        settings: list[float],
        cg_most: int,
        cg_left: int,
        notes: Doubles,
        counts: NDArray[np.int64],
        seconds: float,
        threads: int,
        cg_before: int = 0,
    ) -> None: ...

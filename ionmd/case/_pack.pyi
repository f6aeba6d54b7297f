import numpy as np
import numpy.typing as npt

def pack(
    counts: npt.NDArray[np.int32], row: int, rows: int, inputs: int, record: memoryview, spr: int, at: int
) -> int: ...
def fill(last_row: npt.NDArray[np.int32], rows: int, inputs: int, record: memoryview, spr: int, at: int) -> None: ...
def unpack(
    record: memoryview, spr: int, at: int, rows: int, inputs: int, counts: npt.NDArray[np.int32], row: int = 0
) -> None: ...

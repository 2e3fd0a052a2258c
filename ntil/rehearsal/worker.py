"""One rank of a rehearsal, `python -m ntil.rehearsal.worker <run folder>`: the real worker, and a meter."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

from ntil.distributed.interrupt import end_process


def main(path: Path) -> int:
    """Run the frozen folder `path` on this rank as `ntil.train.worker` does, and measure it; its exit code."""
    from ntil.distributed.ranks import Ranks
    from ntil.rehearsal.meter import Meter, Script
    from ntil.runs.folder import RunFolder
    from ntil.train import phases, worker

    warnings.filterwarnings("ignore", "Unfeasible length constraints")  # Meter._write_whole_answers
    folder = RunFolder(path)
    phases.listen(Meter(folder, Ranks.here().index, Script.read(folder)))
    return worker.main(path)


if __name__ == "__main__":
    end_process(main(Path(sys.argv[1])))

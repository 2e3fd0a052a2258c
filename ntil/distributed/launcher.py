"""What a launcher tells the workers that it starts, and where processes look for modules."""

import sys
from pathlib import Path

LAUNCHER = "NTIL_LAUNCHER"  # set to the launcher's process id in the environment of the workers it starts


def look_here_last() -> None:
    """Have the working folder searched for modules after this project's packages.

    A data.py or tasks.py in it would else shadow one of them: `python -m` puts the folder first, and what an editable
    installation adds comes after the whole search path.
    """
    root, here = str(Path(__file__).resolve().parents[2]), str(Path.cwd())
    if root not in sys.path:
        sys.path.insert(0, root)
    if here != root:
        sys.path[:] = [path for path in sys.path if path not in ("", here)] + [here]

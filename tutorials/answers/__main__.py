"""The answers to the exercises: ``python tutorials/answers 3`` prints those of notebook 3."""

import inspect
import runpy
import sys
from pathlib import Path


def answers(path):
    """The functions of a file whose names begin with ``answer_``, by the number of the exercise."""
    found = runpy.run_path(str(path))
    return {int(name[7:]): f for name, f in found.items() if name.startswith("answer_")}


def main(arguments):
    """Print the words of each answer, and the numbers that its code computes and checks."""
    files = {path.name.partition("_")[0]: path for path in Path(__file__).parent.glob("[0-9]*.py")}
    if len(arguments) != 1 or arguments[0] not in files:
        sys.exit(
            f"expected the number of a notebook, 1 to {len(files)}: python tutorials/answers 3"
        )
    for exercise, answer in sorted(answers(files[arguments[0]]).items()):
        print(f"Exercise {exercise}. {inspect.getdoc(answer)}\n")
        answer()
        print()


if __name__ == "__main__":
    main(sys.argv[1:])

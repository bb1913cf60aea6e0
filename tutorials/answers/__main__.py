"""The answers to the exercises: ``python tutorials/answers 3`` prints those of notebook 3."""

import inspect
import runpy
import sys
from pathlib import Path


def answers(path):
    """The functions of a file whose names begin with ``answer_``, by the number of the exercise."""
    found = runpy.run_path(str(path))
    return {int(name[7:]): f for name, f in found.items() if name.startswith("answer_")}


def main(number):
    """Print the words of each answer, and the numbers that its code computes and checks."""
    for path in Path(__file__).parent.glob(f"{number}_*.py"):
        for exercise, answer in sorted(answers(path).items()):
            print(f"Exercise {exercise}. {inspect.getdoc(answer)}\n")
            answer()
            print()


if __name__ == "__main__":
    main(int(sys.argv[1]))

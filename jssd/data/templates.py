"""Prompt layouts as data: what is said around a problem, in the stdin and the function form.

`{statement}` and `{starter_code}` are the problem's; `{signature}` is the last signature in the
starter code, such as `add(a, b)`. The paper's exact wording is not published; these have the parts
its sources describe.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Template:
    """One layout. `stdin` and `function` hold equally many wordings; wording 0 is the one used at
    evaluation.

    `chat` sends the text as a user turn through the chat template, after a system turn where
    `system` isn't "". Without it the text goes to the model as it is.
    """

    name: str
    stdin: tuple[str, ...]
    function: tuple[str, ...]
    chat: bool
    system: str = ""


_APPLE_TASK = (
    "Below is a programming question. Write a correct Python program that follows the "
    "specification and passes all of its tests. Answer with the program and nothing else.\n\n"
    "Question: {statement}\n\n"
)
_APPLE_STDIN = _APPLE_TASK + (
    "Read the input from standard input, solve the problem and write the answer to standard "
    "output. Don't test the code on the sample inputs. Put the code between the delimiters shown "
    "below, and make sure that the whole program runs from start to end.\n\n"
    "The answer must have this format:\n```python\n# your code\n```"
)
# Its evaluator's: the stdin form says less of the format, and indents the placeholder.
_EVAL_STDIN = _APPLE_TASK + (
    "Read the input from standard input, solve the problem and write the answer to standard "
    "output. Don't test the code on the sample inputs. Put the code between the delimiters shown "
    "below, and make sure that the whole program reads, computes and prints when it is run.\n"
    "```python\n  # your code\n```"
)
_EVAL_FUNCTION = _APPLE_TASK + (
    "Solve the problem by completing the starter code, and put the code between the delimiters "
    "shown below.{quote}\n```python\n{{starter_code}}\n{fence}"
)
_APPLE_FUNCTION = _APPLE_TASK + (
    "Solve the problem by completing the starter code, and put the code between the delimiters "
    "shown below.\n\n```python\n{starter_code}\n```"
)

TEMPLATES = {
    template.name: template
    for template in (
        # Text for a model to go on with. Nothing follows the last word: a line break there is
        # off-distribution.
        Template(
            "raw",
            stdin=("{statement}",),
            function=("{statement}\n\n{starter_code}",),
            chat=False,
        ),
        # The plainest chat: the paper's prompt for thinking models.
        Template(
            "user",
            stdin=("{statement}",),
            function=("{statement}\n\n```python\n{starter_code}\n```",),
            chat=True,
        ),
        # The paper's prompt for instruct models.
        Template(
            "system",
            stdin=("{statement}",),
            function=("{statement}\n\nStarter code:\n```python\n{starter_code}\n```",),
            chat=True,
            system="Solve the programming problem in Python. Give the complete solution in one "
            "Markdown code block that opens with ```python.",
        ),
        # The released generator's layout: sent without a chat template, and as its SFT file and
        # evaluator wrap it.
        Template("apple_raw", stdin=(_APPLE_STDIN,), function=(_APPLE_FUNCTION,), chat=False),
        Template("apple_user", stdin=(_APPLE_STDIN,), function=(_APPLE_FUNCTION,), chat=True),
        # The released evaluator's layout: in one version the function form has a stray quotation
        # mark and a fence that is never closed, in another ("closed") it has not.
        Template(
            "apple_eval",
            stdin=(_EVAL_STDIN,),
            function=(_EVAL_FUNCTION.format(statement="{statement}", quote='"', fence=""),),
            chat=True,
        ),
        Template(
            "apple_eval_closed",
            stdin=(_EVAL_STDIN,),
            function=(_EVAL_FUNCTION.format(statement="{statement}", quote="", fence="```"),),
            chat=True,
        ),
        # Short and friendly, for models of a hundred million parameters.
        Template(
            "task",
            stdin=(
                "Write a Python program. {statement}\n"
                "It reads from standard input and prints the answer.",
                "{statement}\n\nSolve this with a Python program that reads from standard input "
                "and prints the answer. Reply with the whole program in one code block.",
                "Here is a problem: {statement}\n"
                "Give me Python code that reads the input with input() and prints the result.",
            ),
            function=(
                "Write a Python function `{signature}`. {statement}",
                "{statement}\n\nComplete the following Python function. Reply with the whole "
                "function in one code block.\n```python\n{starter_code}\n```",
                "I need a function in Python called `{signature}`. Here is what it should do: "
                "{statement}\nPlease show me the code.",
            ),
            chat=True,
        ),
    )
}


def get(name: str) -> Template:
    """The template called `name`. Raises ValueError that lists the names there are."""
    if name not in TEMPLATES:
        raise ValueError(f"template={name!r} is unknown. Choose one of: {', '.join(TEMPLATES)}.")
    return TEMPLATES[name]

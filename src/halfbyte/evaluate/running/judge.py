"""An answer judged by another model: the target that `--judge` names, at temperature 0, with one fixed question.

A judge that gives no grade makes the answer unscorable, never wrong; how often that happens is reported.
"""

import re
from typing import Any

ROLE = "judge"
MAX_TOKENS = 4096
PROMPT = """You grade one answer. Judge by the reference alone, not by what you know.

<question>
{question}
</question>
<reference>
{reference}
</reference>
<answer>
{answer}
</answer>

Say in a sentence or two whether the answer says the same as the reference. Wording, order and length do not matter;
a missing, added or contradicting claim that the reference makes essential does.
End with one line: GRADE: CORRECT or GRADE: INCORRECT."""
_GRADE = re.compile(r"GRADE:\s*\**\s*(CORRECT|INCORRECT)\b", re.IGNORECASE)


def prompt_of(question: str, reference: Any, answer: str) -> str:
    return PROMPT.format(question=question, reference=reference, answer=answer)


def grade_of(text: str) -> bool | None:
    """The last grade that the judge gave; None for none."""
    found = _GRADE.findall(text.rpartition("</think>")[2])
    return found[-1].upper() == "CORRECT" if found else None

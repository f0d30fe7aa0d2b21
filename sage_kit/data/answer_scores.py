"""Scores of answers to questions, by the published rules of SQuAD and HotpotQA."""

from __future__ import annotations

import re
import string
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

from sage_kit.components import Answers
from sage_kit.errors import DataError

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)

WHOLE = frozenset({"yes", "no", "noanswer"})
"""Answers of which HotpotQA counts no part."""


def normal_answer(text: str) -> str:
    """A text in small letters, without ASCII punctuation and the articles a, an and the, blanks made single."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def is_exact(reference: str, prediction: str) -> bool:
    """Whether two answers are the same but for case, punctuation, articles and blanks."""
    return normal_answer(reference) == normal_answer(prediction)


def word_overlap(reference: str, prediction: str) -> tuple[float, float, float]:
    """F1, precision and recall of the words that two answers share; where one has no words, 1 if both have none."""
    gold, found = normal_answer(reference).split(), normal_answer(prediction).split()
    if not gold or not found:
        alike = float(gold == found)
        return alike, alike, alike
    shared = sum((Counter(gold) & Counter(found)).values())
    if not shared:
        return 0.0, 0.0, 0.0
    precision, recall = shared / len(found), shared / len(gold)
    return 2 * precision * recall / (precision + recall), precision, recall


def best_scores(
    labels: Sequence[Answers], predictions: Sequence[str], score: Callable[[str, str], float]
) -> list[float]:
    """For each question the best score of its prediction against one of the answers that count as right.

    The rules are those of the evaluation script of SQuAD 2.0 (Rajpurkar, Jia and Liang 2018, arXiv 1806.03822), which
    gives on SQuAD 1.1 what the script of that does, but for answers that are only articles and punctuation: these
    do not count, and the right prediction for a question without any other is "".

    Parameters
    ----------
    labels : sequence of Answers
    predictions : sequence of str
    score : callable
        A reference and a prediction to a number.
    """
    if len(labels) != len(predictions):
        raise DataError(f"there are {len(labels):,} rows of answers, and {len(predictions):,} predicted ones")
    found = []
    for answers, prediction in zip(labels, predictions, strict=True):
        references = [text for text in answers.texts if normal_answer(text)] or [""]
        found.append(max(float(score(reference, prediction)) for reference in references))
    return found


# ---- HotpotQA -------------------------------------------------------------------------------------------------------


def hotpot_overlap(reference: str, prediction: str) -> tuple[float, float, float]:
    """F1, precision and recall as HotpotQA has them: "yes", "no" and "noanswer" are right or wrong as wholes."""
    gold, found = normal_answer(reference), normal_answer(prediction)
    if gold != found and (gold in WHOLE or found in WHOLE):
        return 0.0, 0.0, 0.0
    return word_overlap(reference, prediction) if gold and found else (0.0, 0.0, 0.0)


def fact_overlap(facts: Iterable[Hashable], predicted: Iterable[Hashable]) -> tuple[float, float, float]:
    """F1, precision and recall of the supporting facts that are predicted; 0 where there are none."""
    gold, found = set(facts), set(predicted)
    right = len(gold & found)
    return _f1_of(right / len(found) if found else 0.0, right / len(gold) if gold else 0.0)


def hotpot_scores(
    answers: Sequence[str],
    predicted_answers: Sequence[str],
    facts: Sequence[Iterable[Hashable]],
    predicted_facts: Sequence[Iterable[Hashable]],
) -> Mapping[str, float]:
    """Scores of answers, of supporting facts and of both together, as the evaluation script of HotpotQA gives them.

    The rules are those of Yang et al. 2018 (arXiv 1809.09600, section 5.2): the precision of both is the product of the
    two precisions, so is the recall, and both are exact where each is.

    Parameters
    ----------
    answers, predicted_answers : sequence of str
        "yes" and "no" among them.
    facts, predicted_facts : sequence of collections
        For each question its supporting facts, such as (title, number of the sentence).

    Returns
    -------
    dict of str to float
        Means over the questions: "em", "f1", "precision" and "recall" of answers, the same of facts after ``sp_``, and
        of both after ``joint_``.

    Raises
    ------
    DataError
        When the four are not of one length, or empty.
    """
    lengths = {len(answers), len(predicted_answers), len(facts), len(predicted_facts)}
    if len(lengths) > 1 or not answers:
        raise DataError("answers and facts, and what is predicted of both, must be of one length and not empty")
    totals: defaultdict[str, float] = defaultdict(float)
    for answer, predicted, its_facts, found in zip(answers, predicted_answers, facts, predicted_facts, strict=True):
        of_answer, of_facts = hotpot_overlap(answer, predicted), fact_overlap(its_facts, found)
        exact, facts_exact = is_exact(answer, predicted), set(its_facts) == set(found)
        both = _f1_of(of_answer[1] * of_facts[1], of_answer[2] * of_facts[2])
        for prefix, is_right, parts in (
            ("", exact, of_answer),
            ("sp_", facts_exact, of_facts),
            ("joint_", exact and facts_exact, both),
        ):
            for name, value in zip(("em", "f1", "precision", "recall"), (float(is_right), *parts), strict=True):
                totals[prefix + name] += value
    return {name: total / len(answers) for name, total in totals.items()}


def _f1_of(precision: float, recall: float) -> tuple[float, float, float]:
    both = precision + recall
    return (2 * precision * recall / both if both else 0.0), precision, recall

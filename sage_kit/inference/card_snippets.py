"""How a student is loaded and asked, as code that a model card shows."""

from __future__ import annotations

from sage_kit.inference.card_facts import RunFacts

PLACE = "path/to/student"
"""Stands for where the student lies; the name of a repository takes its place when a card is uploaded."""

_SENTENCES = f"""
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("{PLACE}")
vectors = model.encode(["A first text.", "A second text."])
print(model.similarity(vectors[:1], vectors[1:]))
"""

_CLASSES = f"""
from transformers import pipeline

classify = pipeline("text-classification", "{PLACE}", truncation=True)
print(classify([TEXT]))
"""

_NUMBERS = f"""
from transformers import pipeline

rate = pipeline("text-classification", "{PLACE}", function_to_apply="none", truncation=True)
print(rate([TEXT])[0]["score"])
"""

_LABEL_SETS = f"""
from transformers import pipeline

label = pipeline("text-classification", "{PLACE}", top_k=None, truncation=True)
print([one["label"] for one in label([TEXT])[0] if one["score"] >= 0.5])
"""

_TAGS = f"""
from transformers import pipeline

tag = pipeline("token-classification", "{PLACE}", aggregation_strategy="first")
print(tag("A text of some words."))
"""

_SPANS = f"""
import torch
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

model = AutoModelForQuestionAnswering.from_pretrained("{PLACE}").eval()
tokenizer = AutoTokenizer.from_pretrained("{PLACE}")
question, context = "Who wrote the book?", "The book was written by Ada, and read by many."

batch = tokenizer(question, context, truncation="only_second", return_offsets_mapping=True, return_tensors="pt")
places = batch.pop("offset_mapping")[0]
allowed = torch.tensor([part == 1 for part in batch.sequence_ids(0)])
with torch.no_grad():
    output = model(**batch)
scores = output.start_logits[0][:, None] + output.end_logits[0][None, :]
spans = (allowed[:, None] & allowed[None, :]).triu()
start, end = divmod(int(scores.masked_fill(~spans, float("-inf")).argmax()), len(places))
print(context[places[start][0] : places[end][1]])
"""

_WHOLE = f"""
from sage_kit import load_student

student = load_student("{PLACE}")
print(student.predict(TEXTS))
"""

_TEXT, _PAIR = '"A text."', '{"text": "A first text.", "text_pair": "A second text."}'


def plain_snippet(facts: RunFacts) -> str:
    """Code that needs transformers, or sentence-transformers, and nothing of this project."""
    by_architecture = {"embedding": _SENTENCES, "token": _TAGS, "span": _SPANS}
    by_labels = {"numbers": _NUMBERS, "label_sets": _LABEL_SETS}
    found = by_architecture.get(facts.architecture) or by_labels.get(facts.label_kind, _CLASSES)
    return found.replace("TEXT", _PAIR if facts.has_pairs else _TEXT).strip()


def own_snippet(facts: RunFacts) -> str:
    """Code that asks the student by this project."""
    texts = '["A text.", "Another text."]'
    if facts.architecture == "span":
        texts = '["Who wrote the book?"], ["The book was written by Ada, and read by many."]'
    elif facts.has_pairs:
        texts = '["A first text."], ["A second text."]'
    return _WHOLE.replace("TEXTS", texts).strip()

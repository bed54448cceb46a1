"""The hidden utility: what simulated annotators prefer. A pure function of two texts.

    utility = 2.0 length + 0.7 finish + 1.0 freshness + 0.7 relevance + 1.2 form        every part in 0..1

It prefers short, finished answers that do not repeat themselves and stay on the topic: what a careful reader
would ask of a small model whose answers are capped at 64 tokens, and what preference training can teach such
a model. It does not know whether an answer is true, so a rehearsal says nothing about the truthfulness of a
model.

length      A bell curve over log(words / 25). 25 words is a full answer in one or two sentences. The curve is
            wide towards shorter answers (width 1.5: "Paris." is still an answer) and narrow towards longer
            ones (width 0.4: 48 words, where the cap cuts, get 0.26). The largest weight, because no appended
            phrase makes a long answer shorter. Words in runs of 8 or more copied from the prompt don't count:
            an echo is no answer.
finish      1 / (1 + t / 6), where t is the number of words after the last finished sentence. Smooth on
            purpose: being cut off one word before the end costs little, a long loose end much. A full stop
            behind "of the" finishes nothing. Its weight stays below the spread of the whole, or a bare "."
            would be worth too much.
freshness   exp(-(1 - d) / 0.15), where d is the share of distinct bigrams (neighbouring words). Loops score
            near 0, ordinary prose 0.7 to 1. It keeps a policy from earning length with copies of one
            sentence.
relevance   1 - exp(-k / 2), where k counts the different content words of the prompt that the completion
            takes up, echoes left out. It saturates: naming the topic matters, naming it ten times does not.
form        Only when the prompt asks for JSON: the share of the completion's words that stand within JSON,
            times 1 when that JSON parses and is not empty, times up to 0.6 when it only looks like JSON.
            Weighted so that a bare JSON object of six words is not beaten by the same object in a wrapping of
            words. 0.5 when no JSON was asked for, which changes nothing between the completions of one
            prompt.

The weights are such that no single appended phrase ("." or "I hope this helps!" or the prompt said again)
raises the utility of realistic completions by one standard deviation;
tests/annotation/test_rehearsal_utility.py measures that.

This file is fixed. When training does not reach what it should, the number of pairs, the rates or the lengths
may change; the utility may not, or the measure would be fitted to the result.
"""

import json
import math
import re
from itertools import pairwise
from typing import NamedTuple

__all__ = ["WEIGHTS", "Parts", "parts", "utility"]


class Parts(NamedTuple):
    """One number per part of the utility. As a score each lies in 0..1; as weights each is >= 0."""

    length: float
    finish: float
    freshness: float
    relevance: float
    form: float


WEIGHTS = Parts(length=2.0, finish=0.7, freshness=1.0, relevance=0.7, form=1.2)

IDEAL_WORDS = 25
WIDTH_SHORTER, WIDTH_LONGER = 1.5, 0.4  # of the bell curve, in units of log(words)
PARROT_WORDS = 8  # so long a run copied from the prompt is no answer; shorter ones are quotes
LOOSE_WORDS = 6  # a loose end of so many words halves `finish`
STALENESS = 0.15  # a share of repeated bigrams that divides `freshness` by e
TOPIC_WORDS = 2  # after so many words of the prompt, `relevance` has 63 % of its range
NEAR_JSON = 0.6  # the most that text which looks like JSON but does not parse can get
NO_FORM_ASKED = 0.5

WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
SENTENCE_END = re.compile(r"""[.!?…]["'”’)\]*_]*(?=\s|$)""")
LIST_MARK = re.compile(r"^\s*(?:\d+[.)]|[-*•])(?:\s+|$)")
BARE_LIST_MARK = re.compile(r"\n\s*(?:\d+[.)]|[-*•])$")
ASKS_FOR_JSON = re.compile(r"\bjson\b", re.IGNORECASE)
OPENING = re.compile(r"[{\[]")
JSON_KEY = re.compile(r'"[^"\n]+"\s*:')


def _word_set(text: str) -> frozenset[str]:
    return frozenset(text.split())


# A sentence that stops behind one of these was cut off, whatever mark follows.
DANGLING = _word_set(
    "a an the and or but nor of to in on at by for from with into about as than that which who whose "
    "because if when while my your their its our his her is are was were be been can could will would "
    "should may might must this these such very more most also e.g i.e"
)

# Words that carry no topic: grammar, politeness, and talk about the form of the answer.
NO_TOPIC = DANGLING | _word_set(
    "i me you he she it we they them us him what how why where whom do does did done have has had having "
    "not no yes so there here then just some any all each other another only own same too out up down "
    "over under again one two three four five six please thanks thank hello hi dear want need like make "
    "made tell give say said explain describe write rewrite answer question reply sentence sentences word "
    "words short brief briefly simple simply json keys key return list text following extract polite "
    "politely customer get got let know help way something anything thing things much many between after "
    "before during without within"
)


def utility(prompt_text: str, completion_text: str, weights: Parts = WEIGHTS) -> float:
    """How good a completion is to the simulated annotators; 0 for an empty one, at most the sum of the
    weights.

    `prompt_text` is what the annotator's page shows above the completions, all messages joined. Never raises.
    """
    scores = parts(prompt_text, completion_text)
    return sum(weight * score for weight, score in zip(weights, scores, strict=True))


def parts(prompt_text: str, completion_text: str) -> Parts:
    """The five scores before weighting, each in 0..1."""
    words = [word.lower() for word in WORD.findall(completion_text)]
    if not words:
        return Parts(0.0, 0.0, 0.0, 0.0, 0.0)
    prompt_words = [word.lower() for word in WORD.findall(prompt_text)]
    own_words = _own_words(prompt_words, words)
    return Parts(
        length=_length(len(own_words)),
        finish=1 / (1 + _loose_words(completion_text) / LOOSE_WORDS),
        freshness=_freshness(words),
        relevance=_relevance(prompt_words, own_words),
        form=_form(completion_text, len(words)) if ASKS_FOR_JSON.search(prompt_text) else NO_FORM_ASKED,
    )


def _own_words(prompt_words: list[str], words: list[str]) -> list[str]:
    """The completion's words without runs of PARROT_WORDS (or the whole prompt) copied from the prompt."""
    size = min(PARROT_WORDS, len(prompt_words)) or 1
    runs = {tuple(prompt_words[i : i + size]) for i in range(len(prompt_words) - size + 1)}
    copied = {i + j for i in range(len(words)) if tuple(words[i : i + size]) in runs for j in range(size)}
    return [word for i, word in enumerate(words) if i not in copied]


def _length(count: int) -> float:
    if count == 0:
        return 0.0
    distance = math.log(count / IDEAL_WORDS)
    width = WIDTH_LONGER if distance > 0 else WIDTH_SHORTER
    return math.exp(-0.5 * (distance / width) ** 2)


def _loose_words(text: str) -> int:
    """Words after the last finished sentence of the last line. A line break finishes the lines above it."""
    if _ends_in_json(text):
        return 0
    body = BARE_LIST_MARK.sub("", text.strip().rstrip("`").rstrip())
    last_line = LIST_MARK.sub("", body.rsplit("\n", 1)[-1])
    finished_up_to = 0
    for end in SENTENCE_END.finditer(last_line):
        before = WORD.findall(last_line[: end.start()])
        if before and before[-1].lower() not in DANGLING:
            finished_up_to = end.end()
    return len(WORD.findall(last_line[finished_up_to:]))


def _freshness(words: list[str]) -> float:
    bigrams = list(pairwise(words))
    repeated = 1 - len(set(bigrams)) / len(bigrams) if bigrams else 0.0
    return math.exp(-repeated / STALENESS)


def _relevance(prompt_words: list[str], words: list[str]) -> float:
    topic = {_stem(word) for word in prompt_words if word not in NO_TOPIC}
    return 1 - math.exp(-len(topic & {_stem(word) for word in words if word not in NO_TOPIC}) / TOPIC_WORDS)


def _stem(word: str) -> str:
    """A crude stem, enough to see that "refunds" takes up "refund"."""
    for suffix in ("ing", "ed", "es", "s", "ly", "e"):
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            return word[: -len(suffix)]
    return word


def _form(text: str, word_count: int) -> float:
    """How much of a completion is JSON, or at least looks like it. Asked only when the prompt wants JSON."""
    start, end = _json_value(text)
    proper = len(WORD.findall(text[start:end])) / word_count
    attempt = text[text.find("{") :] if "{" in text else ""
    likeness = NEAR_JSON * (1 - math.exp(-len(JSON_KEY.findall(attempt)) / 2))
    return min(1.0, max(proper, likeness * len(WORD.findall(attempt)) / word_count))


def _ends_in_json(text: str) -> bool:
    body = text.strip().rstrip("`").rstrip()
    start, end = _json_value(body)
    return start < end == len(body)


def _json_value(text: str) -> tuple[int, int]:
    """(start, end) of the longest JSON object or array that parses and is not empty; (0, 0) if none."""
    best = (0, 0)
    decoder = json.JSONDecoder()
    position = 0
    while (opening := OPENING.search(text, position)) is not None:
        position = opening.end()
        try:
            value, end = decoder.raw_decode(text, opening.start())
        except (ValueError, RecursionError):
            continue
        position = end
        if value and end - opening.start() > best[1] - best[0]:
            best = (opening.start(), end)
    return best
